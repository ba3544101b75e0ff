"""Reads the keys that training frameworks know out of their wheels, and writes
``lora_lint/data/frameworks/*.json``.

    python tools/framework_facts.py --wheels DIR

DIR holds a folder of wheels for each framework (``axolotl``, ``llama_factory``, ``trl``) and for
``transformers``, whose TrainingArguments two of them take too; a key is known if any of them
declares it, so that a config for an older release is no typo. Wheels are read as syntax trees,
nothing is imported.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "frameworks"
# Modules whose classes declare the keys of a framework's config files, and the class that counts
# with those it inherits from; None: all of them.
MODULES = {
    "axolotl": (r"axolotl/utils/schemas/.*\.py", "AxolotlInputConfig"),
    "llama_factory": (r"llamafactory/hparams/.*\.py", None),
    "trl": (r"trl/(trainer|experimental|scripts|commands)/.*\.py", None),
}
TRAINING_ARGUMENTS = r"transformers/training_args(_seq2seq)?\.py"
TAKES_TRAINING_ARGUMENTS = ("llama_factory", "trl")


def declared(sources: Iterable[bytes], root: str | None) -> set[str]:
    """The annotated names in the classes of some modules, and the aliases of pydantic fields.

    With ``root`` only that class counts and what it inherits from.
    """
    classes = [
        node
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    ]
    counted = [node for node in classes if root in (None, node.name)]
    names: set[str] = set()
    for node in counted:
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                names |= {item.target.id, *aliases(item.value)}
        if root is not None:
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            counted += [other for other in classes if other.name in bases]
    return names


def aliases(value: ast.expr | None) -> set[str]:
    """Other spellings that a field takes: ``Field(alias="...")``."""
    if not isinstance(value, ast.Call):
        return set()
    return {
        word.value.value
        for word in value.keywords
        if word.arg in ("alias", "validation_alias")
        and isinstance(word.value, ast.Constant)
        and isinstance(word.value.value, str)
    }


def keys_of(folder: Path, pattern: str, root: str | None) -> set[str]:
    """The keys that the wheels of a folder declare in the modules that a pattern names."""
    keys: set[str] = set()
    for path in folder.glob("*.whl"):
        wheel = zipfile.ZipFile(path)
        keys |= declared(
            (wheel.read(n) for n in wheel.namelist() if re.fullmatch(pattern, n)), root
        )
    return keys


def release(wheel: Path) -> tuple[int, ...]:
    """The version in a wheel's name."""
    return tuple(int(part) for part in re.findall(r"\d+", wheel.name.split("-")[1]))


def composite_models(wheel: zipfile.ZipFile) -> dict[str, dict[str, list[str]]]:
    """LLaMA-Factory's table of models that see: which of their modules are which."""
    tree = ast.parse(wheel.read("llamafactory/model/model_utils/visual.py"))
    register = next(
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == "_register_composite_model"
    )
    made = next(node for node in ast.walk(register) if isinstance(node, ast.Call))
    defaults: dict[str, list[str]] = {}
    for word in made.keywords:
        if isinstance(word.value, ast.BoolOp):
            defaults[str(word.arg)] = ast.literal_eval(word.value.values[-1])
    models = {}
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != register.name:
            continue
        given: dict[str, Any] = {str(w.arg): ast.literal_eval(w.value) for w in call.keywords}
        models[str(given.pop("model_type"))] = defaults | given
    return models


def main() -> None:
    """Read all wheels and write the facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    folder = parser.parse_args().wheels
    trainer = keys_of(folder / "transformers", TRAINING_ARGUMENTS, None)
    for framework, (pattern, root) in MODULES.items():
        wheels = sorted((folder / framework).glob("*.whl"), key=release)
        keys = keys_of(folder / framework, pattern, root)
        if framework in TAKES_TRAINING_ARGUMENTS:
            keys |= trainer
        facts: dict[str, Any] = {
            "generated_by": "tools/framework_facts.py",
            "releases": [path.name.split("-")[1] for path in wheels],
            "keys": sorted(key for key in keys if not key.startswith("_")),
        }
        if framework == "llama_factory":
            facts["composite_models"] = composite_models(zipfile.ZipFile(wheels[-1]))
        DATA.mkdir(parents=True, exist_ok=True)
        text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
        (DATA / f"{framework}.json").write_text(text, encoding="utf-8")
        print(f"{framework}: {len(wheels)} releases, {len(facts['keys'])} keys")


if __name__ == "__main__":
    main()
