"""Metrics: what an SDK would export of decisions, with few values for every attribute."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

import pytest

from toucan_guard.audit.metrics import Metrics
from toucan_guard.core.errors import ConfigError

sdk = pytest.importorskip("opentelemetry.sdk.metrics")


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What a reader of this test's own sees."""
    import opentelemetry.metrics
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[reader])
    monkeypatch.setattr(opentelemetry.metrics, "get_meter", provider.get_meter)

    def read() -> dict[str, Any]:
        data = reader.get_metrics_data()
        return {
            metric.name: {tuple(sorted(point.attributes.items())): point for point in metric.data.data_points}
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    yield read
    provider.shutdown()


def event(outcome: str = "allow", reason: str | None = None, steps: Any = (), **more: Any) -> dict[str, Any]:
    told = [{"layer": layer, "decision": decision} for layer, decision in steps]
    return {
        "event": "decision", "outcome": outcome, "reason": reason, "steps": told, "kind": "http", "first_byte_ms": 4.0,
        **more,
    }  # fmt: skip


def test_decisions_are_counted_by_outcome_layer_and_reason(exported: Any) -> None:
    metrics = Metrics()
    metrics.count(event(steps=[("origin", "allow")]))
    metrics.count(event(steps=[("origin", "allow")]))
    metrics.count(event("deny", "grant_missing", [("origin", "allow"), ("grant", "deny:grant_missing")]))
    metrics.count(event("would_deny", "region_mismatch", [("tenancy", "would_deny:region_mismatch")]))
    metrics.count(event("error", "app_failed"))
    metrics.count({"event": "completion", "outcome": "error"})
    counted = {key: point.value for key, point in exported()["toucan_guard.decisions"].items()}
    assert counted == {
        (("kind", "http"), ("layer", "none"), ("outcome", "allow"), ("reason", "none")): 2,
        (("kind", "http"), ("layer", "grant"), ("outcome", "deny"), ("reason", "grant_missing")): 1,
        (("kind", "http"), ("layer", "tenancy"), ("outcome", "would_deny"), ("reason", "region_mismatch")): 1,
        (("kind", "http"), ("layer", "app"), ("outcome", "error"), ("reason", "app_failed")): 1,
    }
    times = exported()["toucan_guard.first_byte.duration"]
    assert sum(point.count for point in times.values()) == 5
    assert {point.max for point in times.values()} == {0.004}


def test_dropped_events_are_counted(exported: Any) -> None:
    metrics = Metrics()
    metrics.count_dropped()
    metrics.count_dropped()
    assert [point.value for point in exported()["toucan_guard.audit.dropped"].values()] == [2]


def test_reasons_of_the_hosts_own_are_bounded(exported: Any) -> None:
    metrics = Metrics()
    for number in range(200):
        for _ in range(2):
            metrics.count(event("deny", f"x_{number}"))
    points = exported()["toucan_guard.decisions"]
    assert len(points) == 51
    assert sum(point.value for point in points.values()) == 400


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_guard_counts_where_it_is_told_to(
    exported: Any, http: Any, make_settings: Any, make_token: Any
) -> None:
    from toucan_guard import ToucanGuard

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    silent = ToucanGuard(app, settings=make_settings())
    await http(silent)
    guard = ToucanGuard(app, settings=make_settings(metrics=True))
    await http(guard)
    await http(guard, headers={"authorization": f"Bearer {make_token()}"})
    reasons = {dict(key)["reason"] for key in exported()["toucan_guard.decisions"]}
    assert reasons == {"token_missing", "none"}


def test_without_the_api_the_start_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return genuine(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"TOUCAN_GUARD_METRICS.*toucan-guard\[otel\]"):
        Metrics()
