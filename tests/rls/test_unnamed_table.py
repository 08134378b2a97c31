"""What a table that the policy does not name is answered with: to a viewer, and to the developer."""

from __future__ import annotations

import traceback

import pytest

from toucan_guard.core.errors import QueryRefused
from toucan_guard.rls.unnamed_table import unnamed_table

TABLES = ("flights", "sales.fares")


@pytest.mark.parametrize(
    "name",
    [
        "sqlite_master",
        "SQLITE_SCHEMA",
        "pg_stat_activity",
        "pg_catalog.pg_class",
        "information_schema.tables",
        "Information_Schema.columns",
        "pg_toast.anything",
        "duckdb_tables",
        "main.sqlite_master",
    ],
)
def test_nobody_is_advised_to_open_a_table_of_the_database_itself(name: str) -> None:
    refused = unnamed_table(QueryRefused, name, TABLES)
    assert str(refused) == f"the table {name!r} is named like the database's own, which are not open to embeds"
    assert "open = true" not in "".join(traceback.format_exception(refused))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        pytest.param("flihgts", "flights", id="two letters changed places"),
        pytest.param("sale.fares", "sales.fares", id="a letter of the schema is missing"),
        pytest.param("salaries", None, id="a table that the policy leaves out"),
    ],
)
def test_the_near_miss_is_told_to_the_developer_and_not_to_whoever_reads_the_refusal(
    name: str, meant: str | None
) -> None:
    refused = unnamed_table(QueryRefused, name, TABLES, prefix="refused: ")
    assert str(refused) == f"refused: the policy does not name the table {name!r}"
    shown = "".join(traceback.format_exception(refused))
    assert (f"Did you mean {meant}? If not: add its rules" in shown) if meant else ("\nAdd its rules" in shown)
