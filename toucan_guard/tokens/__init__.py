"""Tokens: keys, verification with memory, minting."""

from __future__ import annotations

from toucan_guard.tokens.mint import TokenMinter

__all__ = ["TokenMinter"]
