"""From one SELECT to the same SELECT over filtered rows.

1. The text is parsed; every node of the tree is on the allow-list (``sql_nodes.py``).
2. Every name in FROM is resolved here: a WITH query gets a name that no table has, a table of the policy
   becomes its filtered sub-query, everything else is refused.
3. The tree is written again (``sql_dialects.py``). The database never sees the text that came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from toucan_guard.core.errors import QueryRefused
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_rules import TableRule
from toucan_guard.rls.sql_dialects import Dialect, gated, split_marks
from toucan_guard.rls.sql_fence import needs_fence
from toucan_guard.rls.sql_functions import ROW_FUNCTIONS
from toucan_guard.rls.sql_nodes import REFUSED, check_nodes, refuse
from toucan_guard.rls.sql_parameters import Parameter
from toucan_guard.rls.sql_reader import read_statement
from toucan_guard.rls.sql_rules import ROW, RuleWriter
from toucan_guard.rls.sql_written import SEAL
from toucan_guard.rls.unnamed_table import unnamed_table


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A statement that is ready but for its values.

    Attributes:
        pieces: Text; every second piece is the name of a parameter.
        parameters: The filter's own parameters.
        names: The names of the host's.
        tables: The tables that are filtered.
        fenced: Nothing runs on the rows of a table before its filter.
    """

    pieces: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    names: frozenset[str]
    tables: tuple[str, ...]
    fenced: bool


def rewrite(sql: str, policy: RlsPolicy, dialect: Dialect, *, fenced: bool = False) -> Rewritten:
    """Put the policy's filter into a statement.

    Args:
        sql: The statement.
        policy: The rules.
        dialect: In which it is written.
        fenced: Put up the fence also where the statement does not seem to need one.

    Raises:
        QueryRefused: It is not one SELECT that is understood whole.
    """
    try:
        statement = read_statement(sql, dialect.name)
        names, nodes = check_nodes(statement, dialect.name)
        fenced = fenced or dialect.comparing == "any" or needs_fence(nodes, strict=dialect.comparing == "columns")
        writer = _Rewriter(policy, dialect, fenced=fenced)
        writer.check_columns(nodes)
        writer.check_series(nodes)
        writer.resolve(statement, {})
        text = gated(dialect, dialect.write(statement))
    except QueryRefused:
        raise
    except RecursionError:
        refuse("it is nested too deep")
    except Exception:  # noqa: BLE001 - whatever the parser stumbles over, it is no statement that is understood
        # Not in its own words, which quote the statement, and with it perhaps a value.
        refuse(f"it is not a statement that is understood as {dialect.name}")
    pieces = split_marks(text)
    return Rewritten(
        tuple(pieces), tuple(writer.rules.parameters.in_order), names, tuple(sorted(writer.filtered)), fenced
    )


