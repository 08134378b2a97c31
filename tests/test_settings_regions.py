"""The regions that endpoints declare: they may not differ from the deployment's, nor say anything about nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from toucan_guard import GuardSettings
from toucan_guard.core.errors import ConfigError
from toucan_guard.settings_regions import undeclared

JWKS = {"secret": None, "jwks_url": "https://login.example/jwks.json"}
EU = {"region": "eu"}


@pytest.fixture
def store_at() -> dict[str, str]:
    pytest.importorskip("redis", reason="the extra [redis] has the driver")
    return {"store_url": "valkey://store.example/0"}


def problems(make: Callable[..., GuardSettings], **changes: Any) -> tuple[str, ...]:
    try:
        make(**changes)
    except ConfigError as error:
        return error.problems
    return ()


def test_endpoints_in_the_deployment_s_region_pass(make_settings: Callable[..., GuardSettings]) -> None:
    settings = make_settings(**EU, **JWKS, jwks_region="eu", audit_region="eu")
    assert list(undeclared(settings)) == []


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        pytest.param({**JWKS, "jwks_region": "us"}, "TOUCAN_GUARD_JWKS_REGION", id="keys"),
        pytest.param({"audit_region": "us"}, "TOUCAN_GUARD_AUDIT_REGION", id="records"),
        pytest.param({"audit_region": "EU"}, "TOUCAN_GUARD_AUDIT_REGION", id="another spelling is another region"),
    ],
)
def test_an_endpoint_in_another_region_stops_the_start(
    changes: dict[str, Any], variable: str, make_settings: Callable[..., GuardSettings]
) -> None:
    (problem,) = problems(make_settings, **EU, **changes)
    assert problem.startswith(f"{variable} is ")
    assert "TOUCAN_GUARD_REGION is 'eu'" in problem


def test_a_store_in_another_region_stops_the_start(
    store_at: dict[str, str], make_settings: Callable[..., GuardSettings]
) -> None:
    assert problems(make_settings, **EU, **store_at, store_region="eu") == ()
    (problem,) = problems(make_settings, **EU, **store_at, store_region="us")
    assert problem.startswith("TOUCAN_GUARD_STORE_REGION is 'us'")


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        pytest.param({"store_region": "eu"}, "TOUCAN_GUARD_STORE_REGION", id="a store in memory"),
        pytest.param(
            {"store_url": "memory://", "store_region": "eu"}, "TOUCAN_GUARD_STORE_REGION", id="a store said to be so"
        ),
        pytest.param({"jwks_region": "eu"}, "TOUCAN_GUARD_JWKS_REGION", id="keys that are not fetched"),
        pytest.param(
            {"insecure_no_audit": True, "audit": None, "audit_region": "eu"},
            "TOUCAN_GUARD_AUDIT_REGION",
            id="no record",
        ),
    ],
)
def test_a_declaration_of_nothing_is_a_mistake(
    changes: dict[str, Any], variable: str, make_settings: Callable[..., GuardSettings]
) -> None:
    (problem,) = problems(make_settings, **EU, **changes)
    assert problem.startswith(f"{variable} is set, but ")
    assert "is not used" in problem


def test_a_declaration_without_a_region_is_a_mistake(make_settings: Callable[..., GuardSettings]) -> None:
    (problem,) = problems(make_settings, audit_region="eu")
    assert problem == (
        "TOUCAN_GUARD_AUDIT_REGION is set, but the deployment names no region: set TOUCAN_GUARD_REGION or remove it"
    )


def test_one_mistake_elsewhere_is_not_two(make_settings: Callable[..., GuardSettings]) -> None:
    (problem,) = problems(make_settings, **EU, secret=None, jwks_url="http://login.example/", jwks_region="eu")
    assert problem.startswith("TOUCAN_GUARD_JWKS_URL ")
    (problem,) = problems(make_settings, region=" ", audit_region="eu")
    assert problem.startswith("TOUCAN_GUARD_REGION ")


def test_every_mistake_is_told_at_once(make_settings: Callable[..., GuardSettings]) -> None:
    assert len(problems(make_settings, **EU, **JWKS, jwks_region="us", audit_region="us", store_region="us")) == 3


def test_what_declares_no_region_is_named(make_settings: Callable[..., GuardSettings]) -> None:
    assert list(undeclared(make_settings())) == []
    assert [sentence.rpartition(" ")[2] for sentence in undeclared(make_settings(**EU, **JWKS))] == [
        "TOUCAN_GUARD_JWKS_REGION.",
        "TOUCAN_GUARD_AUDIT_REGION.",
    ]
