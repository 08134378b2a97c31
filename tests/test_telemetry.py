"""FastAPI's own tracing: a bootstrap token is in no span, of an exchange or of a refusal, however we are mounted."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from toucan_guard import ToucanGuard
from toucan_guard.query import carries_bootstrap_token

fastapi = pytest.importorskip("fastapi")
pytest.importorskip("opentelemetry.sdk")
if "telemetry" not in inspect.signature(fastapi.FastAPI.__init__).parameters:
    pytest.skip("this FastAPI does not trace", allow_module_level=True)

FRAME = {
    "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe",
    "referer": "https://portal.example/",
}  # fmt: skip


class Spans:
    """What was recorded, and what a processor saw when a span began."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.begun: list[str] = []
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        begun = self.begun

        class AtStart(SpanProcessor):
            def on_start(self, span: Any, parent_context: Any = None) -> None:
                begun.append(repr(dict(span.attributes or {})))

        self.provider.add_span_processor(AtStart())
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def ended(self) -> str:
        return "".join(span.to_json() for span in self.exporter.get_finished_spans())


@pytest.fixture
def spans() -> Iterator[Spans]:
    recorded = Spans()
    yield recorded
    recorded.provider.shutdown()


class Served:
    """An app behind the guard, and the query strings that it was asked with."""

    def __init__(self, mounting: str, settings: Any, **telemetry: Any) -> None:
        self.queries: list[bytes] = []
        app = fastapi.FastAPI(telemetry=telemetry)

        @app.get("/chart")
        async def chart(request: fastapi.Request) -> str:
            self.queries.append(repr(dict(request.scope)).encode())
            return "a chart"

        if mounting == "add_middleware":
            app.add_middleware(ToucanGuard, settings=settings)
        self.client = TestClient(
            app if mounting == "add_middleware" else ToucanGuard(app, settings=settings),
            base_url="https://charts.example",
            follow_redirects=False,
        )

    def ask(self, query: str, **changes: str) -> int:
        self.client.cookies.clear()
        return int(self.client.get(f"/chart?{query}", headers={**FRAME, **changes}).status_code)


@pytest.mark.parametrize("mounting", ["add_middleware", "wrapped"])
def test_no_span_has_the_token(mounting: str, spans: Spans, make_settings: Any, make_token: Any) -> None:
    served = Served(mounting, make_settings(token_carriers=["session"]), tracer_provider=spans.provider)
    token = make_token(bootstrap=True)
    assert served.ask(f"month=1&embed_token={token}") == 303
    assert served.ask(f"month=2&embed_token={token}") == 401, "spent"
    assert served.ask(f"month=3&%65mbed%5Ftoken={token}") == 401, "in another spelling"
    assert served.ask(f"month=4&embed_token={token}&embed_token={token}") == 400, "repeated"
    assert served.ask(f"month=5&embed_token={token}", referer="https://evil.example/") == 403, "another page"
    assert served.ask(f"month=6&embed_token={token}x") == 401, "forged"
    assert token[:40] not in spans.ended
    assert served.queries == [], "and no app was asked"
    if mounting == "add_middleware":
        assert [f"month={number}" in spans.ended for number in range(1, 7)] == [True] * 6, "positive control"


def test_what_looks_at_a_span_when_it_begins_is_excluded(spans: Spans, make_settings: Any, make_token: Any) -> None:
    settings = make_settings(token_carriers=["session"])
    seeing = Served("add_middleware", settings, tracer_provider=spans.provider)
    assert seeing.ask(f"embed_token={make_token(bootstrap=True)}") == 303
    assert "embed_token" in "".join(spans.begun), "positive control: in front of the guard"
    spans.begun.clear()
    excluding = Served("add_middleware", settings, tracer_provider=spans.provider, exclude=carries_bootstrap_token)
    assert excluding.ask(f"embed_token={make_token(bootstrap=True)}") == 303
    assert excluding.ask(f"%65mbed_token={make_token(bootstrap=True)}", referer="https://evil.example/") == 403
    assert spans.begun == []
    excluding.ask("month=1")
    assert "month=1" in "".join(spans.begun), "other requests are traced"


@pytest.mark.parametrize(
    ("query", "carries"),
    [
        pytest.param(b"", False, id="no query"),
        pytest.param(b"embed=x", False, id="the handle of a session"),
        pytest.param(b"a=%zz", False, id="a broken encoding"),
        pytest.param(b"a=embed_token", False, id="a value of that name"),
        pytest.param(b"embed_token=t", True, id="a token"),
        pytest.param(b"a=1&embed_token", True, id="without a value"),
        pytest.param(b"%65mbed%5ftoken=t", True, id="percent-encoded"),
    ],
)
def test_which_requests_carry_a_token(query: bytes, carries: bool) -> None:
    assert carries_bootstrap_token({"query_string": query}) is carries
    assert carries_bootstrap_token({"type": "lifespan"}) is False
