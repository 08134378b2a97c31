"""Bootstrap tokens leave the query string before anybody else reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

import pytest

from toucan_guard.query import handle_values, take_bootstrap_tokens, with_handle


@pytest.mark.parametrize(
    ("query", "tokens", "left"),
    [
        pytest.param(b"", (), b"", id="no query"),
        pytest.param(b"a=b", (), b"a=b", id="another parameter"),
        pytest.param(b"embed=x", (), b"embed=x", id="the session's handle stays"),
        pytest.param(b"embed_token=t", ("t",), b"", id="the token alone"),
        pytest.param(b"a=1&embed_token=t&b=2", ("t",), b"a=1&b=2", id="between others, which stay byte by byte"),
        pytest.param(b"%65mbed_token=t", ("t",), b"", id="a percent-encoded letter"),
        pytest.param(b"embed%5ftoken=t", ("t",), b"", id="a percent-encoded underscore"),
        pytest.param(b"embed%5Ftoken=t", ("t",), b"", id="in upper case hex"),
        pytest.param(b"%65%6d%62%65%64%5f%74%6f%6b%65%6e=t", ("t",), b"", id="encoded in whole"),
        pytest.param(b"embed_token=t&embed_token=u", ("t", "u"), b"", id="repeated: both are taken"),
        pytest.param(b"embed_token=t&%65mbed_token=u", ("t", "u"), b"", id="repeated in another spelling"),
        pytest.param(b"embed_token", ("",), b"", id="without a value"),
        pytest.param(b"embed_token=", ("",), b"", id="with an empty value"),
        pytest.param(b"embed_token=a=b", ("a=b",), b"", id="a value with an equals sign"),
        pytest.param(b"embed_token=%41", ("A",), b"", id="an encoded value"),
        pytest.param(b"embed_token=\xff%ff", ("\xff\ufffd",), b"", id="bytes that are no text"),
        pytest.param(b"xembed_token=t&embed_tokens=u", (), b"xembed_token=t&embed_tokens=u", id="longer names stay"),
        pytest.param(b"EMBED_TOKEN=t", (), b"EMBED_TOKEN=t", id="names are case-sensitive, for the app as well"),
        pytest.param(b"embed%255Ftoken=t", (), b"embed%255Ftoken=t", id="encoded twice is another name"),
        pytest.param(b"a=%zz&%", (), b"a=%zz&%", id="broken encodings stay"),
        pytest.param(b"&&embed_token=t&&", ("t",), b"&&&", id="empty fields"),
    ],
)
def test_taking_bootstrap_tokens(query: bytes, tokens: tuple[str, ...], left: bytes) -> None:
    scope: dict[str, Any] = {"query_string": query}
    assert take_bootstrap_tokens(scope) == tokens
    assert scope == {"query_string": left}


@pytest.mark.parametrize(
    ("query", "handles"),
    [
        pytest.param(b"", [], id="no query"),
        pytest.param(b"a=b", [], id="none"),
        pytest.param(b"embed=x", ["x"], id="one"),
        pytest.param("embed=x", ["x"], id="one, in text"),
        pytest.param(b"%65mbed=x", ["x"], id="a percent-encoded name"),
        pytest.param(b"embed=x&embed=y", ["x", "y"], id="two"),
        pytest.param(b"embed=", [""], id="an empty one counts"),
        pytest.param(b"embed", [""], id="a bare one counts"),
        pytest.param(b"embedded=x&a=embed", [], id="other names and values"),
        pytest.param(b"embed=\xff", ["\xff"], id="latin-1"),
    ],
)
def test_handles(query: bytes | str, handles: list[str]) -> None:
    assert handle_values(query) == handles


@pytest.mark.parametrize(
    ("query", "location"),
    [
        pytest.param(b"", "embed=H", id="nothing else"),
        pytest.param(b"a=1&b=2", "a=1&b=2&embed=H", id="the app's parameters stay"),
        pytest.param(b"embed=old&a=1", "a=1&embed=H", id="an old handle goes"),
        pytest.param(b"%65mbed=old&emb%65d=older", "embed=H", id="in any spelling"),
        pytest.param(b"a=%C3%A9+%26", "a=%C3%A9+%26&embed=H", id="what is encoded stays as it is"),
        pytest.param(b"a=\xc3\xa9", "a=%C3%A9&embed=H", id="raw bytes are encoded"),
        pytest.param(b"a=\r\nset-cookie: x", "a=%0D%0Aset-cookie:%20x&embed=H", id="no header can be injected"),
        pytest.param(b"a=1#frag", "a=1%23frag&embed=H", id="a fragment does not swallow the handle"),
        pytest.param(b"a=<b>&&", "a=%3Cb%3E&embed=H", id="nor does markup survive"),
    ],
)
def test_the_clean_query(query: bytes, location: str) -> None:
    assert with_handle(query, "H") == location


@pytest.fixture
def recorded() -> Iterator[Any]:
    """A tracer, and what it recorded."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test"), exporter
    provider.shutdown()


