"""The closed form of memory against traced steps, setting by setting.

    python tools/memory_form.py trace development|holdout     # traces what is not traced yet
    python tools/memory_form.py compare development|holdout   # prints the table of a set

Traces are kept in ``build/memory-form/traces.jsonl``, one a line, under a digest of the request: an
interrupted run goes on where it was, and a second comparison traces nothing. Needs torch,
transformers and peft.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memory_settings import Setting, development, holdout

from lora_lint.models import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE = Path(__file__).resolve().parent.parent / "build" / "memory-form" / "traces.jsonl"
SETS = {"development": development, "holdout": holdout}


def digest(request: Any) -> str:
    """A name for a request."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]


def traces() -> dict[str, dict[str, Any]]:
    """What was traced so far, by digest."""
    if not CACHE.is_file():
        return {}
    lines = map(json.loads, CACHE.read_text().splitlines())
    return {line["digest"]: line for line in lines}


def trace_all(settings: list[Setting]) -> None:
    """Trace the settings that were not traced yet."""
    warnings.filterwarnings("ignore")
    from lora_lint.memory.tracer import quantized

    quantized.stand_in()
    from lora_lint.memory.tracer.depth import trace_deep
    from lora_lint.memory.tracer.step import Request

    done = traces()
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with CACHE.open("a") as file:
        for setting in settings:
            key = digest(setting.request)
            if key in done and "error" not in done[key]:
                continue
            start = time.monotonic()
            line: dict[str, Any] = {"digest": key, "name": setting.name}
            try:
                traced = trace_deep(Request(**setting.request))
                line |= {**traced._asdict(), "site": traced.site, "peak": traced.peak}
            except Exception as exc:  # noqa: BLE001 - a class of transformers may raise anything
                line["error"] = f"{type(exc).__name__}: {exc}"[:300]
            line["seconds"] = round(time.monotonic() - start, 1)
            file.write(json.dumps(line) + "\n")
            file.flush()
            shown = line.get("error") or f"{line['peak'] / 2**30:.3f} GiB, {line['site']}"
            print(f"{setting.name:24} {line['seconds']:6.1f} s  {shown}", flush=True)


def tree_of(request: Mapping[str, Any]) -> ModuleTree:
    """The module tree of a request's model, kept beside the traces."""
    name = digest([request["config"], request["cls"], request["dtype"]])
    file = CACHE.parent / f"tree-{name}.json"
    if not file.is_file():
        from lora_lint.memory.tracer.step import Request, _build

        bare = Request(request["config"], request["cls"], {}, dtype=request["dtype"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(ModuleTree.from_model(_build(bare, None)).to_json())
    return ModuleTree.from_json(file.read_text())


def estimated(request: Mapping[str, Any]) -> tuple[float, str] | str:
    """The closed form's peak of a request and its site, or why there is none."""
    from lora_lint.facts import newest_peft
    from lora_lint.injection import inject
    from lora_lint.memory.estimate import whole_step
    from lora_lint.memory.regime import Run

    tree = tree_of(request)
    run = Run(
        batch=request["batch"],
        length=request["length"],
        weight_bytes=4 if request["dtype"] == "float32" else 2,
        quantized=request["quantization"],
        double_quant=request["double_quant"],
        prepared=request["prepared"],
        autocast=request["autocast"],
        adapter_bytes=4 if request["adapter_dtype"] == "float32" else 2,
        dropout=bool(request["lora"].get("lora_dropout")),
        dora=bool(request["lora"].get("use_dora")),
        checkpointing=request["checkpointing"] is not None,
        attention=request["attention"] or "sdpa",
        masked=not request["uniform"],
        fused_loss=request["fused_loss"],
        reentrant=request["checkpointing"] == "reentrant",
    )
    injection = inject(tree, request["lora"], peft=newest_peft())
    return whole_step(
        tree,
        request["lora"],
        injection,
        run,
        accumulates=request["accumulates"],
        outputs_kept=request["outputs_kept"],
    )


class Row(NamedTuple):
    """One setting: traced and estimated bytes."""

    setting: Setting
    traced: float
    form: float
    site: str
    where: str

    @property
    def error(self) -> float:
        """Relative; negative where the form is too low."""
        return self.form / self.traced - 1


def compare(settings: list[Setting], *, verbose: bool) -> None:
    """Print the table of a set."""
    done = traces()
    rows, refused, left = [], [], []
    for setting in settings:
        line = done.get(digest(setting.request))
        if line is None or "error" in line:
            left.append(f"{setting.name}: {line['error'] if line else 'not traced'}")
            continue
        try:
            answer = estimated(setting.request)
        except Exception as exc:
            if verbose:
                raise
            answer = f"{type(exc).__name__}: {exc}"
        if isinstance(answer, str):
            refused.append(f"{setting.name}: {answer}")
            continue
        rows.append(Row(setting, line["peak"], answer[0], answer[1], line["site"]))
    for row in rows:
        if verbose or abs(row.error) > 0.015:
            print(
                f"{row.setting.name:22} {row.error:+7.2%} traced {row.traced / 2**30:8.3f}"
                f" form {row.form / 2**30:8.3f} {row.site:18} | {row.where}"
            )
    for line in (*refused, *left):
        print("--", line)
    if rows:
        errors = [row.error for row in rows]
        print(
            f"{len(rows)} settings,"
            f" {len({row.setting.architecture for row in rows})} architectures: mean"
            f" {sum(map(abs, errors)) / len(rows):.2%}, worst {max(errors, key=abs):+.2%}, bias"
            f" {sum(errors) / len(rows):+.2%}, lowest {min(errors):+.2%}; not described"
            f" {len(refused)}, not traced {len(left)}"
        )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("trace", "compare"))
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--only", default="", help="settings whose names start with this")
    parser.add_argument("--verbose", action="store_true")
    chosen = parser.parse_args()
    settings = [s for s in SETS[chosen.set]() if s.name.startswith(chosen.only)]
    if chosen.command == "trace":
        trace_all(settings)
    else:
        compare(settings, verbose=chosen.verbose)


if __name__ == "__main__":
    sys.exit(main())
