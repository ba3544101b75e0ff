"""Reads what each PEFT release knows out of its wheel and writes ``lora_lint/data/peft.json``.

    python tools/peft_facts.py [--wheels DIR]

Wheels that DIR lacks are downloaded with pip. Nothing is imported: the wheels are read as syntax
trees. A construct that is not understood ends the command with an error, so that a new release
can't slip through half read.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "peft.json"
# Modules that hold the facts, the newest layout first: the 0.6.2 wheel carries stale single files
# beside the packages that win at import.
CONFIG_MODULES = ("peft/tuners/lora/config.py", "peft/tuners/lora.py")
BASE_MODULES = ("peft/config.py", "peft/utils/config.py")
TYPE_MODULES = ("peft/utils/peft_types.py", "peft/utils/config.py")
TABLE_MODULES = ("peft/utils/constants.py", "peft/utils/other.py", "peft/mapping.py")
CONVERSION_MODULE = "peft/utils/transformers_weight_conversion.py"
TABLE = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
# Keys PEFT's own annotation omits; each with the release whose code accepts it.
UNDOCUMENTED_INITS = {"lora_ga": "0.19.0"}


def released_versions() -> list[str]:
    """All PEFT releases on the package index, oldest first."""
    command = [sys.executable, "-m", "pip", "index", "versions", "peft"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    listed = next(line for line in lines if line.startswith("Available versions:"))
    return [v.strip() for v in listed.partition(":")[2].split(",")][::-1]


def open_wheel(version: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of a release, downloaded if need be."""
    name = f"peft-{version}-py3-none-any.whl"
    if not (folder / name).exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"peft=={version}"]
        subprocess.run([*command, "-d", str(folder)], check=True)
    return zipfile.ZipFile(folder / name)


def parse_first(wheel: zipfile.ZipFile, names: tuple[str, ...], symbol: str) -> ast.Module:
    """The first of the modules that exists and defines a symbol."""
    for name in names:
        if name in wheel.namelist():
            tree = ast.parse(wheel.read(name))
            if find(tree, symbol) is not None:
                return tree
    raise SystemExit(f"{wheel.filename}: {symbol} is in none of {names}")


def find(tree: ast.Module, symbol: str) -> ast.AST | None:
    """A class or the value of a module-level assignment."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == symbol:
            return node
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == symbol for target in node.targets
        ):
            return node.value
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == symbol:
            return node.value
    return None


def class_fields(tree: ast.Module, name: str) -> dict[str, dict[str, object]]:
    """The dataclass fields of a class: annotation and default."""
    node = find(tree, name)
    if not isinstance(node, ast.ClassDef):
        raise SystemExit(f"class {name} not found")
    fields = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            fields[item.target.id] = {
                "type": ast.unparse(item.annotation),
                "default": default_of(item.value),
            }
    return fields


def default_of(value: ast.expr | None) -> object:
    """A field's default as JSON; a factory is written as ``{"factory": name}``."""
    if value is None:
        return {"required": True}
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "field":
        for keyword in value.keywords:
            if keyword.arg == "default":
                return default_of(keyword.value)
            if keyword.arg == "default_factory":
                return {"factory": ast.unparse(keyword.value)}
        if any(k.arg == "init" for k in value.keywords):
            return {"init": False}
        return {"required": True}
    try:
        return ast.literal_eval(value)
    except ValueError:
        return {"code": ast.unparse(value)}


def table_of(wheel: zipfile.ZipFile) -> dict[str, object]:
    """The default target modules per model type, later additions to the table included."""
    tree = parse_first(wheel, TABLE_MODULES, TABLE)
    node = find(tree, TABLE)
    if not isinstance(node, ast.Dict):
        raise SystemExit(f"{wheel.filename}: {TABLE} is not a plain table")
    table = {
        ast.literal_eval(k): ast.literal_eval(v)
        for k, v in zip(node.keys, node.values, strict=True)
        if k
    }
    for item in tree.body:
        target = item.targets[0] if isinstance(item, ast.Assign) else None
        if isinstance(target, ast.Subscript) and getattr(target.value, "id", "") == TABLE:
            table[ast.literal_eval(target.slice)] = ast.literal_eval(item.value)
    return table


def enum_values(wheel: zipfile.ZipFile, name: str) -> list[str]:
    """The values of a string enum."""
    node = find(parse_first(wheel, TYPE_MODULES, name), name)
    return [ast.literal_eval(i.value) for i in node.body if isinstance(i, ast.Assign)]


