"""Reads what each PEFT release knows out of its wheel and writes ``lora_lint/data/peft.json``.

    python tools/peft_facts.py [--wheels DIR] [--show VERSION]

Wheels that DIR lacks are downloaded with pip. Nothing is imported: the wheels are read as syntax
trees. What changed since the file was written is printed, release by release. A construct that is
not understood ends the command with its file and name, so that a new release can't slip through
half read. ``--show`` only prints what a release changed, from the file.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "peft.json"
# Modules that hold the facts, the newest layout first: the 0.6.2 wheel carries stale single files
# beside the packages that win at import.
CONFIG_MODULES = ("peft/tuners/lora/config.py", "peft/tuners/lora.py")
LAYER_MODULES = ("peft/tuners/lora/layer.py", "peft/tuners/lora.py")
MODEL_MODULES = ("peft/tuners/lora/model.py", "peft/tuners/lora.py")
BASE_MODULES = ("peft/config.py", "peft/utils/config.py")
TYPE_MODULES = ("peft/utils/peft_types.py", "peft/utils/config.py")
TABLE_MODULES = ("peft/utils/constants.py", "peft/utils/other.py", "peft/mapping.py")
CONVERSION_MODULE = "peft/utils/transformers_weight_conversion.py"
TABLE = "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING"
# What the config classes may inherit from; anything else could bring fields along.
KNOWN_BASES = {
    "LoraConfig": {"PeftConfig"},
    "PeftConfig": {"PeftConfigMixin"},
    "PeftConfigMixin": {"PushToHubMixin"},
}
KNOWN_FACTORIES = ("dict", "list", "set")
# Kinds of layers, by the classes that LoRA's dispatch asks for.
KIND_OF_CLASS = {
    "torch.nn.Linear": "Linear",
    "Conv1D": "Conv1D",
    "torch.nn.Embedding": "Embedding",
    "torch.nn.Conv2d": "Conv2d",
    "torch.nn.Conv3d": "Conv3d",
    "nn.Conv1d": "Conv1d",
    "torch.nn.MultiheadAttention": "MultiheadAttention",
    "bnb.nn.Linear8bitLt": "bnb 8-bit",
    "bnb.nn.Linear4bit": "bnb 4-bit",
    "AutoGPTQQuantLinear": "GPTQ",
    "megatron_core.tensor_parallel.ColumnParallelLinear": "Megatron",
    "megatron_core.tensor_parallel.RowParallelLinear": "Megatron",
}
# The same for the layers that a function of their own handles.
KIND_OF_DISPATCHER = {
    "dispatch_bnb_8bit": "bnb 8-bit",
    "dispatch_bnb_4bit": "bnb 4-bit",
    "dispatch_gptq": "GPTQ",
    "dispatch_megatron": "Megatron",
    "dispatch_awq": "AWQ",
    "dispatch_aqlm": "AQLM",
    "dispatch_eetq": "EETQ",
    "dispatch_hqq": "HQQ",
    "dispatch_torchao": "torchao",
    "dispatch_inc": "INC",
    "dispatch_transformer_engine": "TransformerEngine",
}
NO_DISPATCHERS = ("dispatch_default", "dynamic_dispatch_func")
# Types that the dispatch asks for and that are no layers of a model.
NO_LAYERS = ("BaseTunerLayer", "LoraLayer", "str", "dict", "key")


# Reading
# ------------------------------------------------------------------------------------


class Source:
    """One module of a wheel: its tree, and its name for messages."""

    def __init__(self, wheel: zipfile.ZipFile, name: str) -> None:
        self.name = f"{Path(str(wheel.filename)).name}: {name}"
        self.tree = ast.parse(wheel.read(name))

    def stop(self, symbol: str, why: str) -> NoReturn:
        """End the command at something that is not understood."""
        raise SystemExit(f"{self.name}: {symbol}: {why}")

    def find(self, symbol: str) -> Any:
        """A class, a function or the value of an assignment at the top; None if there is none."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == symbol:
                return node
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == symbol for target in node.targets
            ):
                return node.value
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", None) == symbol:
                return node.value
        return None

    def class_of(self, symbol: str) -> ast.ClassDef:
        """A class that must be there."""
        node = self.find(symbol)
        if not isinstance(node, ast.ClassDef):
            self.stop(symbol, "no class of this name")
        return node

    def literal(self, node: ast.AST | None, symbol: str) -> Any:
        """The value of an expression that must be a literal."""
        try:
            return ast.literal_eval(node)  # type: ignore[arg-type]
        except ValueError:
            what = f"`{ast.unparse(node)[:80]}`" if isinstance(node, ast.AST) else "nothing"
            self.stop(symbol, f"a literal is expected, not {what}")


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


