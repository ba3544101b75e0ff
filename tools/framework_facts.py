"""Reads what the config files of training frameworks may hold out of their wheels, and writes
``lora_lint/data/frameworks/*.json`` (the format: lora_lint/dialects/tables.py).

    python tools/framework_facts.py --wheels DIR [NAME ...]

DIR keeps a folder of wheels for each framework; those that are missing are fetched with pip. A key
is known if any of the releases declares it, so that a config for an older release is no typo.
Wheels are read as syntax trees, nothing is imported. Each framework has its module in
tools/frameworks.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "frameworks"
HERE = Path(__file__).parent / "frameworks"
NO_FRAMEWORKS = ("__init__", "common", "transformers")


def rendered(facts: dict[str, Any]) -> str:
    """JSON with one key of the table a line: small, and readable in a diff."""
    keys = facts["keys"]
    lines = ",\n".join(f"{json.dumps(key)}:{compact(keys[key])}" for key in sorted(keys))
    rest = compact({key: value for key, value in facts.items() if key != "keys"})
    return f'{rest[:-1]},"keys":{{\n{lines}\n}}}}\n'


def compact(value: Any) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def main() -> None:
    """Read wheels and write the facts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--wheels", type=Path, required=True)
    given = parser.parse_args()
    names = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in NO_FRAMEWORKS)
    DATA.mkdir(parents=True, exist_ok=True)
    for name in given.names or names:
        facts = import_module(f"frameworks.{name}").read(given.wheels)
        facts = {"generated_by": f"tools/framework_facts.py {name}", **facts}
        text = rendered(facts)
        (DATA / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{name}: {len(facts['releases'])} releases, {len(facts['keys'])} keys")


if __name__ == "__main__":
    main()
