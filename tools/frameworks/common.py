"""Reads declarations of config keys out of Python sources: dataclasses, pydantic models, argument
parsers and function signatures. Nothing is imported.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Table = dict[str, dict[str, Any]]
_SIMPLE = {
    "int": ["integer"],
    "float": ["number"],
    "str": ["string"],
    "bool": ["boolean"],
    "None": ["null"],
    "NoneType": ["null"],
    "dict": ["object"],
    "Dict": ["object"],
    "Mapping": ["object"],
    "list": ["array"],
    "List": ["array"],
    "Sequence": ["array"],
    "Iterable": ["array"],
    "tuple": ["array"],
    "Tuple": ["array"],
    "set": ["array"],
    "Path": ["string"],
    "PathLike": ["string"],
}
_WRAPPERS = ("Annotated", "ClassVar", "Final", "Required", "NotRequired")
NOTHING = object()


class Release:
    """A framework's wheel."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wheel = zipfile.ZipFile(path)

    @property
    def version(self) -> str:
        """The version in the wheel's name."""
        return self.path.name.split("-")[1]

    @property
    def key(self) -> tuple[int, ...]:
        """The version as numbers."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version))

    def names(self, pattern: str) -> list[str]:
        """The files whose full name a regular expression matches."""
        return [n for n in self.wheel.namelist() if re.fullmatch(pattern, n)]

    def tree(self, name: str) -> ast.Module:
        """A module of the wheel."""
        return ast.parse(self.wheel.read(name))


def releases(folder: Path, package: str, versions: Iterable[str] = ()) -> list[Release]:
    """A package's wheels in a folder, oldest first; versions that are missing are fetched."""
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name.split("-")[1] for path in folder.glob("*.whl")}
    for version in versions:
        if version not in there:
            fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
            subprocess.run([*fetch, f"{package}=={version}"], check=True)
    return sorted((Release(path) for path in folder.glob("*.whl")), key=lambda r: r.key)


class Source(NamedTuple):
    """The classes, enums and constants of some modules, by name."""

    classes: dict[str, ast.ClassDef]
    constants: dict[str, ast.expr]
    files: dict[str, str]

    @classmethod
    def of(cls, release: Release, pattern: str) -> Source:
        """The declarations in the modules whose names a pattern matches."""
        found = cls({}, {}, {})
        for name in release.names(pattern):
            for node in ast.walk(release.tree(name)):
                if isinstance(node, ast.ClassDef):
                    again = sum(key.partition("#")[0] == node.name for key in found.classes)
                    key = f"{node.name}#{again}" if again else node.name
                    found.classes[key] = node
                    found.files[key] = name
                elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                        if isinstance(target, ast.Name):
                            found.constants.setdefault(target.id, node.value)
        return found

    def lineage(self, name: str) -> Iterator[ast.ClassDef]:
        """A class and those it inherits from, as far as they stand in the modules."""
        node = self.classes.get(name)
        if node is None:
            return
        yield node
        for base in node.bases:
            base = base.value if isinstance(base, ast.Subscript) else base
            yield from self.lineage(_last(base))

    def is_enum(self, name: str) -> bool:
        """Whether a class is an enum."""
        return any("Enum" in _last(base) for node in self.lineage(name) for base in node.bases)

    def members(self, name: str) -> list[Any]:
        """The values of an enum."""
        return [
            item.value.value
            for item in self.classes[name].body
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)
        ]


def literal(node: ast.expr | None) -> Any:
    """The value of an expression, ``NOTHING`` where it is none that stands there."""
    if node is None:
        return NOTHING
    try:
        return plain(ast.literal_eval(node))
    except (ValueError, SyntaxError, TypeError):
        return NOTHING


def plain(value: Any) -> Any:
    """A value as JSON has it, ``NOTHING`` for what it has not."""
    if isinstance(value, tuple | set | list):
        items = [plain(item) for item in value]
        return NOTHING if NOTHING in items else items
    if isinstance(value, dict):
        return NOTHING if any(not isinstance(k, str) for k in value) else value
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return NOTHING
    return value if value is None or isinstance(value, str | int | float | bool) else NOTHING


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Constant):
        return str(node.value)
    return node.id if isinstance(node, ast.Name) else ""


