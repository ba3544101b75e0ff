"""Compiles the front matter of ``rules/*.md`` into ``lora_lint/data/rules.json``.

    python tools/rules_index.py [--check]

With ``--check`` nothing is written; the command fails if the index is stale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
INDEX = ROOT / "lora_lint" / "data" / "rules.json"
FIELDS = ("code", "name", "severity", "family", "needs", "fix", "since", "evidence")


def read_rule(path: Path) -> dict[str, Any]:
    """A rule's front matter, and the first sentence of what it does as its summary."""
    _, front, body = path.read_text(encoding="utf-8").split("---\n", 2)
    meta = yaml.safe_load(front)
    about = body.split("## What it does\n", 1)[1].split("\n## ", 1)[0].strip()
    summary = " ".join(about.split("\n\n", 1)[0].split())
    row = {name: meta[name] for name in FIELDS}
    row["summary"] = summary.split(". ", 1)[0].rstrip(".") + "."
    row["supersedes"] = meta.get("supersedes", [])
    row["fallback"] = meta.get("fallback", False)
    return row


def compile_index() -> str:
    """The index as JSON text."""
    rows = [read_rule(path) for path in sorted((ROOT / "rules").glob("*.md"))]
    index = {"generated_by": "python tools/rules_index.py", "rules": rows}
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write or check the index."""
    text = compile_index()
    if "--check" in sys.argv[1:]:
        if not INDEX.exists() or INDEX.read_text(encoding="utf-8") != text:
            raise SystemExit("lora_lint/data/rules.json is stale: run python tools/rules_index.py")
        return
    INDEX.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
