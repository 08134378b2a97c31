"""Every exception that this package raises.

A refused *request* is never an exception of this tree: it is a ``Deny``
(``core/decisions.py``). These are errors for developers and operators::

    GuardError
    ├── ConfigError          the operator's configuration is wrong (at start-up)
    ├── GuardMissing         a guarded endpoint runs without the guard in front
    ├── MintError            a token that the guard would refuse was asked for
    ├── RowSecurityError     a query may not run
    │   ├── NoEmbedContext   … because it runs on nobody's behalf
    │   └── QueryRefused     … because of what it says
    ├── AuditWriteError      an audit line could not be written
    ├── StoreUnavailable     the session and single-use store does not answer
    └── KeysUnavailable      a key set could not be fetched, or is none
"""

from __future__ import annotations

from collections.abc import Iterable


class GuardError(Exception):
    """Base of everything that this package raises."""


class ConfigError(GuardError):
    """The configuration is wrong: every mistake at once, each naming its variable.

    Never carries a secret's value; messages name what is wrong and the mend.

    Attributes:
        problems: One sentence per mistake, in a stable order.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"toucan_guard is not set up as it must be, {len(self.problems)} error(s):\n{lines}")


class GuardMissing(GuardError):
    """An endpoint asks for the embed, but no guard stands in front of it."""


class MintError(GuardError):
    """A token that the guard would refuse: every mistake at once.

    Attributes:
        problems: One sentence per mistake.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("; ".join(self.problems))


class RowSecurityError(GuardError):
    """A query may not run. The message never quotes a claim's value or a driver's text."""


class NoEmbedContext(RowSecurityError):
    """A query runs outside an embed's connection, or after its end."""


class QueryRefused(RowSecurityError):
    """A query says something that cannot be filtered, so it does not run."""


class AuditWriteError(GuardError):
    """An audit line could not be written whole."""


class StoreUnavailable(GuardError):
    """The store of sessions and spent tokens does not answer, or is full."""


class KeysUnavailable(GuardError):
    """A key set could not be fetched, or holds nothing that can be used. The message never quotes the answer."""
