"""ASGI middleware that holds four boundaries around embedded charts: origin, token, rows, audit.

Start with ``stack.py``: it shows the layers in their order, on one screen.
"""

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