def source_of(wheel: zipfile.ZipFile, names: tuple[str, ...], symbol: str) -> Source:
    """The first of the modules that exists and defines a symbol."""
    for name in names:
        if name in wheel.namelist():
            source = Source(wheel, name)
            if source.find(symbol) is not None:
                return source
    listed = ", ".join(names)
    raise SystemExit(f"{Path(str(wheel.filename)).name}: {symbol}: in none of {listed}")


def fields_of(source: Source, name: str) -> dict[str, dict[str, object]]:
    """The dataclass fields of a class: annotation and default."""
    node = source.class_of(name)
    odd = {ast.unparse(base) for base in node.bases} - KNOWN_BASES.get(name, set())
    if odd:
        source.stop(name, f"inherits from {', '.join(sorted(odd))}, whose fields are not read")
    fields = {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            symbol = f"{name}.{item.target.id}"
            if "ClassVar" in ast.unparse(item.annotation):
                continue
            fields[item.target.id] = {
                "type": ast.unparse(item.annotation),
                "default": default_of(source, item.value, symbol),
            }
        elif not isinstance(item, ast.FunctionDef | ast.Expr | ast.Pass):
            source.stop(name, f"a {type(item).__name__} among the fields is not understood")
    return fields


def default_of(source: Source, value: ast.expr | None, symbol: str) -> object:
    """A field's default as JSON; a factory is written as ``{"factory": name}``."""
    if value is None:
        return {"required": True}
    if is_field(value):
        given = {k.arg: k.value for k in value.keywords}  # type: ignore[attr-defined]
        if "default" in given:
            return source.literal(given["default"], symbol)
        if "default_factory" in given:
            factory = ast.unparse(given["default_factory"])
            if factory not in KNOWN_FACTORIES and not isinstance(
                source.find(factory), ast.ClassDef
            ):
                source.stop(symbol, f"the default factory `{factory}` is not understood")
            return {"factory": factory}
        return {"init": False} if "init" in given else {"required": True}
    if isinstance(value, ast.Tuple) and len(value.elts) == 1 and is_field(value.elts[0]):
        # BdLoraConfig.nblocks of 0.19: the field is never made, the tuple is the default.
        inner = default_of(source, value.elts[0], symbol)
        return {"code": ast.unparse(value), "tuple of a field with default": inner}
    return source.literal(value, symbol)


def is_field(value: ast.expr) -> bool:
    """Whether an expression is ``dataclasses.field(...)``."""
    return isinstance(value, ast.Call) and ast.unparse(value.func) in (
        "field",
        "dataclasses.field",
    )


def subconfigs_of(source: Source) -> dict[str, dict[str, dict[str, object]]]:
    """The dataclasses beside LoraConfig; each that an annotation names must be among them."""
    found = {
        node.name: fields_of(source, node.name)
        for node in source.tree.body
        if isinstance(node, ast.ClassDef)
        and node.name != "LoraConfig"
        and any("dataclass" in ast.unparse(d) for d in node.decorator_list)
    }
    for item in source.class_of("LoraConfig").body:
        if isinstance(item, ast.AnnAssign):
            named = {n.id for n in ast.walk(item.annotation) if isinstance(n, ast.Name)}
            for name in sorted(n for n in named if n.endswith("Config") and n not in found):
                source.stop(
                    f"LoraConfig.{ast.unparse(item.target)}", f"{name} is defined elsewhere"
                )
    return found


def table_of(wheel: zipfile.ZipFile) -> dict[str, object]:
    """The default target modules per model type, later additions to the table included."""
    source = source_of(wheel, TABLE_MODULES, TABLE)
    table = source.literal(source.find(TABLE), TABLE)
    if not isinstance(table, dict):
        source.stop(TABLE, "no dict")
    for item in source.tree.body:
        if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Subscript):
            if ast.unparse(item.targets[0].value) == TABLE:
                key = source.literal(item.targets[0].slice, TABLE)
                table[key] = source.literal(item.value, f"{TABLE}[{key!r}]")
        elif isinstance(item, ast.AugAssign | ast.Delete | ast.Expr | ast.For) and any(
            isinstance(node, ast.Name) and node.id == TABLE for node in ast.walk(item)
        ):
            source.stop(TABLE, f"`{ast.unparse(item)[:80]}` changes it, how is not understood")
    return table


