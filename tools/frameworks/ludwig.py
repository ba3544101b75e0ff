"""Ludwig: the adapter's schema in ludwig/schema/llms (marshmallow), and its names of models."""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

from frameworks.common import Source, class_keys, facts

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "0.11.0"


class Archive:
    """A release that is only published as a source archive, read like a wheel."""

    def __init__(self, path: Path) -> None:
        self.version = VERSION
        with tarfile.open(path) as archive:
            members = {m.name.partition("/")[2]: m for m in archive.getmembers() if m.isfile()}
            self.texts = {
                name: archive.extractfile(member).read()  # type: ignore[union-attr]
                for name, member in members.items()
                if name.startswith("ludwig/schema/llms/")
            }

    def names(self, pattern: str) -> list[str]:
        """The modules; there are none but those of the pattern."""
        return [name for name in self.texts if name.endswith(".py") and pattern]

    def tree(self, name: str) -> ast.Module:
        """A module of the archive."""
        return ast.parse(self.texts[name])


def _options(source: Source, name: str) -> dict[str, list[Any]]:
    """The values that fields declared by ``StringOptions`` take."""
    found = {}
    for node in source.lineage(name):
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.value, ast.Call):
                words = {word.arg: word.value for word in item.value.keywords}
                if "options" in words and isinstance(item.target, ast.Name):
                    found[item.target.id] = ast.literal_eval(words["options"])
    return found


def read(wheels: Path) -> dict[str, Any]:
    """The keys of the section ``adapter`` for LoRA, and the presets of ``base_model``."""
    folder = wheels / "ludwig"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ludwig-{VERSION}.tar.gz"
    if not path.exists():
        fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*fetch, "-d", str(folder), f"ludwig=={VERSION}"], check=True)
    archive: Any = Archive(path)
    source = Source.of(archive, "py")
    keys = class_keys(source, "LoraConfig")
    for name, values in _options(source, "LoraConfig").items():
        keys[name]["choices"] = values
    keys["type"] = {"type": ["string"]}
    keys["init_lora_weights"] = {}  # the repository has it, the last release not yet
    table: dict[str, Any] = {name: {"type": ["object"]} for name in ("trainer", "preprocessing")}
    table["adapter"] = {"type": ["object", "string", "null"], "keys": keys}
    table |= {"base_model": {"type": ["string"]}, "trust_remote_code": {}}
    presets = ast.literal_eval(source.constants["MODEL_PRESETS"])
    return facts([archive], table, open=True, presets=presets)
