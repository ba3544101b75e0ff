"""From the name of a model to what the catalogue knows: by id, by another name for it, by series.

A copy, a quantized or a tuned release has the module names of the model it is made from. Which
names say so, and which only seem to, stands in ``names.json`` (``tools/model_names.py``).
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.models import catalogue, packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.models.catalogue import Entry


# What uploads are called whose weights are quantized, or expressly not.
_QUANTIZED: Final = re.compile(
    r"-(?P<kind>bnb-[48]bit|bnb-nf4|gptq|awq|hqq|aqlm|exl[23]|gguf|fp8|nvfp4|mxfp4|bf16|fp16"
    r"|quantized\.w\d+a\d+|w\d+a\d+|[2-8]-?bit|int[48])(?=$|[-_.])",
    re.IGNORECASE | re.ASCII,
)


class Known(NamedTuple):
    """What a name leads to: a model of the catalogue; else its class, else its model type alone.

    ``id`` is the name under which that is known; ``tuned`` where the model is not that one but made
    from it. ``remote_code`` is the class of a model that brings its own code, which transformers
    has no class for.
    """

    id: str
    entry: Entry | None = None
    tuned: bool = False
    cls: str | None = None
    model_type: str | None = None
    remote_code: str | None = None


def find(name: str) -> Known | None:
    """What is known of a model, the best first: sizes, then its own names, then a template."""
    entry = catalogue.model(name)
    if entry is not None and entry.grade != "named":
        return Known(entry.id, entry)
    own = _class_of(name)
    named: Known | None = None
    for other in _other_names(name):
        base = _names()["tuned"].get(other)
        entry = catalogue.model(base or other)
        if entry is None or (own is not None and own != entry.cls):
            continue
        if entry.grade != "named":
            return Known(entry.id, entry, tuned=base is not None)
        named = named or Known(entry.id, entry)
    return named or _by_architecture(name)


def templates() -> Iterator[Known]:
    """The models of which a class or model type is known, under their own ids."""
    return (known for known in _tables().values() if known.remote_code is None)


def _by_architecture(name: str) -> Known | None:
    for other in _other_names(name):
        known = _tables().get(other.lower())
        if known is not None:
            return known
    if _different(name):
        return None
    for other in _other_names(name):
        for pattern, model_type in _names()["series"].items():
            if fnmatchcase(other, pattern):
                return Known(other, model_type=model_type)
        for pattern, cls in _names()["remote_series"].items():
            if fnmatchcase(other, pattern):
                return Known(other, remote_code=cls)
    return None


def _class_of(name: str) -> str | None:
    known = _tables().get(name.lower())
    return known.cls if known else None


@lru_cache(maxsize=1)
def _names() -> dict[str, Any]:
    names: dict[str, Any] = json.loads(packed.read("names.json"))
    return names


@lru_cache(maxsize=1)
def _tables() -> dict[str, Known]:
    """Name in lower case, as the hub has it -> its class, model type or remote class."""
    names = _names()
    found: dict[str, Known] = {}
    for model_type, ids in names["model_types"].items():
        found.update((name.lower(), Known(name, model_type=model_type)) for name in ids)
    for cls, ids in names["remote_code"].items():
        found.update((name.lower(), Known(name, remote_code=cls)) for name in ids)
    for cls, ids in names["architectures"].items():
        found.update((name.lower(), Known(name, cls=cls)) for name in ids)
    return found


@lru_cache(maxsize=1)
def _bare_names() -> dict[str, list[str]]:
    """Name without organisation, in lower case -> the ids that have it."""
    found: dict[str, list[str]] = {}
    ids = [entry.id for entry in catalogue.models()]
    ids += [known.id for known in _tables().values()]
    for name in ids:
        found.setdefault(name.rpartition("/")[2].lower(), []).append(name)
    return found


@lru_cache(maxsize=1)
def _same() -> dict[str, str]:
    return {name.lower(): other for name, other in _names()["same"].items()}


def _other_names(name: str) -> Iterator[str]:
    """The name and all others for the same modules, the nearest first."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        if current in seen or len(seen) > 50:
            continue
        seen.add(current)
        yield current
        if not _different(current):
            waiting += _direct_names(current)


def quantization(name: str) -> str | None:
    """How an upload's weights are held, by its name: ``nf4``, ``int8``, a method in lower case,
    ``""`` where the name says that they are not quantized; None where it says nothing.
    """
    found = _QUANTIZED.search(name.rpartition("/")[2])
    if found is None:
        return None
    kind = found["kind"].lower()
    known = {"bnb-4bit": "nf4", "bnb-nf4": "nf4", "bnb-8bit": "int8", "bf16": "", "fp16": ""}
    return known.get(kind, kind)


def _different(name: str) -> bool:
    """Whether the upload is laid out otherwise than the model whose name it carries."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in _names()["different"])


def _direct_names(name: str) -> Iterator[str]:
    names = _names()
    if name.lower() in _same():
        yield _same()[name.lower()]
    organisation, _, bare = name.rpartition("/")
    for other in names["renamed"].get(organisation, ()):
        yield f"{other}/{bare}"
    if organisation == "meta-llama":
        for old, new in names["renamed_parts"]:
            if bare.startswith(old):
                yield f"{organisation}/{new}{bare.removeprefix(old)}"
    suffixes = names["suffixes"] + (
        names["mlx_suffixes"] if organisation == "mlx-community" else []
    )
    for suffix in suffixes:
        stripped = re.sub(suffix + r"$", "", name, flags=re.IGNORECASE)
        if stripped != name:
            yield stripped
            yield from _originals(stripped.rpartition("/")[2])
    if organisation in names["mirrors"]:
        yield from _originals(bare)


def _originals(bare: str) -> list[str]:
    """The models that a mirror's upload of this name can be a copy of, if they are one model."""
    ids = _bare_names().get(bare.lower(), [])
    if not ids:  # the hub's Llama-2-7b-hf is copied as Llama-2-7B
        ids = _bare_names().get(f"{bare.lower()}-hf", [])
    trees = {entry.tree for name in ids if (entry := catalogue.model(name)) is not None}
    return ids if len(trees) <= 1 else []
