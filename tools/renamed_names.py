"""Writes ``lora_lint/data/models/renamed.json``: module names that differ between releases.

    python tools/renamed_names.py NEW.json OLD.json ...

The arguments are outputs of ``tools/name_patterns.py``, that of the catalogue's release first, then
those of older releases from the newest to the oldest. A class that either side could not build is
``unknown``; so is one that the older release lacks although it has the model type.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from catalogue_templates import last

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "models" / "renamed.json"


def compare(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The classes whose names differ, and those of which that is not known."""
    changed: dict[str, list[dict[str, Any]]] = {}
    unknown = []
    for model_type, classes in new["names"].items():
        if model_type not in old["model_types"]:
            continue
        for cls, names in classes.items():
            before = old["names"].get(model_type, {}).get(cls, "not there")
            if isinstance(names, str) or isinstance(before, str):
                unknown.append(cls)
            elif names != before:
                note(changed.setdefault(model_type, []), cls, set(names), set(before))
    types = sorted(old["model_types"])
    return {"model_types": types, "unknown": sorted(set(unknown)), "changed": changed}


def note(changes: list[dict[str, Any]], cls: str, names: set[str], before: set[str]) -> None:
    """Add a class to the change that it shares with others, or a new one."""
    change: dict[str, Any] = {"gone": last(before - names), "new": last(names - before)}
    both = set(change["gone"]) & set(change["new"])  # the path to it differs
    change = {key: [part for part in parts if part not in both] for key, parts in change.items()}
    if any(re.search(r"experts\.\*", name) for name in before - names):
        change["fused_experts"] = True
    for known in changes:
        if {key: value for key, value in known.items() if key != "classes"} == change:
            known["classes"].append(cls)
            return
    changes.append({"classes": [cls], **change})


def main() -> None:
    """Write the file and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dumps", type=Path, nargs="+")
    new, *olds = (
        json.loads(path.read_text(encoding="utf-8")) for path in parser.parse_args().dumps
    )
    releases = {old["transformers"]: compare(new, old) for old in olds}
    before = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {"releases": {}}
    facts = {"transformers": new["transformers"], "releases": releases}
    compact = json.dumps(facts, separators=(",", ":"))
    DATA.write_text(compact + "\n", encoding="utf-8", newline="\n")
    for version, release in releases.items():
        if release != before["releases"].get(version):
            print(f"changed: {version}")
        print(f"{version}: {len(release['changed'])} types, {len(release['unknown'])} unknown")


if __name__ == "__main__":
    main()
