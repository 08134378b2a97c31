"""Reading a statement: from text to one tree, without giving the parser more than it can take.

The parser tries one reading after another, and inside brackets again for each pair of them: a line of
text could keep it busy for hours. The tokens are looked at first, which costs the same for every text, and how
far it goes back is counted.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlglot import Dialect, Token, TokenType, exp
from sqlglot.parser import Parser

from toucan_guard.rls.sql_nodes import refuse
from toucan_guard.rls.sql_written import SEAL

MAX_CHARACTERS: Final = 50_000
MAX_TOKENS: Final = 5_000
_MAX_BRACKETS: Final = 60
# Brackets behind a word that may be a type, such as DATE, which the parser then reads twice.
_MAX_TYPES: Final = 4
# The parser reads these in several ways too, and the first of many behind one another as often as there are more.
_MAX_LISTS: Final = 100
_MAX_LISTS_IN_LISTS: Final = 2
# Tokens that the parser may read again, some and for each token some more. A usual statement needs fewer than it has.
_MAX_AGAIN: Final = 2_000
_MAX_AGAIN_EACH: Final = 20
_BEGINNINGS: Final = frozenset({TokenType.SELECT, TokenType.WITH, TokenType.VALUES, TokenType.FROM, TokenType.L_PAREN})
_ARROWS: Final = frozenset({TokenType.ARROW, TokenType.DARROW})
_VALUES_IN_BRACKETS: Final = frozenset({TokenType.ARRAY, TokenType.STRUCT, TokenType.MAP, TokenType.ROW})
_ROOTS: Final = (exp.Select, exp.SetOperation, exp.Values)


def read_statement(sql: str, dialect: str) -> exp.Expr:
    """The one SELECT of a text.

    Raises:
        QueryRefused: It is something else, or too much.
        SqlglotError: It is not SQL; the message quotes the text.
    """
    if len(sql) > MAX_CHARACTERS:
        refuse(f"it has more than {MAX_CHARACTERS:,} characters")
    if "\x00" in sql or SEAL in sql:
        refuse("it contains NUL, or a character that is as good as that")
    reader: Any = Dialect.get_or_raise(dialect)
    reader.to_json_path = _as_it_is
    tokens = reader.tokenize(sql)
    _check_tokens(tokens, lists=dialect != "sqlite")
    found = _parser_of(reader.parser_class)(len(tokens), dialect=reader).parse(tokens, sql)
    if len(found) != 1 or found[0] is None:
        refuse("it must be exactly one statement")
    if not isinstance(found[0], _ROOTS):
        refuse("it must be a SELECT")
    if any(token.token_type in _ARROWS for token in tokens):
        for path in list(found[0].find_all(exp.JSONPath)):
            _write_out(path)
        if dialect == "postgres":
            for function in list(found[0].find_all(exp.Lambda)):
                _to_json(function)
    return found[0]


@cache
def _parser_of(parser: Any) -> Any:
    """A parser that does not go back again and again: of joins without ON, each one doubles the readings."""

    class Patient(parser):  # type: ignore[misc]
        def __init__(self, tokens: int, **options: Any) -> None:
            super().__init__(**options)
            self.tg_again = _MAX_AGAIN + _MAX_AGAIN_EACH * tokens

        def _retreat(self, index: int) -> None:
            self.tg_again -= max(self._index - index, 0)
            if self.tg_again < 0:
                refuse("it could be read in too many ways")
            super()._retreat(index)

    return Patient


def _as_it_is(path: exp.Expr | None) -> exp.Expr | None:
    # The parser would read the text of a path, log what it does not understand, and write it in another way.
    return path


def _to_json(function: exp.Lambda) -> None:
    """In an argument the parser takes ``data -> 'key'`` for a function, of which PostgreSQL has none."""
    names = function.expressions
    if len(names) == 1 and isinstance(names[0], exp.Identifier) and isinstance(function.this, exp.Literal):
        function.replace(exp.JSONExtract(this=exp.Column(this=names[0]), expression=function.this))


def _write_out(path: exp.JSONPath) -> None:
    """PostgreSQL's ``->`` takes one key or one number, of which the parser makes a path of its own."""
    root, *parts = path.expressions
    part = parts[0] if len(parts) == 1 and isinstance(root, exp.JSONPathRoot) else None
    if isinstance(part, exp.JSONPathKey) and isinstance(part.this, str):
        path.replace(exp.Literal.string(part.this))
    elif isinstance(part, exp.JSONPathSubscript) and isinstance(part.this, int):
        path.replace(exp.Literal.number(part.this))


def _check_tokens(tokens: list[Token], *, lists: bool) -> None:
    # What begins in another way the parser would report to its log, with the text.
    if not tokens or tokens[0].token_type not in _BEGINNINGS:
        refuse("it must be a SELECT")
    if len(tokens) > MAX_TOKENS:
        refuse(f"it has more than {MAX_TOKENS:,} words and signs")
    before = TokenType.SEMICOLON
    open_brackets: list[bool] = []
    depth = lists_so_far = 0
    for token in tokens:
        kind = token.token_type
        if kind is TokenType.L_BRACE or (kind is TokenType.L_BRACKET and not lists):
            refuse("structures and their parts are not allowed here")
        if kind is TokenType.L_BRACKET:
            depth, lists_so_far = depth + 1, lists_so_far + 1
            if depth > _MAX_LISTS_IN_LISTS or lists_so_far > _MAX_LISTS:
                refuse(f"it has more than {_MAX_LISTS} lists, or lists that are nested too deep")
        elif kind is TokenType.R_BRACKET:
            depth -= 1
        if kind is TokenType.L_PAREN:
            if before in _VALUES_IN_BRACKETS:
                refuse("lists, structures and their parts are not allowed here")
            open_brackets.append(before in Parser.TYPE_TOKENS)
            if len(open_brackets) > _MAX_BRACKETS or sum(open_brackets) > _MAX_TYPES:
                refuse("it is nested too deep")
        elif kind is TokenType.R_PAREN and open_brackets:
            open_brackets.pop()
        before = kind
