"""The verified result that the app sees: who looks at the chart, for whom, and what they may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from toucan_guard.core.grants import Grant
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.sealed import sealing


@dataclass(frozen=True, slots=True)
class Embed:
    """What the guard established about this connection; ``request.state.embed``.

    Attributes:
        subject: The host's own user id (RFC 7519 §4.1.2).
        tenant: The customer organisation, or None where the deployment does not require one.
        grants: Object-level permissions.
        rls: The row filter that queries of this connection obey, or None where row-level security is off.
        issuer: Who signed the token (RFC 7519 §4.1.1).
        token_id: The token's ``jti`` (RFC 7519 §4.1.7).
        expires_at: Seconds since the epoch at which token or embed session end.
        embedder: The origin of the page that frames or calls us, where the browser named it.
    """

    subject: str
    tenant: str | None
    grants: tuple[Grant, ...]
    rls: RowFilter | None = field(repr=False)
    issuer: str
    token_id: str
    expires_at: float
    embedder: str | None = None

    def with_rows(self, row_filter: RowFilter) -> Embed:
        """The same embed, with the rows that it may see."""
        return make_embed(
            self.subject,
            self.tenant,
            self.grants,
            row_filter,
            self.issuer,
            self.token_id,
            self.expires_at,
            self.embedder,
        )


# Two are made for each connection of a new token.
make_embed: Final = sealing(Embed)