def enum_values(wheel: zipfile.ZipFile, name: str) -> list[str]:
    """The values of a string enum."""
    source = source_of(wheel, TYPE_MODULES, name)
    items = [i for i in source.class_of(name).body if isinstance(i, ast.Assign)]
    return [source.literal(i.value, f"{name}.{ast.unparse(i.targets[0])}") for i in items]


def inits_of(wheel: zipfile.ZipFile, annotation: str) -> list[str]:
    """The names that init_lora_weights may have: those annotated, then those only the code knows.

    An annotated name that the code never asks for ends the command: it is tested in a way that
    is not understood.
    """
    tree = ast.parse(annotation, mode="eval")
    names = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    source = source_of(wheel, LAYER_MODULES, "LoraLayer")
    known, prefixes = compared(source, "init_lora_weights")
    for name in names:
        if name not in known and not name.startswith(tuple(prefixes)):
            source.stop("init_lora_weights", f"{name!r} is annotated but never compared with")
    names += [name for name in sorted(known) if name not in names]
    return names + [p for p in sorted(prefixes) if not any(n.startswith(p) for n in names)]


def compared(source: Source, variable: str) -> tuple[set[str], set[str]]:
    """The strings that a variable is compared with, and the prefixes it is asked for."""
    whole: set[str] = set()
    prefixes: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare) and variable in ast.unparse(node.left):
            sides = [n for side in node.comparators for n in ast.walk(side)]
            whole |= {
                n.value for n in sides if isinstance(n, ast.Constant) and isinstance(n.value, str)
            }
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "startswith"
            and variable in ast.unparse(node.func.value)
        ):
            prefixes.add(source.literal(node.args[0], variable))
    return whole, prefixes


def experts_of(wheel: zipfile.ZipFile) -> dict[str, object]:
    """How PEFT rewrites the targets of mixtures for transformers 5, empty before 0.19."""
    if CONVERSION_MODULE not in wheel.namelist():
        return {}
    source = Source(wheel, CONVERSION_MODULE)
    names = {"targets": "_MOE_TARGET_MODULE_MAPPING", "fused": "_MOE_FUSED_TARGETS"}
    return {part: source.literal(source.find(name), name) for part, name in names.items()}


def layer_kinds_of(wheel: zipfile.ZipFile) -> set[str]:
    """The kinds of layers that get an adapter.

    Most quantized kinds have a dispatch function of their own; which classes it accepts depends on
    libraries that are installed. The others stand in the default one, before 0.8 in LoraModel.
    """
    model = source_of(wheel, MODEL_MODULES, "LoraModel")
    layer = source_of(wheel, LAYER_MODULES, "LoraLayer")
    functions = [
        node
        for node in model.class_of("LoraModel").body
        if isinstance(node, ast.FunctionDef)
        and node.name in ("_create_new_module", "_find_and_replace")
    ]
    if not functions:
        model.stop("LoraModel", "no function that chooses a layer's class is known")
    kinds = {KIND_OF_DISPATCHER[name] for function in functions for name in asked(model, function)}
    default = layer.find("dispatch_default")
    source, functions = (layer, [default]) if default is not None else (model, functions)
    for function in functions:
        kinds |= {KIND_OF_CLASS[name] for name in tested_classes(source, function)}
        if any(ast.unparse(call.func) == "ParamWrapper" for call in calls(function)):
            kinds.add("Parameter")
    return kinds


def asked(model: Source, function: ast.FunctionDef) -> Iterator[str]:
    """The dispatch functions that LoraModel puts in its list, but for the default one and those
    that users register.
    """
    for call in calls(function):
        if ast.unparse(call.func) not in ("dispatchers.append", "dispatchers.extend"):
            continue
        for node in call.args[0].elts if isinstance(call.args[0], ast.List) else call.args:
            name = ast.unparse(node)
            if name in KIND_OF_DISPATCHER:
                yield name
            elif name not in NO_DISPATCHERS:
                model.stop(
                    f"{function.name}: {name}",
                    "an unknown dispatcher; name its kind of layer in KIND_OF_DISPATCHER",
                )


def tested_classes(source: Source, function: ast.FunctionDef) -> Iterator[str]:
    """The classes of layers that a function asks for with isinstance."""
    for call in calls(function):
        if ast.unparse(call.func) != "isinstance":
            continue
        asked = call.args[1]
        for node in asked.elts if isinstance(asked, ast.Tuple) else [asked]:
            name = ast.unparse(node)
            if name in KIND_OF_CLASS:
                yield name
            elif name not in NO_LAYERS:
                source.stop(
                    f"{function.name}: isinstance {name}",
                    "an unknown kind of layer; name it in KIND_OF_CLASS",
                )


