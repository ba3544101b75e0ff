"""The key tables, and the JSON Schemas that are made of them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lint import documents
from lora_lint.dialects import dialect, names, tables
from lora_lint.dialects.base import framework_facts
from lora_lint.facts import DATA

TABLES = sorted(path.stem for path in (DATA / "frameworks").glob("*.json"))
STRICT = tables.Reader(choices=True, types=True)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 600),
    st.floats(0.01, 0.99),
    st.sampled_from(["8", "lora", "none", "all-linear", "nf4", "true", ""]),
)
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), SCALARS)
)


def test_every_table_belongs_to_a_dialect() -> None:
    assert set(TABLES) <= set(names())


@pytest.mark.parametrize("name", TABLES)
def test_slots_are_keys_of_the_table(name: str) -> None:
    keys = tables.table(name)
    for slot in dialect(name).slots.values():
        if (name, slot.field) == ("axolotl", "inference"):
            continue  # set by `axolotl inference`, not by files
        path = tuple(step for step in slot.path if isinstance(step, str))
        holder = tables.entry(keys, path[:-1]) if path[:-1] else {"keys": keys}
        if path[0] in keys and "keys" not in keys[path[0]]:
            continue  # a section that takes any key
        assert holder is not None, slot
        assert "keys" not in holder or path[-1] in holder["keys"], slot


@pytest.mark.parametrize("name", TABLES)
def test_schemas_are_valid(name: str) -> None:
    schema = tables.schema(name, name, closed=True)
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)


def without_items(schema: Any) -> Any:
    """The schema without the types of lists' entries, which the tables give to editors alone."""
    if isinstance(schema, dict):
        return {key: without_items(value) for key, value in schema.items() if key != "items"}
    return schema


@pytest.mark.parametrize("name", TABLES)
def test_tables_and_schemas_agree(name: str) -> None:
    keys = tables.table(name)
    schema = without_items(tables.schema(name, name, closed=True))
    validator = jsonschema.Draft202012Validator(schema)
    paths = sorted(_paths(keys, ()))
    if not framework_facts(name).get("open"):
        paths.append(("no_such_key",))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def agree(data: st.DataObject) -> None:
        config: dict[str, Any] = {}
        chosen = data.draw(st.lists(st.sampled_from(paths), max_size=6))
        for path in chosen:
            here = config
            for step in path[:-1]:
                here = here.setdefault(step, {})
                if not isinstance(here, dict):
                    break
            else:
                here[path[-1]] = data.draw(VALUES)
        root = documents.parse("c.json", json.dumps(config)).parts[0].node
        ours = {m.path for m in tables.misfits(root, (), keys, STRICT)}
        ours |= {s.path for s in tables.stray(root, (), keys, "rejected")}
        theirs = set()
        for error in validator.iter_errors(config):
            place = tuple(error.absolute_path)
            if error.validator == "additionalProperties":
                known = error.schema["properties"]
                theirs |= {(*place, key) for key in error.instance if key not in known}
            else:
                theirs.add(place)
        assert ours == theirs

    agree()


def _paths(keys: tables.Table, above: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = []
    for key, known in keys.items():
        found.append((*above, key))
        found += _paths(known.get("keys", {}), (*above, key))
    return found


@pytest.mark.parametrize(
    ("reader", "types", "value", "taken"),
    [
        # pydantic 2 in lax mode: pydantic.TypeAdapter(type).validate_python(value)
        (tables.PYDANTIC, ("integer",), "8", True),
        (tables.PYDANTIC, ("integer",), 8.0, True),
        (tables.PYDANTIC, ("integer",), 8.5, False),
        (tables.PYDANTIC, ("integer",), True, True),
        (tables.PYDANTIC, ("number",), "1e-4", True),
        (tables.PYDANTIC, ("string",), 8, False),
        (tables.PYDANTIC, ("boolean",), "yes", True),
        (tables.PYDANTIC, ("boolean",), 2, False),
        (tables.PYDANTIC, ("array",), "q_proj", False),
        (tables.PYDANTIC, ("integer",), None, False),
        # OmegaConf 2.3, merged into a structured config
        (tables.OMEGACONF, ("integer",), "8", True),
        (tables.OMEGACONF, ("integer",), "q", False),
        (tables.OMEGACONF, ("integer",), 8.0, False),
        (tables.OMEGACONF, ("integer",), True, False),
        (tables.OMEGACONF, ("boolean",), "8", True),
        (tables.OMEGACONF, ("string",), 8, True),
        # argparse with defaults out of a file: only texts are looked at
        (tables.ARGPARSE_DEFAULTS, ("integer",), 8.5, True),
        (tables.ARGPARSE_DEFAULTS, ("integer",), "8", True),
        (tables.UNCHECKED, ("integer",), "eight", True),
    ],
)
def test_what_loaders_take(
    reader: tables.Reader, types: tuple[str, ...], value: object, *, taken: bool
) -> None:
    assert tables.fits(value, types, reader) is taken
