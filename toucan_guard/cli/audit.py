"""``toucan-guard audit``: what the record says, and whether it is as it was written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from toucan_guard.audit.schema import event_schema
from toucan_guard.audit.search import Search
from toucan_guard.audit.verdict import Verdict
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.cli.output import FINDING, WRONG_USE, complain, say, say_json, wrong_use
from toucan_guard.cli.record_files import RecordFiles, name_of
from toucan_guard.cli.verify_text import tell
from toucan_guard.core.audit_chain import lines_on
from toucan_guard.core.errors import ConfigError
from toucan_guard.settings_audit import audit_key

Files = Annotated[list[Path], typer.Argument(help="Audit files in any order; '-' is standard input, gzip is unpacked.")]

KeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--key-file",
        help="A key of the chains; again for each that was in use. TOUCAN_GUARD_AUDIT_CHAIN_KEY counts as well.",
    ),
]
Expected = Annotated[
    list[str] | None,
    typer.Option("--expect", help="CHAIN:NUMBER:DIGEST of a line that must be there, kept from an earlier run."),
]

audit = typer.Typer(
    name="audit",
    help="Read the record: whether it is as it was written, what it says, whom it is about.",
    no_args_is_help=True,
)


@audit.command("verify")
def verify(
    files: Files,
    key_file: KeyFiles = None,
    expect: Expected = None,
    mixed: Annotated[bool, typer.Option("--mixed", help="Other programs write into the same stream.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Find lines that were altered, dropped, inserted or reordered.

    Leaves with 1 for evidence of tampering only, and with 2 where there is none and something could not be checked."""
    verifier = chain_verifier(key_file, expect, mixed=mixed)
    record = RecordFiles(files)
    for name, number, line in record.lines():
        verifier.feed(line, file=name, number=number)
    for name, why in record.unread.items():
        verifier.cannot_read(name, why, damaged=name in record.damaged)
    for name in map(name_of, record.unique):
        if name not in verifier.files and name not in record.unread:
            verifier.remark(
                "empty",
                name,
                "There is no line in this file: it was rotated a moment ago, or somebody has emptied it.",
            )
    for path, first in record.again:
        verifier.remark("given_twice", name_of(path), f"This is the same file as {name_of(first)}, and is read once.")
    verdict = verifier.finish()
    if as_json:
        say_json(_as_json(verdict))
    else:
        tell(verdict)
    if verdict.tampered:
        raise typer.Exit(FINDING)
    if not verdict.lines:
        complain("Nothing is proved: there is no line of a chain.")
        raise typer.Exit(WRONG_USE)
    if verdict.unproved:
        complain("Not all of it is proved: see what is marked with ?.")
        raise typer.Exit(WRONG_USE)


@audit.command("who")
def who(  # noqa: PLR0917 - the parameters are the command's options
    files: Files,
    subject: Annotated[str | None, typer.Option("--subject", help="A token's sub.")] = None,
    token_id: Annotated[str | None, typer.Option("--token-id", help="A token's jti.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="An IP address.")] = None,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="The key of pseudonyms; TOUCAN_GUARD_AUDIT_HMAC_KEY otherwise.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they are.")] = False,  # noqa: FBT002
) -> None:
    """Find the lines about one person, token or address, by name and, with the key, by pseudonym."""
    asked = {"subject": subject, "token_id": token_id, "client": client}
    wanted = {name: value for name, value in asked.items() if value is not None}
    if not wanted:
        wrong_use("whose lines? Give --subject, --token-id or --client (several: all of them must fit).")
    try:
        search = Search(wanted, audit_key("audit_hmac_key", key_file))
    except ConfigError as error:
        wrong_use(*error.problems)
    found = 0
    record = RecordFiles(files)
    for name, number, line in _told_apart(record.lines()):
        event = search.matching(line, file=name)
        if event is None:
            continue
        found += 1
        if as_json:
            sys.stdout.write(line.decode("ascii", "backslashreplace").rstrip("\n") + "\n")
        else:
            told = [event.get(part) for part in ("time", "event", "outcome", "reason", "status", "method", "route")]
            say(f"{name}:{number}: " + " ".join(str(part) for part in told if part is not None))
    if not as_json:
        say(f"{found} lines." if found != 1 else "One line.")
    if search.copies:
        again = "One more is" if search.copies == 1 else f"{search.copies} more are"
        complain(f"{again} the same again in another file, byte for byte.", style="")
    if search.passed_over:
        complain("Completions that stand before their decisions are not among them: give the older files first.")
    if record.unread:
        complain("What stands in a file that cannot be read was not looked through.")
        raise typer.Exit(WRONG_USE)
    if not found and search.has_pseudonyms_without_key:
        complain("The record holds pseudonyms, which need the key: give --key-file.")
        raise typer.Exit(WRONG_USE)


@audit.command("schema")
def schema() -> None:
    """Print the JSON Schema of a line."""
    sys.stdout.write(event_schema())


def chain_verifier(key_files: KeyFiles, expect: Expected, *, mixed: bool) -> ChainVerifier:
    """Made with the keys that were given and that of the environment; leaves with 2 where one is wrong."""
    try:
        given = [audit_key("audit_chain_key", path) for path in (*(key_files or ()), None)]
        keys = [key for key in given if key is not None]
        return ChainVerifier(keys[0] if keys else None, earlier=keys[1:], mixed=mixed, expect=expect or ())
    except ConfigError as error:
        wrong_use(*error.problems)


def _told_apart(lines: Iterator[tuple[str, int, bytes]]) -> Iterator[tuple[str, int, bytes]]:
    return ((name, number, part) for name, number, line in lines for part in lines_on(line))


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "tampered": verdict.tampered,
        "unproved": verdict.unproved,
        "lines": verdict.lines,
        "copies": verdict.copies,
        "others": verdict.others,
        "findings": [{**asdict(finding), "tampering": finding.tampering} for finding in verdict.findings],
        "more": verdict.more,
        "chains": [{**asdict(chain), "anchor": chain.anchor} for chain in verdict.chains],
    }