def calls(node: ast.AST) -> Iterator[ast.Call]:
    """All calls inside a node."""
    return (n for n in ast.walk(node) if isinstance(n, ast.Call))


# The file
# ------------------------------------------------------------------------------------

History = dict[str, list[tuple[str, Any]]]


def collect(versions: list[str], folder: Path) -> dict[str, Any]:
    """All facts of all releases."""
    by_name: dict[str, History] = {
        part: {} for part in ("fields", "subconfigs", "default_targets", "layer_kinds")
    }
    singles: History = {"task_types": [], "init_lora_weights": [], "experts": []}
    for version in versions:
        wheel = open_wheel(version, folder)
        config = source_of(wheel, CONFIG_MODULES, "LoraConfig")
        base = source_of(wheel, BASE_MODULES, "PeftConfig")
        fields: dict[str, dict[str, Any]] = {}
        mixin = "PeftConfigMixin"
        for source, name in ((base, mixin), (base, "PeftConfig"), (config, "LoraConfig")):
            if name != mixin or source.find(name):  # since 0.6
                fields |= fields_of(source, name)
        found = {
            "fields": fields,
            "subconfigs": subconfigs_of(config),
            "default_targets": table_of(wheel),
            "layer_kinds": dict.fromkeys(layer_kinds_of(wheel), True),
        }
        for part, values in found.items():
            for name, value in values.items():
                by_name[part].setdefault(name, []).append((version, value))
        singles["task_types"].append((version, enum_values(wheel, "TaskType")))
        singles["experts"].append((version, experts_of(wheel)))
        if "init_lora_weights" in fields:
            inits = inits_of(wheel, fields["init_lora_weights"]["type"])
            singles["init_lora_weights"].append((version, inits))
    return {
        "generated_by": "python tools/peft_facts.py",
        "versions": versions,
        **{
            part: {name: lifetime(name, h, versions) for name, h in sorted(histories.items())}
            for part, histories in by_name.items()
        },
        **{part: changes(history) for part, history in singles.items()},
    }


def lifetime(name: str, history: list[tuple[str, Any]], versions: list[str]) -> dict[str, Any]:
    """The first release of something, the one that removed it, and its changes."""
    present = [version for version, _ in history]
    first, last = versions.index(present[0]), versions.index(present[-1])
    if present != versions[first : last + 1]:
        raise SystemExit(f"{name} came back after it was gone")
    removed = versions[last + 1] if last + 1 < len(versions) else None
    life = {"since": present[0], "removed": removed}
    return life if history[0][1] is True else life | {"changes": changes(history)}


