"""The published JSON Schema says what the reader of policies says, as far as a schema can."""

from __future__ import annotations

import json
import random
import re
import tomllib
from importlib.resources import files
from typing import Any, get_args

import pytest

from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_rules import BARE_OPERATORS, LIST_OPERATORS, Operator, Type

SCHEMA = json.loads(files("toucan_guard.core").joinpath("policy.schema.json").read_text())
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool}


def fits(value: Any, schema: Any) -> bool:
    """The words of JSON Schema that ours uses; any other is an error."""
    return schema is not False and all(_word(word, value, schema) for word in schema)


def _word(word: str, value: Any, schema: dict[str, Any]) -> bool:
    said = schema[word]
    match word:
        case "$schema" | "$id" | "$defs" | "title" | "description" | "default":
            return True
        case "$ref":
            return fits(value, SCHEMA["$defs"][said.removeprefix("#/$defs/")])
        case "type":
            return isinstance(value, TYPES[said])
        case "enum":
            return value in said
        case "const":
            return bool(value == said)
        case "anyOf":
            return any(fits(value, each) for each in said)
        case "oneOf":
            return sum(fits(value, each) for each in said) == 1
        case "pattern":
            return not isinstance(value, str) or re.search(said, value) is not None
        case "minLength":
            return not isinstance(value, str) or len(value) >= said
        case "maxLength":
            return not isinstance(value, str) or len(value) <= said
    if isinstance(value, list):
        match word:
            case "items":
                return all(fits(item, said) for item in value)
            case "minItems":
                return len(value) >= said
            case "uniqueItems":
                return len({json.dumps(item) for item in value}) == len(value)
    if isinstance(value, dict):
        match word:
            case "required":
                return set(said) <= value.keys()
            case "properties":
                return all(fits(value[name], each) for name, each in said.items() if name in value)
            case "additionalProperties":
                more = value.keys() - schema.get("properties", {}).keys()
                return not more if said is False else all(fits(value[name], said) for name in more)
            case "propertyNames":
                return all(fits(name, said) for name in value)
            case "minProperties":
                return len(value) >= said
    known = {"items", "minItems", "uniqueItems", "required", "properties", "additionalProperties", "propertyNames"}
    assert word in known | {"minProperties"}, word
    return True


ATTRIBUTES = {
    "s": "string",
    "l": {"type": "string", "list": True},
    "i": {"type": "integer", "required": False},
}
RULE = {"column": "c", "op": "eq", "attribute": "s"}

GOOD: list[Any] = [
    {"all": [RULE]},
    {"any": [RULE, {"column": "c", "op": "is_set"}], "write": True},
    {"all": [{"any": [RULE, {"all": [{"column": "c", "op": "in", "attribute": "l"}]}]}], "open": False},
    {"open": True, "columns": {"show": ["a", "b"]}},
]
BAD: list[Any] = [
    {},
    {"open": False},
    {"all": []},
    {"all": [RULE], "any": [RULE]},
    {"all": [RULE], "open": True},
    {"all": RULE},
    {"all": ["c = 1"]},
    {"all": [{"any": []}]},
    {"all": [{"any": [RULE], "column": "c"}]},
    {"all": [{**RULE, "value": 1}]},
    {"all": [{"op": "eq", "attribute": "s"}]},
    {"all": [{"column": "", "op": "is_set"}]},
    {"all": [{"column": "c"}]},
    {"all": [{"column": "c", "op": "="}]},
    {"all": [{"column": "c", "op": "eq"}]},
    {"all": [{"column": "c", "op": "is_set", "attribute": "s"}]},
    {"open": "yes"},
    {"open": True, "columns": ["a"]},
    {"open": True, "columns": {"show": []}},
    {"open": True, "columns": {"show": ["a", "a"]}},
    {"open": True, "columns": {"show": [1]}},
    {"open": True, "columns": {"hide": ["a"]}},
    {"open": True, "wirte": True},
    "flights",
]
WHOLE: list[Any] = [
    {},
    {"tables": {}},
    {"tables": []},
    {"table": {"t": {"open": True}}},
    {"attributes": {"a": "text"}, "tables": {"t": {"open": True}}},
    {"attributes": {"a": {}}, "tables": {"t": {"open": True}}},
    {"attributes": {"a": {"type": "string", "lst": True}}, "tables": {"t": {"open": True}}},
    {"attributes": {"a": {"type": "string", "list": "yes"}}, "tables": {"t": {"open": True}}},
    {"attributes": {"a b": "string"}, "tables": {"t": {"open": True}}},
    {"$schema": 1, "tables": {"t": {"open": True}}},
    [],
]


