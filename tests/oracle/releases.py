"""One PEFT release against ``inject``: run by ``tools/oracle_releases.py`` in that release's
environment.

    python -m tests.oracle.releases --cases 160 --seed 1 --json FILE

The same generators as in the first oracle, with the models that the installed transformers has.
Beyond it: the effect of single entries, loading from files, the fields that a release lacks, and
as mutants the rows of ``semantics.HISTORY`` that changed at the release. The first difference of
each feature is shrunk.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed

from lora_lint.facts import known_fields, peft_facts, version_key
from lora_lint.injection import Injection, inject
from lora_lint.injection import config as construction
from lora_lint.injection.semantics import Semantics, semantics
from lora_lint.models import ModuleTree
from lora_lint.models.module_tree import ADAPTABLE
from tests.oracle.cases import FEATURES, release_case
from tests.oracle.effects import effects
from tests.oracle.models import MODELS, fresh, template
from tests.oracle.oracle import Answer, ask_peft, differences
from tests.oracle.regressions import RELEASE_REGRESSIONS
from tests.oracle.witnesses import LOADED, WITNESSES

VERSIONS = {"peft": version("peft"), "transformers": version("transformers")}
# The floors that every feature must reach: cases, and the parts of them that raise, that adapt
# some modules but not all, and that are undecided.
CASES, RAISING, PARTIAL, UNDECIDED = 150, 0.20, 0.30, 0.01
# Cases of a feature whose field the release lacks: PEFT refuses the field.
LACKING = 20
ROUNDS = 12
COLUMNS = (
    "verdict",
    "exception",
    "modules",
    "parameters",
    "saved",
    "tokens",
    "trainable",
    "total",
    "scales",
    "warnings",
    "unmatched",
)
# The field without which a release does not know a feature.
FIELDS = {
    "exclude_modules": "exclude_modules",
    "layers_to_transform": "layers_to_transform",
    "rank/alpha_pattern": "rank_pattern",
    "target_parameters": "target_parameters",
    "trainable_token_indices": "trainable_token_indices",
    "DoRA": "use_dora",
    "layer_replication": "layer_replication",
}
# Floors that can't be reached before a release, and why.
EXCUSED: dict[tuple[str, str], tuple[str, str]] = {
    ("all-linear", "partial"): (
        "0.8.0",
        "all-linear is a pattern that matches nothing; only names beside it in a list do",
    ),
}
# Rows of semantics.HISTORY whose change at a release no case can notice, and why.
UNSEEN: dict[tuple[str, str], str] = {
    ("tied_names", "0.18.0"): "only transformers 5 names tied weights by a dict",
    ("tied_names", "0.18.1"): (
        "only with transformers 5, and a tree does not tell a model's own tied keys from its parts'"
    ),
}


class Case(NamedTuple):
    """A case, PEFT's answer, the prediction, how they differ, and the entries that were tried."""

    feature: str
    model: str
    config: dict[str, Any]
    source: str
    real: Answer
    predicted: Injection
    differ: list[str]
    entries: int = 0


@functools.cache
def models() -> tuple[str, ...]:
    """The small models that the installed transformers can build."""
    names = []
    for name in MODELS:
        try:
            template(name)
        except Exception:  # noqa: BLE001 - the architecture is newer than this transformers
            continue
        names.append(name)
    return tuple(names)


@functools.cache
def tree_of(model: str) -> ModuleTree:
    """A small model's tree, through its JSON."""
    return ModuleTree.from_json(ModuleTree.from_model(template(model)).to_json())


def lacks(feature: str) -> bool:
    """Whether this release does not know a feature."""
    field = FIELDS.get(feature)
    return field is not None and field not in known_fields(VERSIONS["peft"])


def compare(
    feature: str, model: str, config: dict[str, Any], source: str = "kwargs", *, alone: bool = False
) -> Case:
    """Ask PEFT and ``inject``, with ``alone`` about every entry too."""
    real = ask_peft(fresh(model), config, source)
    predicted = inject(tree_of(model), config, **VERSIONS, source=source)
    differ = differences(real, predicted)
    entries = 0
    if alone and not (real.error or differ or source != "kwargs"):
        for field, entry, effect in effects(config, lambda other: ask_peft(fresh(model), other)):
            entries += 1
            if effect == (entry in predicted.unmatched[field]):
                found = "an effect" if effect else "none"
                differ.append(f"unmatched: {field} entry {entry!r} has {found} in peft")
    return Case(feature, model, config, source, real, predicted, differ, entries)


