"""What was found: told by its place, kept in part where there is very much, and no evidence in damaged files."""

from __future__ import annotations

import pytest

from toucan_guard.audit.verdict import Findings, Place


@pytest.mark.parametrize("order", ["damaged first", "damaged last"])
def test_very_much_that_a_damaged_file_says_hides_no_evidence_in_another(order: str) -> None:
    findings = Findings()
    places = [Place("damaged", number) for number in range(1, 10_003)]
    other = Place("other", 7)
    for place in [*places, other] if order == "damaged first" else [other, *places]:
        findings.add("altered", place, None, "This line is not what was written.")
    findings.excuse({"damaged"})
    assert (findings.tampered, findings.unproved) == (True, True)
    evidence = [finding for finding in findings.in_order() if finding.tampering]
    # What is left out is counted.
    assert len(evidence) == (order == "damaged last")
    assert len(findings.in_order()) + findings.more == 10_003
    excused = findings.in_order()[0]
    assert (excused.kind, excused.file, excused.number) == ("damaged", "damaged", 1)
    assert excused.sentence.startswith("This line is not what was written. The file is damaged")


def test_where_all_evidence_stands_in_damaged_files_there_is_none() -> None:
    findings = Findings()
    findings.add("altered", Place("damaged", 3), None, "Altered.")
    findings.excuse({"damaged"})
    assert (findings.tampered, findings.unproved) == (False, True)
    findings.add("dropped", None, None, "Somebody else holds a line.")
    findings.excuse({"damaged"})
    assert findings.tampered
