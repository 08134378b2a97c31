"""What ``toucan-guard audit verify`` says to people: what was found, what is proved, and what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from toucan_guard.audit.verdict import UNPROVED, ChainSummary, Finding, Verdict
from toucan_guard.cli.output import say

_MOST: Final = 100  # findings that are told, of evidence and of everything else


def tell(verdict: Verdict) -> None:
    """Say it: findings by their place, each chain, and at the end what is proved.

    Args:
        verdict: What was found.
    """
    for finding in _first(verdict.findings):
        _tell_finding(finding)
    evidence = sum(finding.tampering for finding in verdict.findings)
    more = verdict.more + sum(max(0, each - _MOST) for each in (evidence, len(verdict.findings) - evidence))
    if more:
        say(f"… and {more} more; --json lists them{', the first ten thousand' if verdict.more else ''}.")
    for chain in verdict.chains:
        say(_line_of(chain))
    checked = [chain for chain in verdict.chains if chain.checked]
    if verdict.tampered:
        say(
            "✗ This record is not as it was written: see what is marked with ✗. Keep these files as they are, and "
            "compare them with a copy that somebody else holds.",
            "red",
        )
    elif checked:
        open_questions = _not_proved(checked)
        if any(finding.kind == "unread" for finding in verdict.findings):
            open_questions.insert(0, "what stands in a file that cannot be read")
        but = ", but for what is marked as damaged" if any(each.kind == "damaged" for each in verdict.findings) else ""
        say(
            f"✓ {_all_of(checked)} {'is as it was' if _only_one(checked) else 'are as they were'} written{but}."
            + (f" Not proved: {'; '.join(open_questions)}." if open_questions else ""),
            "green",
        )
    unchecked = [chain for chain in verdict.chains if not chain.checked]
    for key in sorted({chain.key for chain in unchecked}, key=str):
        _tell_unchecked([chain for chain in unchecked if chain.key == key], key, with_key=verdict.with_key)


def _tell_unchecked(chains: Sequence[ChainSummary], key: str | None, *, with_key: bool) -> None:
    were = "was" if _only_one(chains) else "were"
    fit = "fits" if _only_one(chains) else "fit"
    why = f"{fit} no key that was given" if with_key else f"{were} made with a key, and none was given"
    named = f" ({'it names' if len(chains) == 1 else 'they name'} the key {key})" if key else ""
    what = "that key" if key else "the keys that were in use before" if with_key else "it"
    say(
        f"? {_all_of(chains)} {why}{named}: nothing is known of what is in there. Give {what} with --key-file; where "
        f"you have none {'of that name' if key else 'that fits'}, somebody has altered this, or made it up.",
        "yellow",
    )


def _first(findings: Iterable[Finding]) -> Iterable[Finding]:
    told = {True: 0, False: 0}
    for finding in findings:
        told[finding.tampering] += 1
        if told[finding.tampering] <= _MOST:
            yield finding


def _tell_finding(finding: Finding) -> None:
    mark, style = ("✗", "red") if finding.tampering else ("?", "yellow") if finding.kind in UNPROVED else ("·", "")
    place = f"{finding.file}:{finding.number}: " if finding.number else f"{finding.file}: " if finding.file else ""
    say(f"{mark} {place}{finding.kind.replace('_', ' ')}. {finding.sentence}", style)


def _not_proved(chains: Sequence[ChainSummary]) -> list[str]:
    """What could have been done to chains that are as they were written, as far as they go."""
    late = [chain for chain in chains if chain.first]
    unclosed = [chain for chain in chains if not chain.closed]
    plain = [chain for chain in chains if not chain.keyed]
    found = []
    if late:
        missing = sum(chain.first for chain in late)
        found.append(f"the first {_lines(missing)} of {_chains(late)}, which {_are(missing)} not here")
    if unclosed:
        found.append(f"that nothing was cut off behind the last line of {_chains(unclosed)}, not closed")
    if plain:
        found.append(
            f"that {_chains(plain)}, without a key, {'was' if len(plain) == 1 else 'were'} not made anew by somebody "
            "who could write the file"
        )
    return found


def _only_one(chains: Sequence[ChainSummary]) -> bool:
    return sum(chain.lines for chain in chains) == 1


def _all_of(chains: Sequence[ChainSummary]) -> str:
    return f"{_lines(sum(chain.lines for chain in chains))} of {_chains(chains)}"


def _lines(count: int) -> str:
    return "one line" if count == 1 else f"{count} lines"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _chains(chains: Sequence[ChainSummary]) -> str:
    return "one chain" if len(chains) == 1 else f"{len(chains)} chains"


def _line_of(chain: ChainSummary) -> str:
    since = f" since {chain.opened}" if chain.opened else ""
    process = f", process {chain.process}" if chain.process is not None else ""
    first = f", without the first {chain.first}" if chain.first else ""
    end = "closed" if chain.closed else "not closed"
    checked = "" if chain.checked else ", not checked"
    return (
        f"  {chain.anchor}  {_lines(chain.lines)}{first}{since}{process}, {'keyed, ' if chain.keyed else ''}{end}"
        f"{checked}"
    )