def prepared(feature: str, config: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A generated config as it is tried on this release, and where it comes from."""
    number = sum(map(ord, repr(config)))
    if feature == "anything" and number % 10 == 1:
        return {**config, "rank": 8} if number % 4 else config, "adapter_config"
    # Every tenth case keeps the fields that this release does not know, which it refuses.
    if lacks(feature):
        return {FIELDS[feature]: None, **config}, "kwargs"
    if number % 10 == 0:
        return config, "kwargs"
    return known(config), "kwargs"


def known(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the fields that this release lacks."""
    fields = known_fields(VERSIONS["peft"])
    return {name: value for name, value in config.items() if name in fields}


def run(feature: str, wanted: int, seed: int) -> list[Case]:
    """Generate cases of a feature until there are enough different ones; the first that differs is
    shrunk and stands last.
    """
    if lacks(feature):
        wanted = LACKING
    seen: dict[str, Case] = {}
    for number in range(ROUNDS):
        missing = wanted - len(seen)
        if missing <= 0:
            break
        examples = missing + missing // 5 + 5
        _generate(feature, examples, seed + 1000 * number, wanted, seen)
        if any(_wrong(case) for case in seen.values()):
            shrunk: dict[str, Case] = {}
            try:
                _generate(feature, examples, seed + 1000 * number, wanted, shrunk, stop=True)
            except AssertionError:
                least = [case for case in shrunk.values() if _wrong(case)][-1]
                seen.pop(_key(least.model, least.config, least.source), None)
                seen[""] = least
            break
    return list(seen.values())


def _generate(
    feature: str,
    examples: int,
    seed: int,
    wanted: int,
    seen: dict[str, Case],
    *,
    stop: bool = False,
) -> None:
    @with_seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(release_case(feature, models()))
    def agree(generated: tuple[str, dict[str, Any]]) -> None:
        model, raw = generated
        config, source = prepared(feature, raw)
        key = _key(model, config, source)
        if key not in seen:
            if len(seen) >= wanted and not stop:
                return
            # Trying entries alone takes several runs of PEFT, so every third case has to do.
            alone = stop or sum(map(ord, key)) % 3 == 0
            seen[key] = compare(feature, model, config, source, alone=alone)
        assert not (stop and _wrong(seen[key]))

    agree()


def _key(model: str, config: dict[str, Any], source: str) -> str:
    return repr((model, config, source))


def _wrong(case: Case) -> bool:
    return bool(case.differ) and not case.predicted.undecided


def reaches_a_part(case: Case) -> bool:
    """Whether PEFT adapted some of the model's modules, not all."""
    if case.real.error or not (case.real.modules or case.real.parameters):
        return False
    tree = tree_of(case.model)
    return len(case.real.modules) < sum(n.kind in ADAPTABLE for _, n in tree.named_modules())


def columns(cases: list[Case]) -> dict[str, list[int]]:
    """For each column how many cases agree, and of how many."""
    decided = [case for case in cases if not case.predicted.undecided]
    raising = [case for case in decided if case.real.error and case.predicted.error]
    injected = [case for case in decided if not (case.real.error or case.predicted.error)]
    asked = {"verdict": decided, "exception": raising}
    asked["unmatched"] = [case for case in injected if case.entries]
    result = {}
    for column in COLUMNS:
        members = asked.get(column, injected)
        wrong = sum(any(d.startswith(f"{column}:") for d in case.differ) for case in members)
        result[column] = [len(members) - wrong, len(members)]
    return result


def floors(feature: str, cases: list[Case]) -> dict[str, Any]:
    """What a feature's cases are, and which floors they miss."""
    count = len(cases)
    row = {
        "feature": feature,
        "known": not lacks(feature),
        "cases": count,
        "raising": sum(case.real.error is not None for case in cases),
        "partial": sum(map(reaches_a_part, cases)),
        "undecided": sum(case.predicted.undecided is not None for case in cases),
    }
    if not row["known"]:
        row["missed"] = [] if row["raising"] == count >= LACKING else ["refused"]
        row["excused"] = {}
        return row
    row["missed"] = [
        name
        for name, missed in (
            ("cases", count < CASES),
            ("raising", row["raising"] < RAISING * count),
            # "anything" puts features together, most of which some other feature stops.
            ("partial", feature in FEATURES and row["partial"] < PARTIAL * count),
            ("undecided", row["undecided"] > UNDECIDED * count),
        )
        if missed
    ]
    row["excused"] = {
        floor: why
        for (name, floor), (release, why) in EXCUSED.items()
        if name == feature and version_key(VERSIONS["peft"]) < version_key(release)
    }
    return row


def changed_rows() -> dict[str, Any]:
    """The rows of ``HISTORY`` that changed at this release, with the values before."""
    released = peft_facts()["versions"]
    here = released.index(VERSIONS["peft"])
    if not here:
        return {}
    now, before = semantics(released[here]), semantics(released[here - 1])
    return {
        name: getattr(before, name)
        for name in Semantics._fields
        if getattr(before, name) != getattr(now, name)
    }


def mutants(cases: list[Case]) -> dict[str, bool]:
    """Whether some case notices that a row has its value of the release before."""
    return {
        row: any(_notices(case, row, old) for case in reversed(cases))
        for row, old in changed_rows().items()
    }


def _notices(case: Case, row: str, old: Any) -> bool:
    original = construction.semantics
    construction.semantics = lambda number: original(number)._replace(**{row: old})
    try:
        predicted = inject(tree_of(case.model), case.config, **VERSIONS, source=case.source)
    except Exception:  # noqa: BLE001 - a mixture of releases need not work
        return True
    finally:
        construction.semantics = original
    return bool(differences(case.real, predicted))


def fixed() -> list[Case]:
    """The cases that are the same on every run: witnesses, and what once differed."""
    cases = [
        compare(f"witness of {row}", model, known(config), alone=True)
        for row, members in WITNESSES.items()
        for model, config in members
        if model in models()
    ]
    cases += [compare("witness of loading", *case, "adapter_config") for case in LOADED]
    return cases + [
        compare("regression", model, config, alone=True)
        for release, model, config in RELEASE_REGRESSIONS
        if release == VERSIONS["peft"] and model in models()
    ]


def main() -> None:
    """Run the features; print the counts, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help="of each feature")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--feature", action="append")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    features = options.feature or [*FEATURES, "anything"]
    groups = {feature: run(feature, options.cases, options.seed) for feature in features}
    cases = [case for members in groups.values() for case in members] + fixed()
    differing = [case for case in cases if _wrong(case)]
    report = {
        **VERSIONS,
        "seed": options.seed,
        "models": len(models()),
        "cases": len(cases),
        "raising": sum(case.real.error is not None for case in cases),
        "loaded": sum(case.source != "kwargs" for case in cases),
        "entries": sum(case.entries for case in cases),
        "columns": columns(cases),
        "undecided": dict(
            collections.Counter(c.predicted.undecided for c in cases if c.predicted.undecided)
        ),
        "features": [floors(feature, members) for feature, members in groups.items()],
        "mutants": mutants(cases),
        "unseen": {row: why for (row, peft), why in UNSEEN.items() if peft == VERSIONS["peft"]},
        "differing": [
            {"feature": c.feature, "model": c.model, "config": repr(c.config), "differ": c.differ}
            for c in differing
        ],
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    _print(report)


def _print(report: dict[str, Any]) -> None:
    print(
        f"peft {report['peft']} transformers {report['transformers']}: {report['cases']} cases on "
        f"{report['models']} models, {len(report['differing'])} differ, {report['entries']} "
        f"entries tried alone"
    )
    print("  ", ", ".join(f"{k} {a}/{b}" for k, (a, b) in report["columns"].items()))
    for reason, count in report["undecided"].items():
        print(f"  undecided {count}: {reason}")
    for row in report["features"]:
        if row["missed"]:
            print(f"  floor: {row}")
    alive = [row for row, caught in report["mutants"].items() if not caught]
    print(f"  mutants {len(report['mutants'])}, alive {alive}")
    shown: set[str] = set()
    # The last difference of a feature is the shrunk one.
    for case in reversed(report["differing"]):
        if case["feature"] not in shown:
            shown.add(case["feature"])
            print(f"  {case['feature']}: {case['model']} {case['config']}\n     {case['differ']}")


if __name__ == "__main__":
    main()
