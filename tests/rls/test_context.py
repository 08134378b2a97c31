"""On whose behalf a query runs."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from toucan_guard.core.errors import NoEmbedContext
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access, require_row_access

POLICY = RlsPolicy.from_columns("flights.carrier=carrier")


def test_outside_a_connection_there_is_none() -> None:
    assert current_row_access.get() is None
    with pytest.raises(NoEmbedContext, match="outside a guarded connection"):
        require_row_access()


def test_inside_it_is_found_until_the_end() -> None:
    row_filter = RowFilter(POLICY, {"carrier": "AA"})
    access = RowAccess(row_filter)
    token = current_row_access.set(access)
    try:
        assert require_row_access() is access
        access.closed = True
        with pytest.raises(NoEmbedContext, match="after the end"):
            require_row_access()
    finally:
        current_row_access.reset(token)


def _whose_rows() -> str:
    try:
        return ",".join(require_row_access().row_filter.attributes["carrier"])  # type: ignore[arg-type]
    except NoEmbedContext:
        return "nobody's"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_process_that_one_connection_has_forked_does_not_do_the_work_of_others_with_its_rows() -> None:
    found = []
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        for carrier in ("AA", "UA"):
            token = current_row_access.set(RowAccess(RowFilter(POLICY, {"carrier": carrier})))
            try:
                found.append((_whose_rows(), pool.submit(_whose_rows).result(60)))
            finally:
                current_row_access.reset(token)
    assert found == [("AA", "nobody's"), ("UA", "nobody's")]


def test_it_names_the_embed_and_shows_no_value() -> None:
    access = RowAccess(RowFilter(POLICY, {"carrier": "AA"}))
    access.note(["flights"], POLICY.version)
    assert access.embed_key == access.row_filter.fingerprint
    assert access.embed_key != RowAccess(RowFilter(POLICY, {"carrier": "UA"})).embed_key
    assert repr(access).endswith("tables=('flights',), closed=False)")
    assert "AA" not in repr(access)