def _accepted(policy: Any) -> bool:
    try:
        RlsPolicy.from_json(json.dumps(policy))
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("table", GOOD)
def test_what_the_reader_accepts_the_schema_accepts(table: Any) -> None:
    policy = {"attributes": ATTRIBUTES, "tables": {"t": table}}
    assert _accepted(policy)
    assert fits(policy, SCHEMA)


@pytest.mark.parametrize("policy", [*({"attributes": ATTRIBUTES, "tables": {"t": table}} for table in BAD), *WHOLE])
def test_what_the_schema_refuses_the_reader_refuses(policy: Any) -> None:
    assert not _accepted(policy)
    assert not fits(policy, SCHEMA)


ODD = (None, 0, 1, True, False, "", " ", "a\n", "string", "all", "k" * 129, 1.5, [], {}, [[]], [{}], {"all": []})


class Policies:
    """Policies as somebody writes them, most with a slip."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def policy(self) -> Any:
        attributes = {**ATTRIBUTES, "d": self._odd({"type": "date", "list": self._odd(True), "required": False})}
        tables = {self._one_of("t", "u", "s.t", "T"): self._table() for _ in range(2)}
        policy = {"attributes": self._odd(attributes), "tables": self._odd(tables)}
        return self._odd(policy if self._now_and_then() else {**policy, "$schema": self._odd("x")})

    def _table(self) -> Any:
        table = {self._one_of("all", "any"): self._odd([self._rule(3)]), "write": self._odd(True)}
        table["columns"] = self._odd({"show": self._odd([self._odd("c"), "d"])})
        table["open"] = self._odd(False)
        return self._odd({key: value for key, value in table.items() if not self._now_and_then()})

    def _rule(self, depth: int) -> Any:
        if depth and self._now_and_then():
            return {self._one_of("all", "any"): self._odd([self._rule(depth - 1) for _ in range(2)])}
        op = self._one_of(*get_args(Operator))
        name = "l" if op in LIST_OPERATORS else "i" if op in ("lt", "le", "gt", "ge") else "s"
        rule = {"column": self._odd("c"), "op": self._odd(op), "attribute": self._odd(name)}
        if op in BARE_OPERATORS:
            del rule["attribute"]
        return self._odd(rule)

    def _now_and_then(self) -> bool:
        return self._random.random() < 0.3

    def _one_of(self, *values: Any) -> Any:
        return self._random.choice(values)

    def _odd(self, value: Any) -> Any:
        return self._random.choice(ODD) if self._random.random() < 0.02 else value


def test_the_schema_refuses_no_policy_that_the_reader_accepts() -> None:
    policies = Policies(1)
    accepted = [policy for policy in (policies.policy() for _ in range(4000)) if _accepted(policy)]
    assert 400 < len(accepted) < 3600
    assert [policy for policy in accepted if not fits(policy, SCHEMA)] == []


def test_the_readme_s_example_fits() -> None:
    text = (
        '[attributes]\ncarrier = "string"\n[tables.flights]\nall = [{ column = "c", op = "eq", attribute = "carrier" }]'
    )
    assert fits(tomllib.loads(text), SCHEMA)


def test_every_type_and_operator_is_in_it() -> None:
    assert tuple(SCHEMA["$defs"]["type"]["enum"]) == get_args(Type)
    compared, bare = (rule["properties"]["op"]["enum"] for rule in SCHEMA["$defs"]["rule"]["anyOf"][2:])
    assert (*compared, *bare) == get_args(Operator)
    assert set(bare) == BARE_OPERATORS