class _Rewriter:
    def __init__(self, policy: RlsPolicy, dialect: Dialect, *, fenced: bool) -> None:
        self._policy = policy
        self._dialect = dialect
        self._fenced = fenced
        self._with_queries = 0
        self.rules = RuleWriter(dialect)
        self.filtered: set[str] = set()
        self._hides = any(rules.show is not None for rules in policy.tables.values())
        parts = {part for name in policy.tables for part in (name, name.rpartition(".")[2])}
        self._reserved = {part.casefold() for part in parts}

    def resolve(self, node: exp.Expr, known: Mapping[str, str]) -> None:
        """Resolve every name in FROM; ``known`` are the WITH queries that are seen from here."""
        clause = node.args.get("with_")
        if clause is not None:
            known = self._with(clause, known)
        for child in list(node.iter_expressions()):
            if child is clause:
                continue
            self.resolve(child, known)
            if isinstance(child, exp.Table):
                self._replace(child, known)
            elif isinstance(child, exp.Column):
                child.set("db", None)

    def _with(self, clause: exp.Expr, known: Mapping[str, str]) -> Mapping[str, str]:
        """What the queries after a WITH clause know: a name to the one that it gets."""
        own: set[str] = set()
        for query in clause.expressions:
            alias = query.args["alias"].this
            name = self._dialect.normalise(alias)
            if name.casefold() in self._reserved:
                refuse(f"a WITH query is named like the table {name!r}")
            if name.casefold() in own:
                refuse(f"two WITH queries are named {name!r}")
            own.add(name.casefold())
            renamed = f"tg_with_{self._with_queries}"
            self._with_queries += 1
            inside = {**known, self._key(name): renamed} if clause.args.get("recursive") else known
            self.resolve(query.this, inside)
            known = {**known, self._key(name): renamed}
            alias.replace(exp.Identifier(this=renamed, quoted=True))
        return known

    def _key(self, name: str) -> str:
        return name.casefold() if self._dialect.folds else name

    def _replace(self, table: exp.Table, known: Mapping[str, str]) -> None:
        """A table becomes what it stands for, under the name that it had."""
        if isinstance(table.this, ROW_FUNCTIONS[self._dialect.name]) and not table.args.get("db"):
            return
        if not isinstance(table.this, exp.Identifier):
            refuse("a function or a file in FROM may read what is hidden")
        name = self._dialect.normalise(table.this)
        alias = table.args.get("alias") or exp.TableAlias()
        if not alias.this:
            alias.set("this", exp.Identifier(this=name, quoted=True))
        more = {"alias": alias, "joins": table.args.get("joins"), "laterals": table.args.get("laterals")}
        if table.args.get("db") is None and self._key(name) in known:
            renamed = exp.Identifier(this=known[self._key(name)], quoted=True)
            table.replace(exp.Table(this=renamed, **more))
            return
        rules = self._rules(table, name)
        table.replace(exp.Subquery(this=exp.Var(this=SEAL + self._rows(rules) + SEAL), **more))

    def _rules(self, table: exp.Table, name: str) -> TableRule:
        schema = table.args.get("db")
        full = f"{self._dialect.normalise(schema)}.{name}" if schema is not None else name
        rules = None if "." in name else self._policy.tables.get(full)
        if rules is None or (rules.rule is None and not rules.open):
            close = [known for known in self._policy.tables if known.casefold() == full.casefold() and known != full]
            if close:
                refuse(f"the policy does not name the table {full!r}: write it as {close[0]}")
            raise unnamed_table(QueryRefused, full, self._policy.tables, prefix=REFUSED)
        return rules

    def _rows(self, rules: TableRule) -> str:
        """The sub-query that has the rows and columns of a table that may be seen."""
        quote = self._dialect.quote
        shown = "*" if rules.show is None else ", ".join(f"{ROW}.{quote(column)}" for column in sorted(rules.show))
        source = ".".join(quote(part) for part in rules.name.split("."))
        where = fence = ""
        if rules.rule is not None:
            self.filtered.add(rules.name)
            where = f" WHERE {self.rules.condition(rules.rule)}"
            fence = self._dialect.fence if self._fenced else ""
        return f"SELECT {shown} FROM {source} AS {ROW}{where}{fence}"  # noqa: S608 - names of the policy, in quotes

    def check_columns(self, nodes: Mapping[type[exp.Expr], list[Any]]) -> None:
        """Refuse columns that the policy hides, where it is certain which table they are of.

        This is only for the sake of a good message: the sub-query has no other columns than the shown.
        """
        shown_of: dict[str, set[str] | None] = {}
        everything: set[str] | None = set()
        for table in nodes.get(exp.Table, ()):
            rules = self._policy.tables.get(".".join(part.name for part in table.parts))
            shown = None if rules is None or rules.show is None else {column.casefold() for column in rules.show}
            name = table.alias_or_name.casefold()
            shown_of[name] = shown if shown_of.setdefault(name, shown) == shown else None
            everything = None if shown is None or everything is None else everything | shown
        made = {found.name.casefold() for found in nodes.get(exp.Identifier, ()) if found.arg_key != "this"}
        made |= {found.name.casefold() for kind in (exp.Alias, exp.TableAlias) for found in nodes.get(kind, ())}
        for values in nodes.get(exp.Values, ()):
            # What a database calls the columns of VALUES.
            for index in range(len(values.expressions[0].expressions) if values.expressions else 0):
                made |= {f"column{index + 1}", f"col{index}"}
        for column in nodes.get(exp.Column, ()):
            name, source = column.name.casefold(), column.table.casefold()
            shown = shown_of.get(source) if source else everything
            if not isinstance(column.this, exp.Identifier) or (shown is not None and name in shown):
                continue
            if shown is not None and (source or name not in made | shown_of.keys()):
                refuse(f"the column {column.name!r} is not among those that the policy shows")
            if name in self._dialect.hidden_columns and self._hides:
                refuse(f"{column.name} tells more of a row than the policy shows")

    def check_series(self, nodes: Mapping[type[exp.Expr], list[Any]]) -> None:
        """Refuse ``g.name`` of a series g that has no such column, where that is a call.

        Of a function in FROM, g is no row but the value: PostgreSQL calls any function and any cast of a number.
        """
        kinds = ROW_FUNCTIONS[self._dialect.name] if self._dialect.calls_by_dots else ()
        # Nothing outside of its SELECT can name a series.
        known: dict[int, tuple[exp.Expr, dict[str, set[str]]]] = {}
        for series in [series for kind in kinds for series in nodes.get(kind, ())]:
            select = series.find_ancestor(exp.Select) or series.root()
            name, column = self._series(series.parent)
            known.setdefault(id(select), (select, {}))[1].setdefault(name, set()).add(column)
        for select, columns in known.values():
            for found in select.find_all(exp.Column):
                source = found.args.get("table")
                if source is None or not isinstance(found.this, exp.Identifier):
                    continue
                names = columns.get(self._dialect.normalise(source))
                if names and names != {self._dialect.normalise(found.this)}:
                    refuse(f"the series {source.name!r} has no column {found.name!r}")

    def _series(self, table: exp.Table) -> tuple[str, str]:
        """What a series in FROM is called, and what its column is."""
        alias = table.args.get("alias")
        name = self._dialect.normalise(alias.this) if alias and alias.this else "generate_series"
        columns = alias.args.get("columns") if alias else None
        return name, self._dialect.normalise(columns[0]) if columns else name
