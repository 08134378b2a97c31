"""Plays the part of a browser, and of programs that pretend to be one: real HTTP to the running servers.

Every header that a browser would send is written out, because the guard's decisions
hang on them, and because a scene must be able to lie.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

_LOOPBACK = "127.0.0.1"  # not every system resolves names under .localhost


@dataclass(frozen=True)
class Answer:
    """What a server said. For a WebSocket that opened: status 101, and its first message as the body."""

    request: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def json(self) -> dict[str, Any]:
        """The body as JSON; empty where it is something else."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def reason(self) -> str | None:
        """Why the guard refused: from problem details, or from the page for people."""
        if "reason" in self.json:
            return str(self.json["reason"])
        found = re.search(r"<dt>Reason</dt><dd>(\w+)</dd>", self.body)
        return found[1] if found else None

    @property
    def title(self) -> str:
        """The refusal in everyday words."""
        found = re.search(r"<h1>(.*?)</h1>", self.body)
        return str(self.json.get("title") or (unescape(found[1]) if found else ""))


class Visitor:
    """One browser with its cookies; `sent` holds the host of every request it made."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self._client = httpx2.Client(trust_env=False, timeout=30)
        self._cookies: dict[str, dict[str, str]] = {}

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """One request, without following redirects; cookies of the host go along."""
        parts = urlsplit(url)
        self.sent.append(parts.netloc)
        # The Host header must follow the name; the connection goes to the loopback address.
        address = parts._replace(netloc=f"{_LOOPBACK}:{parts.port}").geturl()
        sent = {"host": parts.netloc, **({"cookie": cookies} if (cookies := self._cookie_header(parts.netloc)) else {})}
        response = self._client.request(method, address, headers={**sent, **(headers or {})})
        for cookie in response.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self._cookies.setdefault(parts.netloc, {})[name] = value
        return Answer(f"{method} {parts.path}", response.status_code, dict(response.headers), response.text)

    def navigate(self, url: str, *, embedder: str | None, nested: bool = True) -> Answer:
        """A frame's (or with nested=False a tab's) navigation, as a browser sends it from a page of `embedder`."""
        headers = {
            "accept": "text/html,application/xhtml+xml,*/*;q=0.8",
            "sec-fetch-site": "cross-site" if embedder else "none",
            "sec-fetch-mode": "navigate",
            "sec-fetch-dest": "iframe" if nested else "document",
        }
        if embedder:
            headers["referer"] = f"{embedder}/"
        return self.request("GET", url, headers)

    def open_frame(self, url: str, *, embedder: str) -> tuple[Answer, str]:
        """Navigate a frame and follow the redirect to its clean address. Gives the page and that address."""
        answer = self.navigate(url, embedder=embedder)
        if answer.status == 303:
            url = urljoin(url, answer.headers["location"])
            answer = self.navigate(url, embedder=embedder)
        return answer, url

    def fetch_in_frame(self, url: str, *, page: str) -> Answer:
        """A fetch by the script of a page that is open in a frame, to its own server."""
        return self.request(
            "GET",
            url,
            {
                "accept": "application/json",
                "referer": page,
                "sec-fetch-site": "same-origin",
                "sec-fetch-mode": "cors",
                "sec-fetch-dest": "empty",
            },
        )

    def fetch_from(self, origin: str | None, url: str, *, token: str = "", method: str = "GET", **more: str) -> Answer:
        """A fetch by the script of a page of `origin`; without one, a program that is no browser."""
        headers = {"accept": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
        if origin:
            headers |= {
                "origin": origin,
                "referer": f"{origin}/",
                "sec-fetch-site": "cross-site",
                "sec-fetch-mode": "cors",
                "sec-fetch-dest": "empty",
            }
        return self.request(method, url, {**headers, **{name.replace("_", "-"): value for name, value in more.items()}})

    def listen(self, url: str, *, origin: str, token: str = "") -> Answer:
        """Open a WebSocket, take its first message and close it."""
        parts = urlsplit(url)
        self.sent.append(parts.netloc)
        cookies = self._cookie_header(parts.netloc)
        try:
            with (
                socket.create_connection((_LOOPBACK, parts.port or 80)) as sock,
                connect(
                    parts._replace(scheme="ws").geturl(),
                    sock=sock,
                    origin=Origin(origin),
                    additional_headers={"cookie": cookies} if cookies else {},
                    subprotocols=[Subprotocol("embed"), Subprotocol(f"embed.token.{token}")] if token else None,
                ) as feed,
            ):
                return Answer(f"WS {parts.path}", 101, body=str(feed.recv(timeout=20)))
        except InvalidStatus as refused:
            answer = refused.response
            return Answer(
                f"WS {parts.path}", answer.status_code, dict(answer.headers.raw_items()), answer.body.decode()
            )

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _cookie_header(self, host: str) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.get(host, {}).items())