def types(annotation: ast.expr | None, source: Source | None = None) -> dict[str, Any]:
    """A table's entry for an annotation: type, choices, items and keys, as far as it says."""
    if annotation is None:
        return {}
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return types(ast.parse(annotation.value, mode="eval").body, source)
    if isinstance(annotation, ast.Constant) and annotation.value is None:
        return {"type": ["null"]}
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _either([types(annotation.left, source), types(annotation.right, source)])
    if isinstance(annotation, ast.Subscript):
        return _subscript(annotation, source)
    name = _last(annotation)
    if name in _SIMPLE:
        return {"type": list(_SIMPLE[name])}
    if source is None:
        return {}
    if name in source.classes:
        return _class(name, source)
    if name in source.constants:
        return types(source.constants[name], source)
    return {}


def _class(name: str, source: Source) -> dict[str, Any]:
    if source.is_enum(name):
        members = source.members(name)
        kinds = {"string" if isinstance(m, str) else "integer" for m in members}
        return {"type": sorted(kinds), "choices": members} if members else {}
    keys = class_keys(source, name)
    return {"type": ["object"], "keys": keys} if keys else {}


def _subscript(annotation: ast.Subscript, source: Source | None) -> dict[str, Any]:
    name = _last(annotation.value)
    inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
    if name == "Optional":
        return _either([types(inner[0], source), {"type": ["null"]}])
    if name == "Union":
        return _either([types(part, source) for part in inner])
    if name in _WRAPPERS:
        return types(inner[0], source)
    if name == "Literal":
        values = [literal(part) for part in inner]
        if NOTHING in values:
            return {}
        kinds = {_kind(value) for value in values}
        return {"type": sorted(kinds), "choices": [v for v in values if v is not None]}
    if name in _SIMPLE:
        made: dict[str, Any] = {"type": list(_SIMPLE[name])}
        if made["type"] == ["array"]:
            entry = types(inner[0], source)
            if entry.get("type") and "choices" not in entry and "keys" not in entry:
                made["items"] = entry["type"]
        return made
    return {}


