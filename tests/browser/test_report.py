"""The page of ``audit report`` in a real Chromium, under the policy that it carries itself."""

from __future__ import annotations

import json
import os
import random
import re
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.audit.report.finish import finish
from toucan_guard.audit.report.gather import Gatherer
from toucan_guard.audit.report.page import page as page_of
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.core.audit_line import encode_line

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


def _letters_by_page(pdf: bytes) -> list[int]:
    """How many letters each page of a PDF of Chromium shows."""
    objects = {int(number): body for number, body in re.findall(rb"(\d+) 0 obj\n(.*?)\nendobj", pdf, re.DOTALL)}
    letters = []
    for _, body in sorted(objects.items()):
        contents = re.search(rb"/Contents (\d+) 0 R", body) if re.search(rb"/Type /Page\b", body) else None
        if contents is not None:
            stream = objects[int(contents[1])].split(b"stream\n", 1)[1].rsplit(b"\nendstream", 1)[0]
            glyphs = re.findall(rb"<([0-9A-Fa-f]+)>", zlib.decompress(stream))
            letters.append(sum(len(text) // 4 for text in glyphs))
    return letters


def test_no_page_on_paper_holds_the_footer_alone(page: Any, write: Any, traffic: Any) -> None:
    start = datetime(2026, 10, 1, tzinfo=UTC)
    chance = random.Random(3)
    months: list[list[bytes]] = [[], list(traffic.month(2_000))]
    for requests in range(1, 70, 7):
        events = [traffic._request(chance, start + timedelta(hours=7 * index), 3) for index in range(requests)]
        months.append([encode_line(event) for event in events])
    for lines in months:
        page.goto(write(lines))
        footer = page.locator("footer").inner_text()
        for paper in ({"prefer_css_page_size": True}, {"format": "A4", "scale": 0.8}):
            letters = _letters_by_page(page.pdf(**paper))
            assert len(letters) >= 2
            assert letters[-1] > len(footer) + len("Is this record genuine?"), (len(lines), letters)


@pytest.mark.parametrize("hours", [1, 3, 24, 500])
def test_columns_fill_the_axis_and_labels_do_not_touch(page: Any, write: Any, traffic: Any, hours: int) -> None:
    start, chance = datetime(2026, 10, 1, 8, tzinfo=UTC), random.Random(hours)
    moments = sorted(start + timedelta(hours=chance.uniform(0, hours)) for _ in range(300))
    lines = [encode_line(traffic._request(chance, moment, 3)) for moment in moments]
    for width, form in ((1100, "wide"), (390, "narrow")):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(write(lines))
        chart = page.locator(f"svg.traffic.{form}")
        axis = chart.locator("line.axis").bounding_box()
        columns = [column.bounding_box() for column in chart.locator("rect.hit").all()]
        assert columns[0]["x"] == pytest.approx(axis["x"], abs=1)
        assert columns[-1]["x"] + columns[-1]["width"] == pytest.approx(axis["x"] + axis["width"], abs=1)
        labels = [label.bounding_box() for label in chart.locator("text[text-anchor=middle]").all()]
        assert labels
        assert all(later["x"] - earlier["x"] - earlier["width"] > 4 for earlier, later in pairwise(labels))
        assert labels[0]["x"] >= 0
        assert labels[-1]["x"] + labels[-1]["width"] <= width


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
