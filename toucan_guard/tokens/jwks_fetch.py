"""Fetching a key set over HTTP, with httpx2 (extra ``[jwks]``): one GET, and nothing that the answer could ask for.

No redirects, no proxies and no credentials out of the environment, no cookies, no compression. How long all of it may
take is up to the caller, who cancels.
"""

from __future__ import annotations

from typing import Any, Final

import anyio

from toucan_guard.core.errors import ConfigError, KeysUnavailable
from toucan_guard.tokens.jwks_text import MAX_SET_BYTES

_ASKED: Final = {
    "accept": "application/jwk-set+json, application/json",
    "accept-encoding": "identity",
    "user-agent": "toucan-guard",
}
_MISSING: Final = "TOUCAN_GUARD_JWKS_URL needs httpx2: pip install 'toucan-guard[jwks]'"


def require_http() -> Any:
    """The HTTP library.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    import httpx2

    return httpx2


class HttpFetch:
    """Fetches the body of a key set. A connection is made for each fetch and closed with it: minutes lie between them.

    Args:
        timeout_seconds: For each step (connect, each read); the caller bounds the whole.

    Raises:
        ConfigError: httpx2 is not installed.
    """

    def __init__(self, *, timeout_seconds: float = 5.0) -> None:
        try:
            self._http = require_http()
        except ModuleNotFoundError:
            raise ConfigError(_MISSING) from None
        self._timeout_seconds = timeout_seconds
        # Reading the certificates of all authorities takes many milliseconds, so it is done once, at start-up.
        self._tls = self._http.create_ssl_context()

    async def __call__(self, url: str) -> bytes:
        """The body of a 200 answer, at most ``MAX_SET_BYTES``.

        Raises:
            KeysUnavailable: Anything else; the message quotes nothing of the answer.
        """
        http = self._http
        try:
            async with (
                http.AsyncClient(
                    verify=self._tls, trust_env=False, follow_redirects=False, timeout=self._timeout_seconds
                ) as client,
                client.stream("GET", url, headers=_ASKED) as answer,
            ):
                if answer.status_code != 200:
                    raise KeysUnavailable(f"the endpoint answers {answer.status_code}")
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise KeysUnavailable("the endpoint compresses its answer, which nobody asked it to")
                body = bytearray()
                # Too much is ended by cancelling the next read: leaving the loop would leave the library's own
                # generators open, and trio complains of them.
                with anyio.CancelScope() as enough:
                    async for chunk in answer.aiter_raw():
                        body += chunk
                        if len(body) > MAX_SET_BYTES:
                            enough.cancel()
                if enough.cancel_called:
                    raise KeysUnavailable(f"the answer has more than {MAX_SET_BYTES} bytes")
                return bytes(body)
        except (http.HTTPError, http.InvalidURL, http.StreamError) as error:
            # A name such as ConnectTimeout says enough; the text may quote the answer.
            raise KeysUnavailable(f"the endpoint cannot be read ({type(error).__name__})") from None
