"""What ``inject`` predicts is what real PEFT does: verdict, exception class, modules and counts.

The quick slice runs in CI; `pytest -m sweep tests/oracle` runs ten times as many cases with other
seeds. Every case that ever differed is kept in ``regressions.py``.
"""

from __future__ import annotations

import collections
import functools
import os
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import seed as with_seed

from lora_lint.injection import Injection, inject
from lora_lint.models import ModuleTree
from lora_lint.models.module_tree import ADAPTABLE
from tests.oracle import mutants, shipped
from tests.oracle.cases import FEATURES, case
from tests.oracle.models import MODELS, fresh, template
from tests.oracle.oracle import Answer, ask_peft, differences
from tests.oracle.regressions import REGRESSIONS

VERSIONS = {"peft": "0.21.2", "transformers": "5.23.0"}
# The floors that every feature must reach.
CASES, RAISING, PARTIAL, UNDECIDED = 150, 0.20, 0.30, 0.01
QUICK, QUICK_SHIPPED = 140, 170
SWEEP = int(os.environ.get("LORA_LINT_SWEEP", "2000"))

torch.set_num_threads(1)


class Case(NamedTuple):
    """A case with PEFT's answer, kept for the mutants."""

    feature: str
    model: str
    config: dict[str, Any]
    real: Answer
    predicted: Injection


RECORD: dict[str, Case] = {}


@functools.cache
def tree_of(model: str) -> ModuleTree:
    """A small model's tree, through its JSON."""
    return ModuleTree.from_json(ModuleTree.from_model(template(model)).to_json())


def compare(feature: str, model: str, config: dict[str, Any]) -> list[str]:
    """Ask PEFT and ``inject`` about a small model, and note the case."""
    key = repr((model, config))
    if key in RECORD:
        return differences(RECORD[key].real, RECORD[key].predicted)
    real = ask_peft(fresh(model), config)
    predicted = inject(tree_of(model), config, **VERSIONS)
    RECORD[key] = Case(feature, model, config, real, predicted)
    return differences(real, predicted)


def compare_shipped(feature: str, model: str, config: dict[str, Any]) -> list[str]:
    """The same for a model of real size and its tree from the catalogue."""
    key = repr((model, config))
    if key in RECORD:
        return differences(RECORD[key].real, RECORD[key].predicted)
    real = shipped.ask(model, config)
    predicted = inject(shipped.tree_of(model), config, **VERSIONS)
    RECORD[key] = Case(feature, model, config, real, predicted)
    return differences(real, predicted)


def run(feature: str, examples: int, number: int, *, catalogue: bool) -> None:
    """Generate cases of a feature; the first that differs is shrunk and shown."""
    models = tuple(shipped.MODELS) if catalogue else tuple(MODELS)
    ask = compare_shipped if catalogue else compare

    @with_seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case(feature, models))
    def agree(generated: tuple[str, dict[str, Any]]) -> None:
        model, config = generated
        assume(not (catalogue and shipped.only_a_real_device_tells(config)))
        found = ask(feature, model, config)
        assert not found, f"{model} {config}: {found}"

    agree()


@pytest.mark.parametrize("feature", [*FEATURES, "anything"])
def test_small_models(feature: str) -> None:
    run(feature, QUICK, 1, catalogue=False)


@pytest.mark.parametrize("feature", [*FEATURES, "anything"])
def test_catalogue_trees(feature: str) -> None:
    run(feature, QUICK_SHIPPED, 2, catalogue=True)


@pytest.mark.parametrize(("model", "config"), REGRESSIONS)
def test_regressions(model: str, config: dict[str, Any]) -> None:
    assert not compare("regression", model, config)


def test_floors() -> None:
    """Enough cases of every feature, raising and partly matching; the counts are printed."""
    if not RECORD:
        pytest.skip("counts the cases of the tests above")
    print(
        f"\n{'feature':<26}{'cases':>7}{'raising':>9}{'partial':>9}"
        f"{'dead entry':>12}{'undecided':>11}"
    )
    short = []
    for feature in FEATURES:
        cases = [c for c in RECORD.values() if c.feature == feature]
        count = len(cases)
        raising = sum(c.real.error is not None for c in cases)
        partial = sum(map(_reaches_a_part, cases))
        dead = sum(not c.real.error and any(c.predicted.unmatched.values()) for c in cases)
        undecided = sum(c.predicted.undecided is not None for c in cases)
        print(f"{feature:<26}{count:>7}{raising:>9}{partial:>9}{dead:>12}{undecided:>11}")
        if count < CASES or raising < RAISING * count or partial < PARTIAL * count:
            short.append(feature)
        if undecided > UNDECIDED * count:
            short.append(f"{feature} (undecided)")
    models = collections.Counter(c.model for c in RECORD.values())
    sized = sum(models[name] for name in shipped.MODELS)
    print(f"{len(RECORD)} cases on {len(models)} models, {sized} of them on catalogue trees")
    assert not short
    assert sized >= len(RECORD) / 2
    assert len(models) >= 14


def _reaches_a_part(case_: Case) -> bool:
    if case_.real.error or not (case_.real.modules or case_.real.parameters):
        return False
    tree = shipped.tree_of(case_.model) if case_.model in shipped.MODELS else tree_of(case_.model)
    return len(case_.real.modules) < sum(n.kind in ADAPTABLE for _, n in tree.named_modules())


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deliberate fault in the prediction does not survive the cases of the quick slice."""
    if not RECORD:
        pytest.skip("uses the cases of the tests above")
    features = mutant(monkeypatch)
    ordered = sorted(RECORD.values(), key=lambda c: c.feature not in features)
    for case_ in ordered:
        if case_.model in shipped.MODELS:
            continue
        predicted = inject(tree_of(case_.model), case_.config, **VERSIONS)
        if differences(case_.real, predicted):
            return
    pytest.fail(f"{mutant.__name__} survived {len(ordered)} cases")


@pytest.mark.sweep
@pytest.mark.parametrize("number", range(3, 6))
@pytest.mark.parametrize("feature", [*FEATURES, "anything"])
def test_sweep(feature: str, number: int) -> None:
    run(feature, SWEEP, number, catalogue=False)
