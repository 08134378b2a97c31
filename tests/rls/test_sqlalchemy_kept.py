"""What a column does to the value that it is given; ``tests/services/test_kept.py`` asks the databases."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import CHAR, BigInteger, Double, Float, Integer, Numeric, SmallInteger, String, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import NullType

from toucan_guard.rls.sqlalchemy_kept import keeps

BOTH = {"sqlite", "postgresql"}
SQLITE, POSTGRESQL, NEITHER = {"sqlite"}, {"postgresql"}, set[str]()


class Own(float):
    def __repr__(self) -> str:
        return "mine"


@pytest.mark.parametrize(
    ("type_", "given", "kept"),
    [
        pytest.param(Integer(), 7, BOTH, id="a whole number"),
        pytest.param(Integer(), True, BOTH, id="a boolean"),
        pytest.param(Integer(), None, BOTH, id="nothing"),
        pytest.param(BigInteger(), 7.0, BOTH, id="a float that is whole"),
        pytest.param(BigInteger(), Decimal("7E+1"), BOTH, id="a decimal that is whole"),
        pytest.param(Integer(), 1.6, SQLITE, id="a float among integers"),
        pytest.param(SmallInteger(), Decimal("1.6"), SQLITE, id="a decimal among integers"),
        pytest.param(Integer(), float("nan"), BOTH, id="no number at all"),
        pytest.param(NullType(), 1.6, SQLITE, id="a float in a column that nobody has declared"),
        pytest.param(NullType(), 2, BOTH, id="an integer in a column that nobody has declared"),
        pytest.param(Numeric(10, 2), Decimal("1.99"), BOTH, id="as many places as there are"),
        pytest.param(Numeric(10, 2), Decimal("1.9900"), BOTH, id="more places, but zeros"),
        pytest.param(Numeric(10, 2), Decimal("1.999"), SQLITE, id="more places than there are"),
        pytest.param(Numeric(10, 0), 0, BOTH, id="nought"),
        pytest.param(Numeric(10, 2), 0.1, BOTH, id="a float in a decimal column"),
        pytest.param(Numeric(), 0.30000000000000004, SQLITE, id="a float of more digits than PostgreSQL takes"),
        pytest.param(Numeric(), Own(0.5), BOTH, id="a float of somebody's own"),
        pytest.param(Numeric(), Decimal("1.99999999999999999999"), POSTGRESQL, id="a decimal that no float is"),
        pytest.param(Numeric(), Decimal("1E+400"), POSTGRESQL, id="a decimal that is larger than every float"),
        pytest.param(Float(), Decimal("0.1"), BOTH, id="a decimal among floats"),
        pytest.param(Double(), Decimal("1.99999999999999999999"), NEITHER, id="a decimal that a float rounds"),
        pytest.param(Double(), 2**53 + 1, NEITHER, id="an integer that a float rounds"),
        pytest.param(Double(), 10**400, NEITHER, id="an integer that is larger than every float"),
        pytest.param(String(), "AA  ", BOTH, id="text"),
        pytest.param(String(2), "AA", BOTH, id="text as long as its column"),
        pytest.param(String(2), "AA ", SQLITE, id="text with a blank too many"),
        pytest.param(Text(), "AA ", BOTH, id="text of any length"),
        pytest.param(CHAR(2), "AA", BOTH, id="text that fills its column"),
        pytest.param(CHAR(2), "A", SQLITE, id="text that is filled up with blanks"),
        pytest.param(CHAR(2), "A ", SQLITE, id="text that ends in a blank that counts for nothing"),
        pytest.param(CHAR(), "A", BOTH, id="one character"),
        pytest.param(
            postgresql.TIMESTAMP(precision=0), datetime(2013, 1, 1, 12, 0, 0, 1), SQLITE, id="a moment that is rounded"
        ),
        pytest.param(postgresql.TIMESTAMP(precision=3), datetime(2013, 1, 1, 12, 0, 0, 5000), BOTH, id="a moment"),
        pytest.param(String(), datetime(2013, 1, 1), BOTH, id="a moment that is no text anyway"),
    ],
)
def test_a_column_keeps_the_very_value(type_: Any, given: Any, kept: set[str]) -> None:
    assert {dialect for dialect in sorted(BOTH) if keeps(given, type_, dialect)} == kept