def _kind(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string"}
    return kinds.get(type(value), "null")


def _either(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry for a union; it says nothing where one of its parts does not."""
    if any(not part for part in parts):
        return {}
    made: dict[str, Any] = {"type": list(dict.fromkeys(t for p in parts for t in p["type"]))}
    told = [part for part in parts if part["type"] != ["null"]]
    choosing = [part for part in told if "choices" in part]
    if choosing:
        made["choices"] = list(dict.fromkeys(c for part in choosing for c in part["choices"]))
        free = {t for part in told if "choices" not in part for t in part["type"]}
        if free & {_kind(choice) for choice in made["choices"]}:
            del made["choices"]  # one of the parts takes any value of that type
    for word in ("items", "keys"):
        having = [part[word] for part in told if word in part]
        if having and all(part == having[0] for part in having) and len(having) == len(told):
            made[word] = having[0]
    return made


def class_keys(source: Source, name: str) -> Table:
    """The keys that a dataclass or pydantic model declares, its bases' included."""
    table: Table = {}
    for node in source.lineage(name):
        for item in node.body:
            if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
                continue
            key = item.target.id
            if key.startswith("_") or key == "model_config" or _last(item.annotation) == "ClassVar":
                continue
            if isinstance(item.annotation, ast.Subscript) and (
                _last(item.annotation.value) == "ClassVar"
            ):
                continue
            entry = types(item.annotation, source) | _declared(item.value)
            table.setdefault(key, entry)
            for other in aliases(item.value):
                table.setdefault(other, {"alias": key, **entry})
    return table


def _declared(value: ast.expr | None) -> dict[str, Any]:
    """The default and the choices that a field's declaration gives."""
    made: dict[str, Any] = {}
    if not isinstance(value, ast.Call):
        default = literal(value)
        return {} if default is NOTHING else {"default": default}
    words = {word.arg: word.value for word in value.keywords}
    first = value.args[0] if value.args and _last(value.func) == "Field" else None
    default = literal(words.get("default", first))
    factory = words.get("default_factory")
    if isinstance(factory, ast.Lambda):
        default = literal(factory.body)
    elif factory is not None and _last(factory) in ("list", "dict"):
        default = [] if _last(factory) == "list" else {}
    if default is not NOTHING and default is not Ellipsis:
        made["default"] = default
    metadata = words.get("metadata")
    if isinstance(metadata, ast.Dict):
        for key, word in zip(metadata.keys, metadata.values, strict=True):
            choices = literal(word)
            if literal(key) == "choices" and isinstance(choices, list):
                made["choices"] = choices
    return made


def aliases(value: ast.expr | None) -> set[str]:
    """Other spellings that a field takes: ``Field(alias="...")``."""
    if not isinstance(value, ast.Call):
        return set()
    found: set[str] = set()
    for word in value.keywords:
        if word.arg not in ("alias", "validation_alias"):
            continue
        inner = word.value.args if isinstance(word.value, ast.Call) else [word.value]
        found |= {a for part in inner if isinstance(a := literal(part), str)}
    return found


def argument_keys(tree: ast.AST, *, dashes: bool = False) -> Table:
    """The options that ``add_argument`` calls declare, under their destinations' names.

    ``dashes``: under their own spelling, without the leading dashes.
    """
    table: Table = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _last(node.func) != "add_argument":
            continue
        names = [n for part in node.args if isinstance(n := literal(part), str)]
        long = [n for n in names if n.startswith("--")] or [n for n in names if n.startswith("-")]
        if not long:
            continue
        words = {word.arg: word.value for word in node.keywords}
        made = _option(words)
        dest = literal(words.get("dest"))
        for name in long:
            key = name.lstrip("-")
            if not dashes:
                key = dest if isinstance(dest, str) else key.replace("-", "_")
            table.setdefault(key, made)
    return table


def _option(words: dict[str | None, ast.expr]) -> dict[str, Any]:
    action, nargs = literal(words.get("action")), literal(words.get("nargs"))
    default, choices = literal(words.get("default")), literal(words.get("choices"))
    made: dict[str, Any] = types(words.get("type")) if "type" in words else {"type": ["string"]}
    if action in ("store_true", "store_false"):
        made = {"type": ["boolean"]}
        default = action == "store_false" if default is NOTHING else default
    elif action not in (NOTHING, "store", "append"):
        made = {}
    if nargs in ("*", "+") or isinstance(nargs, int):
        made = {"type": ["array"], **({"items": made["type"]} if "type" in made else {})}
    if isinstance(choices, list):
        made["choices"] = choices
    if default is NOTHING and "default" not in words:
        default = None
    if default is not NOTHING:
        made["default"] = default
        if default is None and "type" in made:
            made["type"] = [*made["type"], "null"]
    return made


def signature_keys(node: ast.FunctionDef, source: Source | None = None) -> Table:
    """The parameters of a function, without ``self`` and star arguments."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults))
    pairs = [
        *zip(positional, [*defaults, *given.defaults], strict=True),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    table: Table = {}
    for argument, default in pairs:
        if argument.arg in ("self", "cls"):
            continue
        made = types(argument.annotation, source)
        value = literal(default)
        if value is not NOTHING:
            made = {**made, "default": value}
        table[argument.arg] = made
    return table


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    """The functions at the top of a module, by name."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def merged(tables: Iterable[Table]) -> Table:
    """Several tables as one, where a key may be declared differently: what all of them take."""
    made: Table = {}
    for table in tables:
        for key, entry in table.items():
            there = made.get(key)
            if there is None or there == entry:
                made[key] = entry
                continue
            both = _either([_typed(there), _typed(entry)])
            if both and "default" in there and there["default"] == entry.get("default", NOTHING):
                both["default"] = entry["default"]
            made[key] = both
    return made


def _typed(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k in ("type", "choices", "items", "keys")}


def with_history(newest: Table, older: Iterable[Table]) -> Table:
    """The newest release's table, and the keys that only older ones have."""
    made = dict(newest)
    for table in older:
        for key, entry in table.items():
            there = made.get(key)
            if there is None:
                made[key] = {"old": True}
            elif "keys" in there and "keys" in entry:
                made[key] = {**there, "keys": with_history(there["keys"], [entry["keys"]])}
            elif not there.get("old") and not entry.get("old"):
                # what any release takes is no mistake
                both = _either([_typed(there), _typed(entry)])
                more = {k: v for k, v in there.items() if k in ("default", "alias")}
                made[key] = both | more
    return made


def facts(found: list[Release], keys: Table, **more: Any) -> dict[str, Any]:
    """The facts file of a framework."""
    return {"releases": [release.version for release in found], "keys": keys, **more}
