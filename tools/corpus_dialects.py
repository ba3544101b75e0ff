"""In which dialect the files of a corpus are read, and which hold no run.

    python tools/corpus_dialects.py DIR [--list]

DIR has a folder per framework. A table is printed: files, those with a recipe in the folder's
dialect, in another, without one. ``--list`` names the latter two.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path

from lora_lint import documents, engine
from lora_lint.settings import Settings

# A folder's dialects, where its name is not one.
DIALECTS = {
    "custom_yaml": ("home_made", "peft", "ms_swift_ray", "llama_factory_v1", "verl"),
    "llamafactory": ("llama_factory", "llama_factory_v1"),
    "mlx": ("mlx_lm",),
    "peft_adapter": ("peft",),
    "axolotl": ("axolotl",),
}
SUFFIXES = (".yaml", ".yml", ".json")


def main() -> None:
    """Read every file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    linter = engine.Linter(Settings(isolated=True))
    rows: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in sorted(given.folder.rglob("*")):
        if path.suffix not in SUFFIXES or path.name.endswith(".calls.json"):
            continue
        name = path.relative_to(given.folder).parts[0]
        if name.endswith("_sh") or path.name == "index.jsonl":
            continue
        text, _ = documents.decode(path.read_bytes())
        found = {subject.recipe.dialect for subject in linter.lint(str(path), text).subjects}
        right = found & set(DIALECTS.get(name, (name,)))
        kind = "right" if right else "other" if found else "none"
        rows[name][kind] += 1
        if given.list and not right:
            print(f"{kind:<6} {path.relative_to(given.folder)} {', '.join(sorted(found))}")
    total: collections.Counter[str] = collections.Counter()
    print(f"{'folder':<18} files  right  other   none")
    for name, row in sorted(rows.items()):
        total += row
        print(
            f"{name:<18} {row.total():>5}  {row['right']:>5}  {row['other']:>5}  {row['none']:>5}"
        )
    share = 100 * total["right"] / max(1, total.total())
    print(
        f"{'all':<18} {total.total():>5}  {total['right']:>5}  {total['other']:>5}  "
        f"{total['none']:>5}  {share:.1f} %"
    )


if __name__ == "__main__":
    main()
