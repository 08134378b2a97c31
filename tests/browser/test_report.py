"""The page of ``audit report`` in a real Chromium, under the policy that it carries itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.page import page as page_of
from toucan_guard.audit.verify import ChainVerifier

_CORPORA = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"
ATTACKS = [
    "<script>document.title='owned'</script>",
    "</style><script>document.title='owned'</script>",
    "</title><img src=x onerror=\"document.title='owned'\">",
    "</svg><svg onload=document.title='owned'>",
    "'\"><a href=javascript:document.title='owned'>click</a>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example><link rel=stylesheet href=x>",
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Iterable[bytes]], str]:
    """Make a page of a record's lines; its address."""

    def made(lines: Iterable[bytes]) -> str:
        gatherer = Gatherer(since=None, until="2026-11-03T00:00:00Z", files=["october.jsonl"])
        verifier = ChainVerifier(mixed=True)
        for number, line in enumerate(lines, 1):
            gatherer.feed(line, file="october.jsonl", number=number)
            verifier.feed(line, file="october.jsonl", number=number)
        path = tmp_path / "report.html"
        now = datetime(2026, 11, 2, 9, tzinfo=UTC)
        path.write_text(page_of(finish(gatherer, verifier.finish(), made=now)), encoding="utf-8")
        return path.as_uri()

    return made


@pytest.fixture
def complaints(page: Any) -> list[str]:
    """What the browser says against the page, and whatever it asks for besides the page itself."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: said.append(request.url) if not request.url.endswith("/report.html") else None)
    return said


def test_the_page_is_drawn_under_its_own_policy(page: Any, complaints: list[str], write: Any, traffic: Any) -> None:
    page.goto(write(traffic.month(4_000)))
    assert " requests came in" in page.locator("h1").inner_text()
    # The style sheet was let in: without it, both forms of a chart would show.
    assert page.locator("svg.traffic.wide").is_visible()
    assert page.locator("svg.traffic.narrow").is_hidden()
    bars = page.locator("svg.traffic.wide rect.column")
    assert bars.count() == 31
    assert all(bars.nth(index).bounding_box()["height"] > 0 for index in range(31))
    page.locator("nav a", has_text="Keys").click()
    assert complaints == []


def test_it_fits_a_phone(page: Any, write: Any, traffic: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    page.goto(write(traffic.month(4_000)))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("svg.traffic.narrow").is_visible()
    assert page.locator("svg.traffic.wide").is_hidden()


def test_it_is_dark_where_the_reader_wants_it_dark(page: Any, write: Any, traffic: Any) -> None:
    page.goto(write(traffic.month(500)))
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 600 > 150 > sum(map(int, re.findall(r"\d+", dark)[:3]))
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate(paper) == light, "paper is white"


def test_it_prints_on_a4_without_a_chart_that_is_cut(page: Any, write: Any, traffic: Any) -> None:
    page.goto(write(traffic.month(4_000)))
    page.emulate_media(media="print")
    for figure in page.locator("figure").all():
        assert figure.evaluate("figure => getComputedStyle(figure).breakInside") == "avoid"
    # As wide as A4 between its margins, at 96 pixels to the inch: nothing sticks out, no chart is higher than a page.
    page.set_viewport_size({"width": 688, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert all(figure.bounding_box()["height"] < 700 for figure in page.locator("figure").all())
    printed = page.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
    boxes = set(re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", printed))
    assert {(round(float(width)), round(float(height))) for width, height in boxes} == {(595, 842)}


@pytest.mark.parametrize("corpus", ["our own", "blns.json"])
def test_nothing_in_the_record_runs_or_is_fetched(
    page: Any, complaints: list[str], write: Any, traffic: Any, corpus: str
) -> None:
    strings = ATTACKS
    if corpus != "our own":
        path = Path(os.environ.get("TOUCAN_CORPORA", _CORPORA)) / corpus
        if not path.is_file():
            pytest.skip(f"the corpus {corpus} is not in {path.parent} (set TOUCAN_CORPORA)")
        strings = json.loads(path.read_text(encoding="utf-8"))
    page.set_viewport_size({"width": 390, "height": 844})
    for start in range(0, len(strings), 40):
        page.goto(write(traffic.naughty(strings[start : start + 40])))
        assert page.title().startswith("Embed security report, ")
        assert page.evaluate("document.querySelectorAll('script,img,iframe,link,base,object,embed,form').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "no name makes the page wider"
    assert complaints == []
