"""What the report points out about the record's seals: whether it is as it was written."""

from __future__ import annotations

from collections.abc import Iterator

from toucan_guard.audit.report.figures import Notice, Report
from toucan_guard.audit.report.words import plural


def seals(report: Report) -> Iterator[Notice]:
    """Seals that are broken, or were not checked."""
    found = report.integrity
    if found.state == "tampered":
        evidence = sum(finding.tampering for finding in found.findings)
        yield Notice(
            "tampered",
            "act",
            "The record was changed after it was written",
            f"{plural(evidence, 'place')}{' or more' if found.more else ''} where lines were altered, taken out, put "
            "in or moved. What this report counts may not be what happened.",
            "Keep the files as they are, and find out who could write to them. The places are listed under "
            "“Is this record genuine?”.",
        )
    elif found.unknown_lines and found.with_key:
        yield Notice(
            "unknown_key",
            "act",
            "Lines of the record fit no key that was given",
            f"Nothing is known of {plural(found.unknown_lines, 'line')}: they may be of the time before a key was "
            "changed, or somebody without a key has altered them or made them up.",
            "Make the report again with --key-file for each key that was in use. What still fits none was not written "
            "by the guard as it stands there.",
        )
    elif found.unknown_lines:
        yield Notice(
            "unchecked",
            "look",
            "The record's seals were not checked",
            "It is sealed with a key, and the key was not given to this report.",
            "Make the report again with --key-file, or with TOUCAN_GUARD_AUDIT_CHAIN_KEY set.",
        )
    elif any(finding.kind == "foreign" for finding in found.findings):
        yield Notice(
            "unchecked",
            "look",
            "Not all of these files are a record",
            "A file holds no line that the guard has sealed. It is named under “Is this record genuine?”.",
            "Leave it out if it is something else. If it was a record, it was garbled on the way: use the original.",
        )


def no_seals(report: Report) -> Iterator[Notice]:
    """There is nothing to check."""
    if report.integrity.state == "unsealed" and report.newest is not None:
        yield Notice(
            "unsealed",
            "look",
            "The record carries no seals",
            "So nobody can tell whether it is as it was written.",
            "Right, if it went through structlog, or was written by a version without found. Otherwise somebody took "
            "them off.",
        )
