"""``text("SELECT …")`` on a guarded engine: the same rewriting as ``filter_sql``, with SQLAlchemy's parameters.

Only a statement that is text from end to end is read; a piece of text inside another statement is refused,
because nobody can say what it means there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlalchemy import bindparam
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import NullType

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Leaf
from toucan_guard.rls.sql_dialects import DIALECTS
from toucan_guard.rls.sql_parameters import Parameter
from toucan_guard.rls.sql_rewriter import Rewritten, rewrite
from toucan_guard.rls.sqlalchemy_rules import Asked

# A colon that begins no parameter, as text() has it.
_ESCAPED: Final = re.compile(r"\\(:\w*)(?![:\w])")
_DIALECTS: Final[Mapping[str, str]] = {"sqlite": "sqlite", "postgresql": "postgres"}


def rewrite_text(sql: str, policy: RlsPolicy, dialect: str) -> Rewritten:
    """Put the policy's filter into a statement.

    Raises:
        QueryRefused: It is not one SELECT that is understood whole.
    """
    known = DIALECTS[_DIALECTS[dialect]]
    sql = _ESCAPED.sub(r"\1", sql)
    rewritten = rewrite(sql, policy, known)
    if known.comparing == "columns" and rewritten.names and not rewritten.fenced:
        # What the host will send is not known while the statement is compiled.
        rewritten = rewrite(sql, policy, known, fenced=True)
    return rewritten


def text_parameters(rewritten: Rewritten, current: Callable[[], RowFilter]) -> Mapping[str, BindParameter[Any]]:
    """The filter's parameters, each of which asks the current embed when the statement runs."""
    return {
        known.name: bindparam(
            known.name,
            callable_=Asked(known.leaf, _reader(known), None, current),
            type_=NullType(),
            unique=True,
            expanding=known.many,
        )
        for known in rewritten.parameters
    }


def write_text(rewritten: Rewritten, text: Callable[[str], str], parameter: Callable[[str], str]) -> str:
    """The statement, with each piece of text and each parameter as SQLAlchemy writes it."""
    pieces = list(rewritten.pieces)
    listed = {known.name for known in rewritten.parameters if known.many}
    for index in range(1, len(pieces), 2):
        if pieces[index] in listed:
            # SQLAlchemy puts a list into brackets of its own.
            pieces[index - 1] = pieces[index - 1].removesuffix("(")
            pieces[index + 1] = pieces[index + 1].removeprefix(")")
    return "".join(parameter(piece) if index % 2 else text(piece) for index, piece in enumerate(pieces))


def _reader(known: Parameter) -> Callable[[Leaf, object], object]:
    return lambda leaf, value: known.value({known.attribute: value})