def test_no_token_stays_in_the_current_span(recorded: Any) -> None:
    tracer, exporter = recorded
    with tracer.start_as_current_span(
        "GET /chart",
        attributes={
            "url.query": "embed_token=s3cret&a=1",
            "http.target": "/chart?embed_token=s3cret&a=1",
            "http.url": "https://charts.example/chart?embed_token=s3cret&a=1",
            "url.full": "https://charts.example/chart?embed_token=s3cret&a=1",
            "url.path": "/chart",
        },
    ):
        take_bootstrap_tokens({"query_string": b"embed_token=s3cret&a=1"})
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes) == {
        "url.query": "a=1",
        "http.target": "/chart?a=1",
        "http.url": "https://charts.example/chart?a=1",
        "url.full": "https://charts.example/chart?a=1",
        "url.path": "/chart",
    }


def test_a_query_of_nothing_but_the_token_leaves_no_question_mark(recorded: Any) -> None:
    tracer, exporter = recorded
    with tracer.start_as_current_span("GET", attributes={"http.target": "/?embed_token=s3cret", "http.url": "/"}):
        take_bootstrap_tokens({"query_string": b"embed_token=s3cret"})
    (span,) = exporter.get_finished_spans()
    assert dict(span.attributes) == {"url.query": "", "http.target": "/", "http.url": "/"}


def test_a_span_of_a_request_without_token_is_left_alone(recorded: Any) -> None:
    tracer, exporter = recorded
    with tracer.start_as_current_span("GET", attributes={"url.query": "a=1"}):
        take_bootstrap_tokens({"query_string": b"a=1&embed=x"})
    assert dict(exporter.get_finished_spans()[0].attributes) == {"url.query": "a=1"}


def test_without_a_recording_span_nothing_happens() -> None:
    scope = {"query_string": b"embed_token=s3cret"}
    assert take_bootstrap_tokens(scope) == ("s3cret",)


def test_without_opentelemetry_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "opentelemetry.trace", raising=False)
    assert take_bootstrap_tokens({"query_string": b"embed_token=s3cret"}) == ("s3cret",)
    assert "opentelemetry.trace" not in sys.modules


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(b"%" * 60_000, id="a name of nothing but percent signs"),
        pytest.param(b"embed_token=" + b"%" * 60_000, id="a token of nothing but percent signs"),
        pytest.param(b"embed=" + b"%" * 60_000, id="a handle of nothing but percent signs"),
        pytest.param(b"embed_token=%&" * 4_000, id="many tokens"),
        pytest.param(b"%65=&" * 13_000, id="many names that are too short"),
        pytest.param(b"page+no=1&" * 6_000 + b"%", id="many names without any"),
    ],
)
def test_what_can_be_no_token_and_no_handle_is_not_decoded(query: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def counting(text: str) -> str:
        decoded.append(text)
        return unquote_plus(text)

    monkeypatch.setattr("toucan_guard.query.unquote_plus", counting)
    handle_values(query)
    with_handle(query, "a" * 26)
    take_bootstrap_tokens({"query_string": query})
    assert sum(text.count("%") for text in decoded) <= 1
