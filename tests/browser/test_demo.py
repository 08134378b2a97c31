"""The demo in a real Chromium: what only a browser can show.

The header fields that the guard sends are judged by the program they are meant for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def truth(demo: Any) -> dict[tuple[str, str], int]:
    """Flights by airline and airport, counted in the raw data by sqlite3 alone."""
    import truth as raw  # type: ignore[import-not-found]

    counted: dict[tuple[str, str], int] = raw.count_in_raw_data()
    return counted


def _of_airline(truth: dict[tuple[str, str], int], carrier: str) -> int:
    return sum(number for (airline, _), number in truth.items() if airline == carrier)


def _flights(frame: Any) -> int:
    """The first number of a dashboard: its flights."""
    tile = frame.locator(".tile").filter(has_text="Flights").locator(".number").first
    tile.wait_for()
    return int(tile.inner_text().replace(",", ""))


def _frames(page: Any) -> tuple[Any, Any]:
    return page.frame_locator("#network iframe"), page.frame_locator("#station iframe")


def _until(page: Any, holds: Callable[[], bool]) -> None:
    """What no locator can wait for, however slow the machine is."""
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        page.wait_for_timeout(50)


def _refused_by_the_browser(frames: list[Any]) -> bool:
    return all(frame.url.startswith("chrome-error://") for frame in frames)


def _audit(demo: Any, **wanted: Any) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in demo.audit.read_text().splitlines()]
    return [line for line in lines if all(line.get(name) == value for name, value in wanted.items())]


@pytest.mark.parametrize(("airline", "carrier"), [("united", "UA"), ("delta", "DL")])
def test_a_portal_sees_its_airline_in_its_frames_and_nobody_else(
    page: Any, demo: Any, truth: dict[tuple[str, str], int], airline: str, carrier: str
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(getattr(demo, airline).origin)
    network, station = _frames(page)
    assert _flights(network) == _of_airline(truth, carrier)
    assert _flights(station) == truth[carrier, "JFK"]
    # One refusal is part of the page: the station manager asks for a dashboard that is not theirs.
    assert all("403" in complaint for complaint in complaints), complaints


def test_two_identities_in_one_page_do_not_mix_after_reloads(
    page: Any, demo: Any, truth: dict[tuple[str, str], int]
) -> None:
    for _ in range(3):
        page.goto(demo.united.origin)
        network, station = _frames(page)
        assert _flights(network) == _of_airline(truth, "UA")
        assert _flights(station) == truth["UA", "JFK"]
    # Every view left a pair of cookies behind; each frame still finds its own by the handle in its address.
    cookies = [cookie for cookie in page.context.cookies(demo.viz) if cookie["name"].startswith("__Host-embed-")]
    assert len(cookies) == 6


def test_a_frame_that_reloads_itself_stays_the_same_person(
    page: Any, demo: Any, truth: dict[tuple[str, str], int]
) -> None:
    page.goto(demo.united.origin)
    _, station = _frames(page)
    assert _flights(station) == truth["UA", "JFK"]
    frame = page.locator("#station iframe").element_handle().content_frame()
    assert "embed_token" not in frame.url
    assert re.search(r"[?&]embed=[a-z2-7]{26}$", frame.url)
    frame.evaluate("window.before = true; location.reload()")
    frame.wait_for_function("window.before === undefined")
    assert _flights(page.frame_locator("#station iframe")) == truth["UA", "JFK"]


def test_the_cookie_belongs_to_this_frame_on_this_site_alone(page: Any, demo: Any) -> None:
    page.goto(demo.united.origin)
    _flights(_frames(page)[0])
    cookies = [cookie for cookie in page.context.cookies(demo.viz) if cookie["name"].startswith("__Host-embed-")]
    assert cookies
    for cookie in cookies:
        assert cookie["httpOnly"]
        assert cookie["secure"]
        assert cookie["sameSite"] == "None"
        assert cookie.get("partitionKey") == "http://united.localhost"
    frame = page.locator("#network iframe").element_handle().content_frame()
    assert frame.evaluate("document.cookie") == ""


def test_a_stranger_gets_the_browsers_refusal(page: Any, demo: Any) -> None:
    page.goto(demo.stranger)
    fetched = page.locator("output#fetch.refused")
    fetched.wait_for()
    assert "Failed to fetch" in fetched.inner_text()
    page.locator("output#socket.refused").wait_for()
    frames = [element.content_frame() for element in page.locator("iframe").element_handles()]
    assert frames
    _until(page, lambda: _refused_by_the_browser(frames))
    assert _audit(demo, outcome="deny", reason="embedder_not_allowed", embedder=demo.stranger)
    assert _audit(demo, outcome="deny", reason="embedder_unknown")
    assert _audit(demo, outcome="deny", reason="origin_not_allowed", origin=demo.stranger, kind="websocket")


def test_a_copied_address_opens_nothing_in_another_browser(browser: Any, page: Any, demo: Any) -> None:
    bootstrap = demo.united.frame_address("network", "delays")
    html = f'<iframe src="{bootstrap}" referrerpolicy="strict-origin"></iframe>'
    page.goto(demo.united.origin)
    page.evaluate("html => { document.body.innerHTML = html }", html)
    assert _flights(page.frame_locator("iframe")) > 0

    other = browser.new_context()
    try:
        thief = other.new_page()
        thief.goto(demo.united.origin)
        thief.evaluate("html => { document.body.innerHTML = html }", html)
        heading = thief.frame_locator("iframe").locator("h1")
        heading.wait_for()
        assert heading.inner_text() == "The pass for this chart was used already"
        assert "token_spent" in thief.frame_locator("iframe").locator("body").inner_text()
    finally:
        other.close()


def test_the_session_address_opens_nothing_in_another_browser(browser: Any, page: Any, demo: Any) -> None:
    page.goto(demo.united.origin)
    _flights(_frames(page)[0])
    address = page.locator("#network iframe").element_handle().content_frame().url
    other = browser.new_context()
    try:
        thief = other.new_page()
        thief.goto(demo.united.origin)
        thief.evaluate(
            "src => { document.body.innerHTML = ''; const f = document.createElement('iframe'); f.src = src;"
            " document.body.append(f) }",
            address,
        )
        heading = thief.frame_locator("iframe").locator("h1")
        heading.wait_for()
        assert heading.inner_text() == "The pass for this chart has run out"
    finally:
        other.close()


def test_a_hostile_frame_inside_an_allowed_page_plants_nothing(browser: Any, demo: Any) -> None:
    """A careless portal frames a stranger's page, and that page frames dashboards with passes that it has copied."""
    # The portal's own policy would keep the stranger out. Without it (frame-ancestors is enforced all the same):
    careless = browser.new_context(bypass_csp=True)
    try:
        page = careless.new_page()
        page.goto(demo.united.origin)
        _flights(_frames(page)[0])
        planted_before = _sessions(careless, demo)
        page.evaluate(
            "src => { document.body.innerHTML = ''; const f = document.createElement('iframe'); f.src = src;"
            " document.body.append(f) }",
            demo.stranger,
        )
        page.frame_locator("iframe").locator("h1").wait_for(state="attached")

        def inner() -> list[Any]:
            return [frame for frame in page.frames if frame.parent_frame and frame.parent_frame.parent_frame]

        _until(page, lambda: len(inner()) == 2 and _refused_by_the_browser(inner()))
        assert _sessions(careless, demo) == planted_before
        assert not _audit(demo, outcome="allow", embedder=demo.stranger)
    finally:
        careless.close()


