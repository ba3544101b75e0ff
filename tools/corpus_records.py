"""Rebuilds files from the extracted records of a corpus, and lowers what they hold.

    python tools/corpus_records.py DIR [--list]

Records are ``*.calls.json`` (the keyword arguments of calls in Python files) and ``*.opts.json``
(the options and variables of shell scripts). Each becomes a Python file or a script again; a table
says per folder how many gave runs, and how many of those are lowered. A fault ends the command.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from typing import Any

from lora_lint import engine
from lora_lint.dialects import LoraKwargs
from lora_lint.settings import Settings

PROGRAMS = {
    "ms_swift_sh": "swift sft",
    "llamafactory_sh": "llamafactory-cli train",
    "verl_sh": "python3 -m verl.trainer.main_ppo",
    "cli_sh": "python train.py",
}
XTUNER = """\
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from xtuner.model import SupervisedFinetune

pretrained_model_name_or_path = {model!r}
"""
XTUNER_MODEL = """\
model = dict(
    type=SupervisedFinetune,
    llm=dict(type=AutoModelForCausalLM.from_pretrained,
             pretrained_model_name_or_path=pretrained_model_name_or_path),
    lora=dict({words}))
"""
PLAIN = """\
import peft
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from unsloth import FastLanguageModel

model = AutoModelForCausalLM.from_pretrained({model!r})
"""


def expression(value: Any) -> str:
    """A keyword's value as it stood in the source."""
    if isinstance(value, dict) and set(value) == {"expr"}:
        return str(value["expr"])
    return repr(value)


def program(record: dict[str, Any]) -> str:
    """A Python file with a record's calls."""
    lines = []
    calls = record["calls"]
    model = next((name for call in calls for name in call["model_names"]), "acme/model")
    for number, call in enumerate(calls):
        words = ", ".join(
            (
                expression(v)
                if k == "*"
                else f"{k}{expression(v)}"
                if k == "**"
                else f"{k}={expression(v)}"
            )
            for k, v in call["kwargs"].items()
        )
        if call["call"].startswith("xtuner:"):
            lines.append(XTUNER_MODEL.format(words=words))
        else:
            lines.append(f"config_{number} = {call['call']}({words})")
    head = XTUNER if any(c["call"].startswith("xtuner:") for c in calls) else PLAIN
    return head.format(model=model) + "\n".join(lines) + "\n"


def script(record: dict[str, Any], folder: str, path: Path) -> str:
    """A shell script with a record's variables and options."""
    name = "swift sft" if "swift" in str(path) else PROGRAMS[folder]
    words = [
        f"--{flag.lstrip('-')} {value}".rstrip()
        for flag, value in record["options"]
        if flag.startswith("--") and "]" not in value
    ]
    words += [f"{key}={value}" for key, value in record["hydra"]]
    lines = [f"{key}={value}" for key, value in record["vars"]]
    return "\n".join(lines) + "\n" + " \\\n    ".join([name, *words]) + "\n"


def main() -> None:
    """Rebuild, lint, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    linter = engine.Linter(Settings(isolated=True))
    rows: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in sorted(given.folder.rglob("*.json")):
        folder = path.relative_to(given.folder).parts[0]
        calls = path.name.endswith(".calls.json")
        if not calls and not path.name.endswith(".opts.json"):
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        text = program(record) if calls else script(record, folder, path)
        result = linter.lint("record.py" if calls else "record.sh", text)
        row = rows[folder]
        row["records"] += 1
        row["with runs"] += bool(result.subjects)
        row["runs"] += len(result.subjects)
        row["lowered"] += sum(isinstance(s.lowered, LoraKwargs) for s in result.subjects)
        row["errors"] += sum(d.severity == "error" for d in result.diagnostics)
        if given.list and (not result.subjects or result.diagnostics):
            codes = " ".join(sorted({d.code for d in result.diagnostics}))
            print(f"{path.relative_to(given.folder)}: {len(result.subjects)} runs {codes}")
    columns = ("records", "with runs", "runs", "lowered", "errors")
    print(f"{'folder':<18}" + "".join(f"{column:>11}" for column in columns))
    for folder, row in sorted(rows.items()):
        print(f"{folder:<18}" + "".join(f"{row[column]:>11}" for column in columns))


if __name__ == "__main__":
    main()
