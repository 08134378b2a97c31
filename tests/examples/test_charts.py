"""The drawings of the demo: well-formed, labelled, and closed to whatever stands in the data."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "flights"
HOSTILE = '"><script>alert(1)</script>&'


@pytest.fixture
def charts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEMO))
    return importlib.import_module("charts")


@pytest.fixture
def route_map(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(DEMO))
    return importlib.import_module("route_map")


def tags(drawing: str) -> list[str]:
    return [element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawing).iter()]


@pytest.mark.parametrize("kind", ["columns", "area", "bars"])
@pytest.mark.parametrize("width", [240, 640, 1600])
@pytest.mark.parametrize(
    "values",
    [
        pytest.param([3.0, 20.5, 7.0], id="several values"),
        pytest.param([5.0], id="a single value"),
        pytest.param([0.0, 0.0], id="nothing but zeros"),
        pytest.param([-4.0, 2.0], id="a value below zero"),
    ],
)
def test_a_chart_is_well_formed_and_labels_every_value(
    charts: ModuleType, kind: str, width: int, values: list[float]
) -> None:
    marks = [
        charts.Mark(HOSTILE, value, f"{value:.0f}", HOSTILE, at=at, more=HOSTILE) for at, value in enumerate(values)
    ]
    more = {"columns": {"unit": "minutes"}, "area": {"unit": "minutes", "name": str}, "bars": {}}[kind]

    drawing = getattr(charts, kind)(marks, width=width, summary=HOSTILE, **more)

    assert tags(drawing).count("title") == len(values)
    assert "script" not in tags(drawing)
    assert ElementTree.fromstring(drawing).get("aria-label") == HOSTILE


def test_the_map_shows_places_inside_the_country_only(route_map: ModuleType) -> None:
    new_york = route_map.Place("NYC", 40.7, -74.0)
    chicago = route_map.Place("ORD", 41.98, -87.9, 10, HOSTILE)
    paris = route_map.Place("CDG", 49.0, 2.5, 10, "Paris")

    drawing = route_map.draw(new_york, [chicago, paris], [new_york, chicago], width=600, summary="A map")

    assert tags(drawing).count("title") == 1
    assert ">ORD<" in drawing
    assert ">CDG<" not in drawing