def _sessions(context: Any, demo: Any) -> set[str]:
    return {cookie["name"] for cookie in context.cookies(demo.viz) if cookie["name"].startswith("__Host-embed-")}


def test_the_web_component_shows_a_refusal_in_plain_words(page: Any, demo: Any) -> None:
    page.goto(demo.united.origin)
    refusal = page.locator("#protected toucan-chart .refusal")
    refusal.wait_for()
    assert "This pass does not open this chart" in refusal.inner_text()
    assert "grant_missing" in refusal.inner_text()


def test_the_live_feed_plays_in_the_frame(page: Any, demo: Any) -> None:
    page.goto(demo.united.origin)
    network, _ = _frames(page)
    network.locator("#live .ticks li").first.wait_for()
    assert "2013" in network.locator("#live-day").inner_text()
    network.locator("#live-pause").press("Shift")  # focus as of a keyboard
    assert network.locator("#live-pause").evaluate("button => getComputedStyle(button).outlineStyle") == "solid"
    _until(page, lambda: bool(_audit(demo, outcome="allow", kind="websocket", tenant="UA")))


def test_frames_keep_their_place_while_they_load(page: Any, demo: Any) -> None:
    # A link to what stands below them: frames out of sight draw nothing, so whatever they say last stays.
    page.goto(f"{demo.united.origin}/#protected")
    page.locator("#protected toucan-chart .refusal").wait_for()
    page.wait_for_timeout(1000)
    heights = page.evaluate("[...document.querySelectorAll('iframe')].map(frame => frame.offsetHeight)")
    assert min(heights) > 1000, heights