def changes(history: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The releases at which a value differs from the one before."""
    result: list[dict[str, Any]] = []
    for version, value in history:
        if not result or result[-1]["value"] != value:
            result.append({"since": version, "value": value})
    return result


# In words
# ------------------------------------------------------------------------------------

WORDS = {
    "fields": "field",
    "subconfigs": "sub-config",
    "default_targets": "default targets of",
    "layer_kinds": "layer kind",
    "task_types": "task type",
    "init_lora_weights": "init_lora_weights",
    "experts": "experts",
}
PLURALS = {
    "fields": "fields",
    "subconfigs": "sub-configs",
    "default_targets": "default targets",
    "layer_kinds": "layer kinds",
    "task_types": "task types",
    "init_lora_weights": "init_lora_weights values",
    "experts": "tables of experts",
}


def describe(facts: dict[str, Any], version: str) -> dict[str, list[str]]:
    """What a release changed against the one before it, in words, by part of the facts."""
    found: dict[str, list[str]] = {}
    for part in WORDS:
        entries = facts.get(part, {})
        if isinstance(entries, dict):
            lines = [li for name in entries for li in life_lines(part, name, entries, version)]
        else:
            lines = single_lines(part, entries, version)
        found[part] = lines
    return found


def life_lines(part: str, name: str, entries: dict[str, Any], version: str) -> Iterator[str]:
    """What a release did to one named thing."""
    life, word = entries[name], WORDS[part]
    if life["removed"] == version:
        yield f"- {word} {name}"
    steps = life.get("changes", [{"since": life["since"], "value": None}])
    for before, change in zip([None, *steps], steps, strict=False):
        if change["since"] != version:
            continue
        value = change["value"]
        if before is None:
            yield f"+ {word} {name}{detail(part, value)}"
        elif part == "subconfigs":
            yield from table_lines(f"{word} {name}", before["value"], value)
        elif part == "fields":
            yield from field_lines(name, before["value"], value)
        else:
            yield f"~ {word} {name}: {show(before['value'])} -> {show(value)}"


def detail(part: str, value: Any) -> str:
    """What is said of a new thing besides its name."""
    if part == "fields":
        return f" ({value['type']}, {default_text(value['default'])})"
    if part == "subconfigs":
        return f" with {', '.join(value)}"
    return f": {show(value)}" if part == "default_targets" else ""


def field_lines(name: str, before: dict[str, Any], value: dict[str, Any]) -> Iterator[str]:
    """What changed in a field."""
    if before["default"] != value["default"]:
        was, now = default_text(before["default"]), default_text(value["default"])
        yield f"~ field {name}: {was} -> {now}"
    if before["type"] != value["type"]:
        yield f"~ field {name}: type {before['type']} -> {value['type']}"


def table_lines(what: str, before: dict[str, Any], value: dict[str, Any]) -> Iterator[str]:
    """What changed in a sub-config."""
    for name, spec in value.items():
        if name not in before:
            yield f"+ {what}: field {name} ({default_text(spec['default'])})"
        else:
            for line in field_lines(name, before[name], spec):
                yield line.replace("field", f"{what}: field", 1)
    yield from (f"- {what}: field {name}" for name in before if name not in value)


def single_lines(part: str, history: list[dict[str, Any]], version: str) -> list[str]:
    """What a release changed in a list or a table that has no lifetimes."""
    for before, change in zip([None, *history], history, strict=False):
        if change["since"] == version:
            old = before["value"] if before else type(change["value"])()
            new, word = change["value"], WORDS[part]
            if isinstance(new, dict):
                return expert_lines(old, new)
            return [f"+ {word} {v}" for v in new if v not in old] + [
                f"- {word} {v}" for v in old if v not in new
            ]
    return []


def expert_lines(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed in the tables that rewrite the targets of mixtures."""
    lines = []
    for table, entries in new.items():
        was = old.get(table, {})
        for name, value in entries.items():
            if name not in was:
                lines.append(f"+ experts, {table} of {name}: {show(value)}")
            elif was[name] != value:
                lines.append(f"~ experts, {table} of {name}: {show(was[name])} -> {show(value)}")
        lines += [f"- experts, {table} of {name}" for name in was if name not in entries]
    return lines


def default_text(default: Any) -> str:
    """A field's default in words."""
    if not isinstance(default, dict):
        return f"default {default!r}"
    if "factory" in default:
        return f"default {default['factory']}()"
    if "code" in default:
        return f"default {default['code'][:40]}..., which is no field"
    return "not a keyword" if "init" in default else "required"


def show(value: Any) -> str:
    """A value on one line."""
    return json.dumps(value)


def report(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """What a run changed in the file: new releases, and releases that now read otherwise."""
    known = before.get("versions", [])
    for version in after["versions"]:
        found = describe(after, version)
        if version not in known:
            yield f"{version}: new"
            for lines in found.values():
                yield from (f"  {line}" for line in lines)
            same = [PLURALS[part] for part, lines in found.items() if not lines]
            yield f"  unchanged: {', '.join(same)}"
            continue
        was = describe(before, version)
        for part in WORDS:
            gone = [f"  no longer: {line}" for line in was[part] if line not in found[part]]
            new = [f"  now read: {line}" for line in found[part] if line not in was[part]]
            if gone or new:
                yield f"{version}: {PLURALS[part]} read otherwise than before"
                yield from gone + new
    yield from (f"{v}: no longer released" for v in known if v not in after["versions"])


def main() -> None:
    """Write the file and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--wheels", type=Path, default=Path("build/wheels"), help="folder for the wheels"
    )
    parser.add_argument("--show", metavar="VERSION", help="print what a release changed")
    options = parser.parse_args()
    before = json.loads(DATA.read_text()) if DATA.exists() else {}
    if options.show:
        for lines in describe(before, options.show).values():
            print("\n".join(lines), end="\n" if lines else "")
        return
    options.wheels.mkdir(parents=True, exist_ok=True)
    facts = collect(released_versions(), options.wheels)
    DATA.write_text(json.dumps(facts, indent=1) + "\n")
    print("\n".join(report(before, facts)) or "nothing changed")


if __name__ == "__main__":
    main()
