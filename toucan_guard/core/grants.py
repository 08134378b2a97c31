"""Object-level permissions: which objects a token opens, and what it may do with each.

A grant reaches exactly what it names. Types, ids and actions are compared as exact strings; the one wildcard is the
id ``"*"``, and it has to be written out, so that a mistake in the host's code cannot widen a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from toucan_guard.core.decisions import ALLOW, Decision, Deny, Reason
from toucan_guard.core.errors import MintError

ANY_ID: Final = "*"

# The usual one first: to ask whether anything else is one takes longer.
_MAPPINGS: Final = (dict, Mapping)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Grant:
    """Some actions on one object, or on every object of a type.

    Attributes:
        type: The kind of object, for example ``"dashboard"``.
        id: The object's id, or ``"*"`` for every object of the type.
        actions: What may be done with it, for example ``("view",)``. At least one.

    Raises:
        MintError: A part is empty, not text or has control characters, or a bare string stands where a
            collection of actions belongs.
    """

    type: str
    id: str
    actions: tuple[str, ...]

    def __post_init__(self) -> None:
        actions: object = self.actions
        if isinstance(actions, str | bytes) or not isinstance(actions, Iterable):
            raise MintError("the actions of a grant are a collection of strings, such as ('view',)")
        object.__setattr__(self, "actions", tuple(actions))
        problems = () if _is_usual(self.type, self.id, self.actions) else _problems(self.type, self.id, self.actions)
        if problems:
            raise MintError(problems)

    @classmethod
    def from_claim(cls, claim: object) -> Grant | None:
        """Read one member of a token's ``grants``; None where anything about it is unexpected: see ``read_grants``."""
        read = read_grants((claim,))
        return None if read is None else read[0]

    def to_claim(self) -> dict[str, object]:
        """The grant as a member of a token's ``grants``."""
        return {"type": self.type, "id": self.id, "actions": list(self.actions)}


def read_grants(claims: Iterable[object]) -> tuple[Grant, ...] | None:
    """Read the members of a token's ``grants``; None where anything about one is unexpected.

    An unknown key is refused and not skipped: a misspelt restriction must not become a wider permission.
    """
    grants = []
    try:
        for claim in claims:
            # Three keys are there, and these three: so there is no other.
            if not isinstance(claim, _MAPPINGS) or len(claim) != 3:
                return None
            actions = claim["actions"]
            if not isinstance(actions, list):
                return None
            grants.append(_shared(claim["type"], claim["id"], *actions))
    except (KeyError, MintError, TypeError):  # a part that is a list or an object has no hash
        return None
    return tuple(grants)


@lru_cache(maxsize=1024, typed=True)
def _shared(type_: str, id_: str, *actions: str) -> Grant:
    """The grants of most tokens are the same few, so they are checked once."""
    return Grant(type_, id_, actions)


def reaches(grants: Iterable[Grant], type: str, id: str, action: str) -> Decision:  # noqa: A002 - the claim's names
    """Whether one of the grants opens this object for this action.

    An id that is not text or is empty is reached by nothing, not even by ``"*"``: there is no such object.

    Never raises.
    """
    wanted: object = id  # typed as text, but path parameters may arrive as anything
    if isinstance(wanted, str) and wanted:
        for grant in grants:
            if grant.type == type and grant.id in (wanted, ANY_ID) and action in grant.actions:
                return ALLOW
    return Deny(Reason.GRANT_MISSING, "no grant of the token reaches this object with this action")


def _is_usual(type_: object, id_: object, actions: tuple[object, ...]) -> bool:
    """Whether nothing but printable text stands in a grant, as in nearly every one: then it needs no second look."""
    for part in (type_, id_, *actions):
        if not isinstance(part, str) or not part or not part.isprintable():
            return False
    return bool(actions) and type_ != ANY_ID and ANY_ID not in actions


def _problems(type_: object, id_: object, actions: tuple[object, ...]) -> list[str]:
    problems = [
        f"the {name} of a grant must be text that is not empty and has no control characters"
        for name, value in (("type", type_), ("id", id_), *(("action", action) for action in actions))
        if not isinstance(value, str) or not value or _CONTROL.search(value)
    ]
    if not actions:
        problems.append("a grant needs at least one action")
    if ANY_ID in (type_, *actions):
        problems.append("only the id of a grant may be '*'; name its type and its actions")
    return problems
