"""Files of people's own programs: what is read as a LoRA config, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lora_lint import lint_text
from lora_lint.diagnostics import Set
from lora_lint.dialects import dialect, recipes
from lora_lint.dialects.plan import plan
from lora_lint.documents import parse
from lora_lint.fixes import apply_edits

NESTED = """\
model:
  name: Qwen/Qwen2.5-7B
training:
  learning_rate: 0.0002
  lora:
    enabled: true
    rank: 16
    alpha: 32
    dropout: 0.05
    target_modules: [q_proj, v_proj]
"""
FLAT = """\
model_name: Qwen/Qwen2.5-7B
lora_rank: 8
lora_alpha: 8
lora_target_modules: [q_proj]
batch: 4
"""


def one(text: str, path: str = "config.yaml") -> Any:
    (recipe,) = recipes(parse(path, text))
    return recipe


def test_a_section_of_a_program_of_ones_own() -> None:
    recipe = one(NESTED)
    assert recipe.dialect == "home_made"
    assert recipe.path == ("training", "lora")
    values = {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "v_proj"],
        "base_model": "Qwen/Qwen2.5-7B",
        "learning_rate": 0.0002,
    }
    assert {name: recipe.value(name) for name in values} == values
    assert recipe["use_dora"].origin == "unset"


@pytest.mark.parametrize(
    "text",
    [
        FLAT,
        "model:\n  id: m\n  lora: {rank: 8, alpha: 16}\n",
        "lora: {r: 8, alpha: 16, targets: [q_proj]}\n",
        "peft:\n  method: lora\n  lora_r: 8\n  lora_alpha: 16\n  lora_dropout: 0.1\n",
        "train:\n  model:\n    lora_config: {rank: 8, dropout: 0.0, alpha: 16}\n",
        "LoRA: {rank: 4, alpha: 4}\n",
        "_target_: mylib.lora.LoraConfig\nr: 8\nlora_alpha: 16\nlora_dropout: 0.01\n",
    ],
)
def test_usual_shapes(text: str) -> None:
    recipe = one(text)
    assert recipe.dialect == "home_made"
    assert recipe.value("r") in (4, 8)
    assert recipe.value("lora_alpha") in (4, 8, 16)


def test_json_is_read_alike() -> None:
    text = json.dumps({"base_model": "m", "lora": {"rank": 8, "alpha": 16}})
    assert one(text, "config.json").value("lora_alpha") == 16


def test_lora_configs_own_keywords_stay_pefts() -> None:
    assert one("lora: {r: 8, lora_alpha: 16, target_modules: [q_proj]}\n").dialect == "peft"
    hydra = "_target_: peft.LoraConfig\nr: 8\nlora_alpha: 16\ntarget_modules: [q_proj]\n"
    recipe = one(hydra)
    assert recipe.dialect == "peft"
    assert recipe.stray == ()


@pytest.mark.parametrize(
    "text",
    [
        # containers, workflows, interfaces
        "services:\n  lora-trainer:\n    image: lora:latest\n    environment: {LORA_R: 8}\n",
        (
            "on:\n  workflow_dispatch:\n    inputs:\n      lora_r: {type: number, default: 8}\n"
            "      lora_alpha: {type: number, default: 16}\n"
        ),
        (
            "components:\n  schemas:\n    Job:\n      properties:\n        lora_r: {type: number}\n"
            "        lora_alpha: {type: integer}\n"
        ),
        # radio
        "lora:\n  frequency: 868100000\n  spreading_factor: 7\n  bandwidth: 125\n  tx_power: 14\n",
        "lora:\n  region: EU868\n  modem_preset: LONG_FAST\n  hop_limit: 3\n  rank: 1\n",
        # pictures and serving
        "prompt: a cat\nloras:\n- {name: style, weight: 0.8}\nlora: {name: x, strength: 0.7}\n",
        "enable_lora: true\nmax_loras: 4\nmax_lora_rank: 64\nlora_modules: [a=b]\n",
        "lora: {path: adapter.safetensors, alpha: 0.8}\n",
        # notes, other adapters, results
        "description: lora rank 8, alpha 16\ntags: [lora, peft]\n",
        "peft: {peft_type: ADALORA, r: 8, lora_alpha: 16, lora_dropout: 0.1}\n",
        "use_adalora: true\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.1\n",
        "adapter: {type: bottleneck, r: 8, dropout: 0.1}\n",
        "lora_r: {value: 8}\nlora_alpha: {value: 16}\n",
        "lora: {rank: high, alpha: low}\n",
        # frameworks that have readers of their own
        "tuner_type: lora\nlora_rank: 8\nlora_alpha: 32\n",
    ],
)
def test_other_files_that_mention_lora(text: str) -> None:
    assert recipes(parse("config.yaml", text)) == []


def test_only_what_is_surely_meant_is_said() -> None:
    text = 'lora:\n  rank: "8"\n  alpha: 256\n  dropout: 0.1\nmodel: {name: gpt2}\nlr: 1e-4\n'
    report = lint_text(text, "config.yaml")
    assert {d.code: d.severity for d in report.diagnostics} == {"CF009": "warning"}
    report = lint_text(text.replace('"8"', "8"), "config.yaml")
    assert {d.code: d.severity for d in report.diagnostics} == {"SC207": "info"}
    reasons = [missing.reason for missing in report.not_checked]
    assert any("its own affair" in reason for reason in reasons)


def test_targets_are_not_compared_with_a_model() -> None:
    text = NESTED.replace("q_proj", "no_such_module").replace("rank: 16", "rank: 16")
    assert [d.code for d in lint_text(text, "config.yaml").diagnostics] == []


@pytest.mark.parametrize("switch", ["enabled: false", "use_lora: false"])
def test_a_switch_that_is_off_is_no_mistake(switch: str) -> None:
    text = NESTED.replace("enabled: true", switch).replace("alpha: 32", "alpha: 16")
    assert not one(text).adapter
    assert lint_text(text, "config.yaml").diagnostics == ()


@pytest.mark.parametrize(
    ("text", "field", "value", "written"),
    [
        (NESTED, "lora_alpha", 64, "alpha: 64"),
        (NESTED, "r", 4, "rank: 4"),
        (NESTED, "target_modules", ["q_proj", "k_proj"], "[q_proj, k_proj]"),
        (FLAT, "lora_alpha", 16, "lora_alpha: 16"),
        (FLAT, "base_model", "a/b", "model_name: a/b"),
    ],
)
def test_a_field_is_changed_where_it_stands(
    text: str, field: str, value: object, written: str
) -> None:
    document = parse("config.yaml", text)
    (recipe,) = recipes(document)
    edits = plan(document, dialect("home_made"), recipe, Set(field, value))
    changed = apply_edits(text, edits)
    assert written in changed
    (after,) = recipes(parse("config.yaml", changed))
    assert after.value(field) == value
    others = {*recipe.fields, *after.fields} - {field}
    assert all(after.value(name) == recipe.value(name) for name in others)


def test_what_a_template_fills_in_is_unknown() -> None:
    text = NESTED.replace("rank: 16", 'rank: "${RANK}"').replace("q_proj", "'{{ target }}'")
    recipe = one(text)
    assert recipe["r"].origin == "unknown"
    assert recipe["target_modules"].origin == "unknown"
    assert lint_text(text, "config.yaml").diagnostics == ()
    axolotl = (
        "base_model: ${MODEL}\nadapter: ${ADAPTER}\nlora_r: ${R}\nlora_alpha: ${ALPHA}\n"
        "lora_target_modules:\n- ${TARGETS}\ndeepspeed: ${DS}\nfsdp_config: ${FSDP}\n"
        "micro_batch_size: 1\n"
    )
    assert one(axolotl).dialect == "axolotl"
    assert lint_text(axolotl, "config.yaml").diagnostics == ()
