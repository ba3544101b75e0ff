"""The options of a command as the mapping that the program's parser makes of them.

``parsed`` does what HfArgumentParser does (transformers 5.23.0 hf_argparser.py): underscores for
dashes, names shortened as far as they are clear, ``--no_x`` for switches that are on, one or more
words for a list, texts read by their declared types. ``overrides`` does what OmegaConf.from_cli
does (omegaconf 2.3.0): ``key=value``, the value read as YAML. A dialect reads the mapping as it
reads a file; ``restated`` then puts the command's own spelling back into the recipe.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint.dialects.tables import Reader, Table, codec
from lora_lint.documents.tree import Entry, Node
from lora_lint.recipe import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lora_lint.diagnostics import KeyPath
    from lora_lint.documents.document import Document
    from lora_lint.recipe import Recipe, StrayKey

# argparse: a text must spell a value of the declared type, and be one of the declared choices.
ARGPARSE = Reader(texts=True, choices=True, types=True)
# What HfArgumentParser says to an option that it does not know.
UNUSED = "Some specified arguments are not used by the HfArgumentParser"


class Options(NamedTuple):
    """A command's options.

    ``root``: the mapping that the parser makes of them. ``names`` gives the spelling of each key in
    the command where it is another. ``more``: the command receives further words, which can't be
    known. ``file`` is the config file whose values the options override, None without one.
    ``refusal`` is what the program says to an option that it does not know, empty where that is
    what it says to a key of a file.
    """

    root: Node
    names: Mapping[str, str]
    more: bool
    file: str | None = None
    refusal: str = UNUSED


def parsed(command: Node, keys: Table, file: str | None = None) -> Options:
    """A command's options as HfArgumentParser reads them into the keys of a table."""
    from lora_lint.documents.shell import holds_more

    root = Node("mapping", command.span, style="command", note=command.note)
    names: dict[str, str] = {}
    for entry in command.entries:
        if not isinstance(entry.key, str) or entry.key.startswith("~"):
            continue
        name, off = _meant(entry.key.replace("-", "_"), keys)
        if name is None:
            continue
        node = entry.node
        if off:
            node = replace(node, kind="scalar", value=False, items=[], home=None)
        else:
            node = _typed(node, name, keys)
        root.entries.append(Entry(name, entry.key_span, node))
        names.pop(name, None)
        if name != entry.key:
            names[name] = entry.key
    return Options(root, names, holds_more(command), file)


def _meant(name: str, keys: Table) -> tuple[str | None, bool]:
    """The key that an option sets, and whether it turns it off; None where that is not clear."""
    longer = [key for key in keys if key.startswith(name) and key != name]
    new = [key for key in longer if not keys[key].get("old")]
    if name in keys:
        # `--model_name` was another class's own once; today it is short for model_name_or_path
        old = keys[name].get("old") and name != "config" and len(new) == 1
        return (new[0] if old else name), False
    if name.startswith("no_") and keys.get(name[3:], {}).get("default") is True:
        return name[3:], True
    if not longer:
        return name, False
    meant = new or longer
    return (meant[0], False) if len(meant) == 1 else (None, False)


def _typed(node: Node, name: str, keys: Table) -> Node:
    """An option's value as its type makes it; a text that does not spell one stays as it is."""
    types = set(keys.get(name, {}).get("type", ()))
    if node.kind == "scalar" and types & {"array"} and "string" not in types:
        return node if node.style == "flag" else replace(node, kind="sequence", items=[node])
    if node.kind != "scalar" or not isinstance(node.value, str):
        return node
    text = node.value
    if "null" in types and "string" not in types and text.lower() in ("none", "null"):
        return replace(node, value=None)
    if "object" in types and text.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return replace(node, value=json.loads(text))
    return replace(node, value=codec(keys, (name,)).decode(text))


def overrides(document: Document, command: Node, file: str) -> Options:
    """The ``key=value`` words of a command, their values read as OmegaConf reads them."""
    from lora_lint.documents.shell import holds_more, prefix

    root = Node("mapping", command.span, style="command", note=command.note)
    for entry in command.entries:
        if isinstance(entry.key, str) and not prefix(document.text, entry):
            node = entry.node
            if node.kind == "scalar" and isinstance(node.value, str):
                node = replace(node, value=_yaml(node.value))
            root.entries.append(Entry(entry.key, entry.key_span, node))
    return Options(root, {}, holds_more(command), file, "")


def _yaml(text: str) -> Any:
    """A text as OmegaConf's YAML reads it: ``1e-4`` is a number."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def config_file(command: Node, endings: tuple[str, ...]) -> str | None:
    """The config file that stands first behind a program, under a name for people."""
    first = command.get(0)
    if first is None:
        return None
    if first.kind == "unknown":
        return "the config file"
    text = str(first.value)
    return text if text.endswith(endings) else None


def restated(recipe: Recipe, options: Options, fields: Iterable[str]) -> Recipe:
    """A recipe that was read from a command's mapping, in the command's own words.

    ``fields`` are those that a config file may set: what the command does not say is then unknown.
    """
    made = {name: _own(field, options) for name, field in recipe.fields.items()}
    if options.file is not None:
        made = {name: field for name, field in made.items() if field.path is not None}
        unsaid = Field(None, "unknown", None, f"{options.file} may set it")
        made = {**dict.fromkeys((*fields, *recipe.fields), unsaid), **made}
    flags = {entry.key for entry in options.root.entries if entry.node.style == "flag"}
    stray = (s._replace(path=_path(s.path, options), words=options.refusal) for s in recipe.stray)
    misfits = (
        m._replace(path=_path(m.path, options))
        for m in recipe.misfits
        if not (options.more and m.name in flags)  # its value may be among the words to come
    )
    return replace(
        recipe,
        fields=made,
        stray=tuple(s for s in stray if not _is_shortened(s)),
        misfits=tuple(misfits),
        adapter=recipe.adapter or (_open(options) and not _states(options, recipe.switch)),
        private={**recipe.private, "file": options.file},
    )


def _open(options: Options) -> bool:
    """Whether a switch may be set elsewhere than in the command's known options."""
    return options.more or options.file is not None


def _states(options: Options, switch: str | None) -> bool:
    return switch is not None and options.root.get(switch) is not None


def _is_shortened(stray: StrayKey) -> bool:
    name = stray.name.replace("-", "_")
    return any(key.startswith(name) for key in stray.known)


def _own(field: Field, options: Options) -> Field:
    if field.path is not None:
        field = field._replace(path=_path(field.path, options))
    if options.more and field.origin != "unknown":
        field = field._replace(sure=False, detail="no other options than these")
    return field


def _path(path: KeyPath, options: Options) -> KeyPath:
    first = options.names.get(str(path[0]), path[0]) if path else None
    return path if first is None else (first, *path[1:])
