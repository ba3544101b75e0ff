"""One PEFT release against ``inject``: run by ``tools/oracle_releases.py`` in that release's
environment.

    python -m tests.oracle.releases --examples 120 --seed 1 --json FILE

The same generators as in the first oracle, with the models that the installed transformers has.
Every case that differs is kept; the first of each feature is shrunk.
"""

from __future__ import annotations

import argparse
import collections
import functools
import warnings
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed

from lora_lint.facts import known_fields
from lora_lint.injection import Injection, inject
from lora_lint.models import ModuleTree
from lora_lint.models.module_tree import ADAPTABLE
from tests.oracle.cases import FEATURES, case
from tests.oracle.models import MODELS, fresh, template
from tests.oracle.oracle import Answer, ask_peft, differences

VERSIONS = {"peft": version("peft"), "transformers": version("transformers")}


class Case(NamedTuple):
    """A case, PEFT's answer, the prediction and how they differ."""

    feature: str
    model: str
    config: dict[str, Any]
    real: Answer
    predicted: Injection
    differ: list[str]


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


def known(config: dict[str, Any]) -> dict[str, Any]:
    """A config without the fields that this release lacks, unless it is left with nothing else."""
    fields = known_fields(VERSIONS["peft"])
    return {name: value for name, value in config.items() if name in fields}


def compare(feature: str, model: str, config: dict[str, Any]) -> Case:
    """Ask PEFT and ``inject``."""
    real = ask_peft(fresh(model), config)
    predicted = inject(tree_of(model), config, **VERSIONS)
    return Case(feature, model, config, real, predicted, differences(real, predicted))


def run(feature: str, examples: int, seed: int, *, stop: bool) -> list[Case]:
    """Generate cases of a feature; with ``stop`` the first that differs is shrunk."""
    seen: dict[str, Case] = {}

    @with_seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case(feature, models()))
    def agree(generated: tuple[str, dict[str, Any]]) -> None:
        model, config = generated
        # Every tenth case keeps the fields that this release does not know, which it refuses.
        if hash_of(config) % 10:
            config = known(config)
        key = repr((model, config))
        if key not in seen:
            seen[key] = compare(feature, model, config)
        assert not (stop and seen[key].differ and not seen[key].predicted.undecided)

    try:
        agree()
    except AssertionError:
        differing = [c for c in seen.values() if c.differ]
        return differing[-1:]
    return list(seen.values())


def hash_of(config: dict[str, Any]) -> int:
    """A number that only depends on the config."""
    return sum(map(ord, repr(config)))


def reaches_a_part(case_: Case) -> bool:
    """Whether PEFT adapted some of the model's modules, not all."""
    if case_.real.error or not (case_.real.modules or case_.real.parameters):
        return False
    tree = tree_of(case_.model)
    return len(case_.real.modules) < sum(n.kind in ADAPTABLE for _, n in tree.named_modules())


def main() -> None:
    """Run the features and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--feature", action="append")
    parser.add_argument("--json")
    parser.add_argument("--show", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases: list[Case] = []
    for feature in options.feature or [*FEATURES, "anything"]:
        cases += run(feature, options.examples, options.seed, stop=False)
    differing = [c for c in cases if c.differ and not c.predicted.undecided]
    undecided = collections.Counter(c.predicted.undecided for c in cases if c.predicted.undecided)
    print(
        f"peft {VERSIONS['peft']} transformers {VERSIONS['transformers']}: {len(cases)} cases on "
        f"{len(models())} models, {len(differing)} differ, undecided {sum(undecided.values())}"
    )
    for reason, count in undecided.most_common():
        print(f"  undecided {count}: {reason}")
    groups: dict[str, list[Case]] = {}
    for case_ in differing:
        groups.setdefault(f"{case_.feature}: {case_.differ[0][:110]}", []).append(case_)
    for key, members in sorted(groups.items(), key=lambda item: -len(item[1]))[: options.show]:
        least = min(members, key=lambda c: len(repr(c.config)))
        print(f"  {len(members)}x {key}\n     {least.model} {least.config}\n     {least.differ}")


if __name__ == "__main__":
    main()
