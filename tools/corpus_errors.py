"""Lints a folder of real configs and lists every error with the command that reproduces it.

    python tools/corpus_errors.py DIR > docs/corpus-errors.md

``DIR/index.jsonl`` has a line per config: ``file``, and the ``repo``, ``commit`` and ``path`` that
it was read from. Configs as people wrote them count, extracted records do not. The commands ask
real PEFT and know nothing of lora-lint (``tools/reproduce.py``).
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lint import engine
from lora_lint.settings import Options, settle

if TYPE_CHECKING:
    from lora_lint.checks import RecipeSubject

HEAD = """\
# Errors on real configs

{files} public config files as people wrote them, in which lora-lint {version} reads {recipes} runs:
{dialects}. With no option given it prints {errors} errors, in {bad} of the files, all listed
here with the command that shows the same in real PEFT, without lora-lint. Made by
`tools/corpus_errors.py`.

What it prints besides: {others}.
"""
# Rules whose errors are about a framework's own switch: where it says so.
SOURCES = {
    "TR615": "axolotl 0.19.0 loaders/model.py loads an adapter only if `cfg.adapter` is set",
}


def written_files(corpus: Path) -> dict[str, dict[str, Any]]:
    """The configs as people wrote them, by file name."""
    lines = (corpus / "index.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    kinds = ("yaml", "yml", "json")
    return {
        row["file"]: row
        for row in rows
        if row["kind"] in kinds and not row["file"].endswith(".calls.json")
    }


def command(subject: RecipeSubject) -> str:
    """What asks real PEFT the same question."""
    asked = {
        name: value
        for name, value in subject.kwargs.items()
        if name in ("target_modules", "target_parameters", "exclude_modules", "modules_to_save")
        and value
    }
    cls = subject.tree.cls if subject.tree else "CLASS"
    return f"python tools/reproduce.py {cls} {shlex.quote(json.dumps(asked))}"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    corpus = parser.parse_args().corpus
    rows = written_files(corpus)
    linter = engine.Linter(settle(Options(isolated=True)))
    results = [
        (row, engine.lint_bytes(linter, name, (corpus / name).read_bytes(), named=True))
        for name, row in rows.items()
    ]
    counts = Counter(d.code for _, r in results for d in r.diagnostics if d.severity != "error")
    dialects = Counter(s.dialect.title for _, r in results for s in r.subjects)
    wrong = [(row, r) for row, r in results if any(d.severity == "error" for d in r.diagnostics)]
    from lora_lint import __version__

    print(
        HEAD.format(
            files=len(rows),
            recipes=sum(len(r.subjects) for _, r in results),
            version=__version__,
            dialects=", ".join(f"{name} ({count})" for name, count in dialects.most_common()),
            errors=sum(d.severity == "error" for _, r in results for d in r.diagnostics),
            bad=len(wrong),
            others=", ".join(f"{code} {count}" for code, count in counts.most_common()),
        )
    )
    for row, result in wrong:
        print(f"## {row['repo']}: {row['path']}\n\nCommit {row['commit'][:12]}.\n")
        for diagnostic in result.diagnostics:
            if diagnostic.severity == "error":
                line = diagnostic.span.start
                at = result.document.location(line)[0] if result.document else 0
                print(f"- line {at}: {diagnostic.code} {diagnostic.message}")
                if diagnostic.code in SOURCES:
                    print(f"  ({SOURCES[diagnostic.code]})")
        print(f"\n```bash\n{command(result.subjects[0])}\n```\n")


if __name__ == "__main__":
    main()
