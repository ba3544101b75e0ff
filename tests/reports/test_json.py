"""The JSON reports have exactly the promised form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from lora_lint.cli import main

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def obj(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT, COUNT, ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {}
NUMBER = {"type": "number"}
PLACE = obj(
    line={"type": "integer", "minimum": 1}, column={"type": "integer", "minimum": 1}, offset=COUNT
)
SPAN = obj(start=PLACE, end=PLACE)
KEY_PATH = {"type": "array", "items": {"type": ["string", "integer"]}}
GPU = maybe(obj(name=TEXT, nominal_bytes=COUNT, usable_bytes=COUNT, count=COUNT))
VERSION = maybe(obj(version=TEXT, source=TEXT))
ENVIRONMENT = obj(peft=VERSION, transformers=VERSION, gpu=GPU)
FIX = obj(
    title=TEXT,
    applicability={"enum": ["safe", "unsafe", "display"]},
    edits={"type": "array", "items": obj(start=COUNT, end=COUNT, text=TEXT)},
)
DIAGNOSTIC = obj(
    code={"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
    name=TEXT,
    severity={"enum": ["error", "warning", "info"]},
    message=TEXT,
    path=TEXT,
    document=maybe(COUNT),
    cell=maybe(COUNT),
    recipe=maybe(COUNT),
    key_path=KEY_PATH,
    span=SPAN,
    related={"type": "array", "items": obj(message=TEXT, path=TEXT, span=SPAN)},
    help=maybe(TEXT),
    url=maybe(TEXT),
    fixes={"type": "array", "items": FIX},
)
LINT = obj(
    version={"const": 1},
    diagnostics={"type": "array", "items": DIAGNOSTIC},
    not_checked={
        "type": "array",
        "items": obj(path=TEXT, recipe=COUNT, reason=TEXT, codes={"type": "array", "items": TEXT}),
    },
    recipes={
        "type": "array",
        "items": obj(path=TEXT, recipe=COUNT, dialect=TEXT, environment=ENVIRONMENT),
    },
    summary=obj(
        files=COUNT, recipes=COUNT, errors=COUNT, warnings=COUNT, infos=COUNT, fixable=COUNT
    ),
)
ENTRIES = {"type": "array"}
NAMES = {"type": "array", "items": TEXT}
INJECTION = obj(
    modules=NAMES,
    parameters=NAMES,
    saved=NAMES,
    tokens=NAMES,
    trainable=maybe(COUNT),
    total=maybe(COUNT),
    adapted={
        "type": "object",
        "additionalProperties": obj(
            r=COUNT, alpha=NUMBER, scale=NUMBER, kind=TEXT, parameters=COUNT
        ),
    },
    unmatched=obj(
        target_modules=ENTRIES,
        target_parameters=ENTRIES,
        modules_to_save=ENTRIES,
        exclude_modules=ENTRIES,
        rank_pattern=ENTRIES,
        alpha_pattern=ENTRIES,
        layers_to_transform=ENTRIES,
    ),
    warnings={"type": "array", "items": obj(category=TEXT, message=TEXT)},
    error=maybe(obj(stage={"enum": ["config", "inject"]}, type=TEXT, message=TEXT)),
    undecided=maybe(TEXT),
)
PARTS = (
    "weights", "adapters", "saved_modules", "gradients",
    "optimizer", "activations", "logits", "overhead",
)  # fmt: skip
MEMORY = obj(
    bytes=obj(**dict.fromkeys(PARTS, maybe(COUNT))),
    low=maybe(COUNT),
    peak=maybe(COUNT),
    high=maybe(COUNT),
    site=maybe(TEXT),
    verdict={"enum": ["fits", "risk", "oom", "unknown"]},
    assumed={"type": "object"},
    gpu=GPU,
    reason=maybe(TEXT),
)
FIELD = obj(value=ANY, origin={"enum": ["written", "default", "computed", "unset", "unknown"]})
SHOW = obj(
    version={"const": 1},
    recipes={
        "type": "array",
        "items": obj(
            path=TEXT,
            recipe=COUNT,
            document=maybe(COUNT),
            cell=maybe(COUNT),
            dialect=TEXT,
            span=SPAN,
            environment=ENVIRONMENT,
            fields={"type": "object", "additionalProperties": FIELD},
            lora_kwargs={"type": "object"},
            model=maybe(
                obj(
                    id=TEXT,
                    source=TEXT,
                    **{"class": TEXT},
                    transformers=TEXT,
                    grade={"enum": ["exact", "dims", "named", "live", "given"]},
                )
            ),
            injection=maybe(INJECTION),
            memory=maybe(MEMORY),
        ),
    },
)
FILES = sorted(str(path) for path in EXAMPLES.iterdir())


def output(*arguments: str) -> Any:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return json.loads(result.stdout)


@pytest.mark.parametrize("path", FILES, ids=lambda p: Path(p).name)
@pytest.mark.parametrize(
    "options", [(), ("--gpu", "rtx4090", "--peft-version", "0.7.1")], ids=["plain", "known"]
)
def test_lint(path: str, options: tuple[str, ...]) -> None:
    data = output("lint", "--isolated", "--output-format", "json", path, *options)
    jsonschema.validate(data, LINT)
    text = Path(path).read_text(encoding="utf-8")
    for diagnostic in data["diagnostics"]:
        for place in diagnostic["span"].values():
            before = text[: place["offset"]]
            assert place["line"] == before.count("\n") + 1
            assert place["column"] == place["offset"] - (before.rfind("\n") + 1) + 1


@pytest.mark.parametrize("path", FILES, ids=lambda p: Path(p).name)
def test_show(path: str) -> None:
    data = output("show", "--isolated", "--output-format", "json", path)
    jsonschema.validate(data, SHOW)
    for recipe in data["recipes"]:
        assert {"base_model", "r", "lora_alpha", "target_modules"} <= set(recipe["fields"])
        for field in recipe["fields"].values():
            assert field["value"] is None or field["origin"] not in ("unset", "unknown")


def test_what_is_not_finite_is_still_json(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("lora: {r: 8, lora_alpha: .inf, lora_dropout: .nan, target_modules: [q]}\n")
    for command in ("lint", "show"):
        result = CliRunner().invoke(
            main, [command, "--isolated", "--output-format", "json", str(path)]
        )
        json.loads(result.stdout, parse_constant=pytest.fail)