def literals(annotation: str) -> list[str]:
    """The string values that a Literal annotation lists."""
    tree = ast.parse(annotation, mode="eval")
    return [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]


def experts_of(wheel: zipfile.ZipFile) -> dict[str, object]:
    """How PEFT rewrites the targets of mixtures for transformers 5, empty before 0.19."""
    if CONVERSION_MODULE not in wheel.namelist():
        return {}
    tree = ast.parse(wheel.read(CONVERSION_MODULE))
    return {
        "targets": ast.literal_eval(find(tree, "_MOE_TARGET_MODULE_MAPPING")),
        "fused": ast.literal_eval(find(tree, "_MOE_FUSED_TARGETS")),
    }


def changes(history: list[tuple[str, object]]) -> list[dict[str, object]]:
    """The releases at which a value differs from the one before."""
    result: list[dict[str, object]] = []
    for version, value in history:
        if not result or result[-1]["value"] != value:
            result.append({"since": version, "value": value})
    return result


def collect(versions: list[str], folder: Path) -> dict[str, object]:
    """All facts of all releases."""
    fields: dict[str, list[tuple[str, object]]] = {}
    subconfigs: dict[str, list[tuple[str, object]]] = {}
    tables: dict[str, list[tuple[str, object]]] = {}
    singles: dict[str, list[tuple[str, object]]] = {"task_types": [], "experts": []}
    for version in versions:
        wheel = open_wheel(version, folder)
        config = parse_first(wheel, CONFIG_MODULES, "LoraConfig")
        base = parse_first(wheel, BASE_MODULES, "PeftConfig")
        current: dict[str, dict[str, object]] = {}
        for tree, name in ((base, "PeftConfigMixin"), (base, "PeftConfig"), (config, "LoraConfig")):
            if name != "PeftConfigMixin" or find(tree, name):  # since 0.6
                current |= class_fields(tree, name)
        for name, spec in current.items():
            fields.setdefault(name, []).append((version, spec))
        for node in config.body:
            if (
                isinstance(node, ast.ClassDef)
                and node.name != "LoraConfig"
                and any("dataclass" in ast.unparse(d) for d in node.decorator_list)
            ):
                subconfigs.setdefault(node.name, []).append(
                    (version, class_fields(config, node.name))
                )
        for model_type, targets in table_of(wheel).items():
            tables.setdefault(model_type, []).append((version, targets))
        singles["task_types"].append((version, enum_values(wheel, "TaskType")))
        singles["experts"].append((version, experts_of(wheel)))

    def lifetime(history: list[tuple[str, object]]) -> dict[str, object]:
        present = [version for version, _ in history]
        first, last = versions.index(present[0]), versions.index(present[-1])
        if present != versions[first : last + 1]:
            raise SystemExit(f"{history[0]} came back after it was gone")
        removed = versions[last + 1] if last + 1 < len(versions) else None
        return {"since": present[0], "removed": removed, "changes": changes(history)}

    inits = [(version, literals(spec["type"])) for version, spec in fields["init_lora_weights"]]
    inits = [
        (
            v,
            values
            + [
                n
                for n, since in UNDOCUMENTED_INITS.items()
                if versions.index(v) >= versions.index(since)
            ],
        )
        for v, values in inits
    ]
    return {
        "generated_by": "python tools/peft_facts.py",
        "versions": versions,
        "fields": {name: lifetime(history) for name, history in sorted(fields.items())},
        "subconfigs": {name: lifetime(history) for name, history in sorted(subconfigs.items())},
        "default_targets": {name: lifetime(h) for name, h in sorted(tables.items())},
        "task_types": changes(singles["task_types"]),
        "init_lora_weights": changes(inits),
        "experts": changes(singles["experts"]),
    }


def main() -> None:
    """Write the file and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--wheels", type=Path, default=Path("build/wheels"), help="folder for the wheels"
    )
    folder = parser.parse_args().wheels
    folder.mkdir(parents=True, exist_ok=True)
    facts = collect(released_versions(), folder)
    before = json.loads(DATA.read_text()) if DATA.exists() else {}
    DATA.write_text(json.dumps(facts, indent=1) + "\n")
    for part, value in facts.items():
        if value != before.get(part):
            print(f"changed: {part}")


if __name__ == "__main__":
    main()
