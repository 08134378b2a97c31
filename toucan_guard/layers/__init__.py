"""The layers: thin ASGI shells around the pure cores, each usable alone.

``stack.py`` says in which order they stand and what each is given.
"""

from toucan_guard.layers.admission import AdmissionMiddleware, ArrivalMiddleware
from toucan_guard.layers.audit_log import AuditLogMiddleware
from toucan_guard.layers.bootstrap import BootstrapExchangeMiddleware
from toucan_guard.layers.cors import CorsMiddleware
from toucan_guard.layers.embed_token import EmbedTokenMiddleware
from toucan_guard.layers.exempt import ExemptMiddleware
from toucan_guard.layers.frame_ancestors import FrameAncestorsMiddleware
from toucan_guard.layers.gate import GateMiddleware
from toucan_guard.layers.grant import GrantMiddleware
from toucan_guard.layers.origin import OriginMiddleware
from toucan_guard.layers.row_filter import RowFilterMiddleware
from toucan_guard.layers.row_level_security import RowLevelSecurityMiddleware
from toucan_guard.layers.tenancy import TenancyMiddleware

__all__ = [
    "AdmissionMiddleware",
    "ArrivalMiddleware",
    "AuditLogMiddleware",
    "BootstrapExchangeMiddleware",
    "CorsMiddleware",
    "EmbedTokenMiddleware",
    "ExemptMiddleware",
    "FrameAncestorsMiddleware",
    "GateMiddleware",
    "GrantMiddleware",
    "OriginMiddleware",
    "RowFilterMiddleware",
    "RowLevelSecurityMiddleware",
    "TenancyMiddleware",
]
