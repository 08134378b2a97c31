"""ASGI middleware that holds four boundaries around embedded charts: origin, token, rows, audit.

Start with ``stack.py``: it shows the layers in their order, on one screen.

A name is imported from its room when it is first asked for (PEP 562): whoever uses one pure part
does not pay for cryptography and settings.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toucan_guard.asgi import Refused
    from toucan_guard.core.decisions import Allow, Deny, Reason
    from toucan_guard.core.embed import Embed
    from toucan_guard.core.errors import ConfigError, GuardError
    from toucan_guard.core.grants import Grant
    from toucan_guard.layers.gate import GateMiddleware
    from toucan_guard.layers.origin import OriginMiddleware
    from toucan_guard.settings import GuardSettings
    from toucan_guard.stack import ToucanGuard

__all__ = [
    "Allow",
    "ConfigError",
    "Deny",
    "Embed",
    "GateMiddleware",
    "Grant",
    "GuardError",
    "GuardSettings",
    "OriginMiddleware",
    "Reason",
    "Refused",
    "ToucanGuard",
]

__version__ = "0.1.0"

_ROOMS = {
    "Allow": "core.decisions",
    "ConfigError": "core.errors",
    "Deny": "core.decisions",
    "Embed": "core.embed",
    "GateMiddleware": "layers.gate",
    "Grant": "core.grants",
    "GuardError": "core.errors",
    "GuardSettings": "settings",
    "OriginMiddleware": "layers.origin",
    "Reason": "core.decisions",
    "Refused": "asgi",
    "ToucanGuard": "stack",
}


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
