"""PEFT's own test tables, with what every release answers: ``tests/injection/peft_tables.json``.

    python tools/peft_tables.py CONFORMANCE [--environments DIR]

CONFORMANCE lists the cases of PEFT's tests (huggingface/peft, Apache-2.0) as facts: keys, keyword
arguments, layer lists. Which answer is right for which release is not taken from there but
measured: DIR has a Python environment for every release from 0.4.0 on, as DIR/VERSION/bin/python,
and each is asked in turn. Answers that CONFORMANCE brings along are compared with the measured
ones; one that differs ends the command.

Without ``--environments`` the answers of the existing file are kept, and cases that it has no
answers for end the command.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "injection" / "peft_tables.json"
sys.path.insert(0, str(ROOT))

# The model of each row of lora_custom_model_cases, where its class has another name.
CUSTOM = {
    "EmbConv1D": "ModelEmbConv1D",
    "Conv1d": "ModelConv1D",
    "Conv2d": "ModelConv2D",
    "Conv2dGroups": "ModelConv2DGroups",
    "Conv2dGroups2": "ModelConv2DGroups2",
    "Conv3d": "ModelConv3D",
    "MHA": "ModelMha",
    "lora": "MLP",
    "lora+trainable_tokens": "ModelEmbConv1D",
}
# What stands for the checkpoints that the tests download.
CHECKPOINTS = {
    "causal LlamaForCausalLM": "real:llama",
    "base LlamaForCausalLM": "real:llama-bare",
    "causal gpt2": "real:gpt2",
    "seq2seq t5": "real:t5",
    "causal GPTNeoXForCausalLM": "real:gpt_neox",
}
# The model of each single test: by test, by class and test, else by class.
BY_TEST = {
    "test_module_matching_lora": "real:bloom",
    "test_maybe_include_all_linear_does_not_target_classifier_head": "real:llama-seq-cls",
    "test_add_second_adapter_with_all_linear_works": "real:llama",
    "TestTargetedModuleNames.test_realistic_example": "real:bloom",
    "TestTargetedParameterNames.test_realistic_example": "real:llama",
    "TestExcludedModuleNames.test_realistic_example": "real:bloom",
    "test_get_peft_model_applies_find_target_modules": "real:opt",
    "test_targeting_module_and_targeting_param_equivalent": "real:llama",
    "test_target_parameter_result_caching_works": "real:gpt_oss",
    "test_target_parameter_init_does_not_warn_about_unknown_layer_type": "real:gpt_oss",
    "test_target_parameter_on_top_level_module_raises": "parameter on top",
    "test_lora_config_layers_to_transform_validation": "real:bert-seq-cls",
    "test_lora_mica_rank_too_large_raises": "narrow",
    "test_mha_with_separate_qkv_embed_raises": "separate qkv",
    "test_mha_with_dora_raises": "ModelMha",
    "test_lora_linear_with_bias_when_base_layer_has_no_bias_warns": "three kinds without bias",
    "test_lora_conv2d_with_bias_when_base_layer_has_no_bias_warns": "three kinds without bias",
    "test_lora_incompatible_mamba_modules": "falcon_mamba",
    "test_nemotron_h_has_defaults_and_blocks_mamba_modules": "nemotron_h",
    "test_rank_alpha_pattern_override": "twice the same",
    "test_prepare_model_for_compiled_hotswap_conv2d_groups_rank_not_divisible_raises": "odd groups",
    "TestLoraInitialization": "three kinds",
    "TestTargetedModuleNames": "MLP",
    "TestTargetedParameterNames": "MLP",
    "TestExcludedModuleNames": "MLP",
    "TestKasaInitialization": "MLP",
    "TestEvaInitialization": "MLP",
    "TestHotSwapping": "MLP",
    "TestWeightTying": "tied",
    "TestScaling": "attention",
    "TestPeftCustomModel": "MLP",
    "TestMultiRankAdapter": "MLP",
}
# Tests whose model is not one of those that are built here.
SKIPPED = {
    "test_target_parameters_works_with_existing_parametrization": "a parametrized module",
    "test_maybe_include_all_linear_layers_diffusion": "a pipeline of diffusers",
    "test_weight_tying_enc_dec_no_tied_module_targeted_warns": "its kwargs are no literals",
}
# Rows whose values the tests compute; the values stand in the test's source.
COMPUTED = [
    ("mixture", {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1], "r": 2}),
    (
        "mixture",
        {
            "target_modules": ["q_proj", "up_proj"],
            "layers_pattern": "layers",
            "layers_to_transform": [1],
            "r": 2,
        },
    ),
    ("tied, unsaid", {"target_modules": ["linear"], "ensure_weight_tying": True}),
    (
        "tied, unsaid",
        {
            "target_modules": ["linear"],
            "modules_to_save": ["lm_head"],
            "ensure_weight_tying": True,
        },
    ),
]
# What is compared with the prediction.
FIELDS = (
    "error",
    "stage",
    "modules",
    "parameters",
    "saved",
    "tokens",
    "trainable",
    "total",
    "scales",
)
# Targeted in each toy model, wherever it has them.
LAYERS = ("Linear", "Conv1D", "Conv1d", "Conv2d", "Conv3d", "Embedding", "MultiheadAttention")


# The cases
# ------------------------------------------------------------------------------------


def rows_of(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """All cases as rows: a table's name, the question, and answers brought along."""
    rows = [regex_row(case) for case in facts["regex_cases"]]
    rows += pattern_rows(facts["pattern_key_measured"])
    rows += [minimal_row(case) for case in facts["find_minimal_target_modules"]]
    rows += [all_linear_row(case) for case in facts["all_linear_cases"]]
    for case in facts["lora_custom_model_cases"]:
        if literal(case["kwargs"]):
            model = CUSTOM.get(case["model"], case["model"])
            rows.append(question("custom models", case["name"], model, case["kwargs"]))
    rows += layer_rows(facts["custom_model_layers"])
    for part in ("targeting_tests", "config_validation_tests", "pattern_key_cases"):
        for test in facts[part]:
            rows += test_rows(part.replace("_", " "), test)
    for model, config in COMPUTED:
        rows.append(question("targeting tests", "computed", model, config))
    unique = {json.dumps({k: v for k, v in r.items() if k != "name"}): r for r in reversed(rows)}
    return list(unique.values())[::-1]


def question(table: str, name: str, model: str, config: dict[str, Any]) -> dict[str, Any]:
    """A row that asks what get_peft_model does with a config on a model."""
    return {"table": table, "name": name, "model": model, "config": config}


def literal(value: object) -> bool:
    """Whether a row's values are known, not code."""
    return "<expr>" not in json.dumps(value)


def regex_row(case: dict[str, Any]) -> dict[str, Any]:
    """Whether a config's fields match a name."""
    fields = ("target_modules", "layers_to_transform", "layers_pattern")
    config = {name: case[name] for name in fields}
    known = {v: a if isinstance(a, bool) else a.split(":")[0] for v, a in case["measured"].items()}
    return {"table": "regex", "key": case["key"], "config": config, "known": known}


def pattern_rows(measured: dict[str, list[list[Any]]]) -> list[dict[str, Any]]:
    """Whether a rank_pattern's key applies to a name, that is: whether that layer gets its rank."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for version, cases in measured.items():
        for pattern, name, applies in cases:
            config = {"target_modules": [name], "r": 2, "rank_pattern": {pattern: 3}}
            row = question("pattern keys", f"{pattern} on {name}", f"named:{name}", config)
            row = rows.setdefault((pattern, name), row | {"known": {}})
            row["known"][version] = 3 if applies else 2
    return list(rows.values())


def minimal_row(case: dict[str, Any]) -> dict[str, Any]:
    """What a long list of names is condensed to."""
    return {
        "table": "minimal",
        "targets": numbered(case["target_modules"]),
        "others": numbered(case["other"]),
    }


def numbered(names: list[str]) -> list[str]:
    """Names with the layer numbers of the test's source: all of 12 layers, or all but no. 5."""
    result, seen = [], dict.fromkeys(names, 0)
    for name in names:
        count = names.count(name)
        numbers = range(12) if count == 12 else [n for n in range(12) if n != 5]
        if "{i}" in name and count != len(numbers):
            raise SystemExit(f"{name} stands {count} times; which layers that means is not known")
        result.append(
            name.replace("{i}", str(list(numbers)[seen[name]])) if "{i}" in name else name
        )
        seen[name] += 1
    return result


def all_linear_row(case: dict[str, Any]) -> dict[str, Any]:
    """What all-linear stands for on a model."""
    if len(case["case"]) == 2:
        targets, model = case["case"][0], "real:llama"
    else:
        checkpoint, kind, targets, _ = case["case"]
        model = CHECKPOINTS[f"{kind} {checkpoint.rpartition('-')[2]}"]
    return question("all-linear", case["table"], model, {"target_modules": targets})


def layer_rows(models: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """All layers of each toy that have names of their own, and all-linear, plain and with DoRA."""
    rows = []
    for model, layers in models.items():
        names = [
            name for name, code in layers.items() if any(f"{kind}(" in code for kind in LAYERS)
        ]
        for targets in [n for n in (names, "all-linear") if n]:
            config = {"target_modules": targets}
            for extra in ({}, {"use_dora": True}, {"modules_to_save": names[-1:]}):
                rows.append(question("layers", model, model, config | extra))  # noqa: PERF401
    return rows


def test_rows(table: str, test: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of a single test that are literal."""
    configs = [c["kwargs"] for c in test["configs"] if literal(c["kwargs"])]
    if not configs or test["test"] in SKIPPED:
        return []
    names = (f"{test['class']}.{test['test']}", test["test"], test["class"])
    model = next((BY_TEST[name] for name in names if name in BY_TEST), None)
    if model is None:
        raise SystemExit(f"{names[0]}: which model it is about is not known")
    return [question(table, test["test"], model, config) for config in configs]


# In the environment of a release
# ------------------------------------------------------------------------------------


def measure(rows: list[dict[str, Any]]) -> list[Any]:
    """What the installed PEFT answers to each row; None where transformers lacks the model."""
    import warnings

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    ask = {"regex": ask_match, "minimal": ask_minimal}
    return [ask.get(row["table"], ask_inject)(row) for row in rows]


def ask_match(row: dict[str, Any]) -> Any:
    """Whether a name is targeted, or the class of what is raised."""
    from peft import LoraConfig

    try:
        from peft.tuners.tuners_utils import check_target_module_exists as check
    except ImportError:
        from peft.tuners.lora import LoraModel

        # A method in 0.4, that asks nothing of its object; a static one in 0.5.
        static = isinstance(LoraModel.__dict__["_check_target_module_exists"], staticmethod)

        def check(*asked: object) -> object:
            return LoraModel._check_target_module_exists(*(() if static else (None,)), *asked)

    try:
        return bool(check(LoraConfig(**row["config"]), row["key"]))
    except Exception as exc:  # noqa: BLE001 - whatever it raises is the answer
        return type(exc).__name__


def ask_minimal(row: dict[str, Any]) -> Any:
    """What PEFT condenses names to, None where it does not yet."""
    try:
        from peft.tuners.tuners_utils import _find_minimal_target_modules as condense
    except ImportError:
        return None
    try:
        return sorted(condense(row["targets"], row["others"]))
    except Exception as exc:  # noqa: BLE001
        return type(exc).__name__


def ask_inject(row: dict[str, Any]) -> Any:
    """What get_peft_model does: those of ``FIELDS`` that are not empty."""
    from tests.injection.toy_models import build
    from tests.oracle.oracle import ask_peft

    try:
        model = build(row["model"])
    except Exception:
        if row["model"].startswith("real:"):  # the architecture is newer than this transformers
            return None
        raise
    answer = dataclasses.asdict(ask_peft(model, row["config"]))
    found = {name: answer[name] for name in FIELDS if answer[name] not in (None, [], {})}
    # Seen through JSON, so that what is written equals what is read.
    return json.loads(json.dumps(found))


# The file
# ------------------------------------------------------------------------------------


def run_environments(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The answers of each release, one environment after the other, and its transformers."""
    questions = [{k: v for k, v in row.items() if k != "known"} for row in rows]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = Path(scratch, "asked.json"), Path(scratch, "answered.json")
        asked.write_text(json.dumps(questions))
        for version in releases(folder):
            python = folder / version / "bin" / "python"
            command = [str(python), __file__, "--measure", str(asked), str(answered)]
            subprocess.run(command, check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
            found[version] = json.loads(answered.read_text())
            print(f"peft {version}: {len(rows)} rows", flush=True)
    return found


def releases(folder: Path) -> list[str]:
    """The releases to ask, oldest first; each needs its environment."""
    from lora_lint.facts import EXACT_SINCE, peft_facts, version_key

    known = [v for v in peft_facts()["versions"] if version_key(v) >= version_key(EXACT_SINCE)]
    missing = [v for v in known if not (folder / v / "bin" / "python").exists()]
    if missing:
        raise SystemExit(f"no environment for peft {', '.join(missing)} in {folder}")
    return known


def check_known(row: dict[str, Any], answers: dict[str, Any]) -> None:
    """End where the answers that the facts bring along are others."""
    for version, expected in row.get("known", {}).items():
        real = answers.get(version)
        if isinstance(real, dict) and not real.get("error"):
            real = next(iter(real["scales"].values()))[0]
        if real != expected:
            raise SystemExit(f"{row}: peft {version} answered {real}, the facts say {expected}")


def history(answers: dict[str, Any]) -> list[dict[str, Any]]:
    """The releases at which an answer differs from the one before."""
    changes: list[dict[str, Any]] = []
    for version, answer in answers.items():
        if not changes or changes[-1]["answer"] != answer:
            changes.append({"since": version, "answer": answer})
    return changes


def write(facts: dict[str, Any], rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """One row a line, so that a change of one answer is a change of one line."""
    lines = []
    for number, row in enumerate(rows):
        answers = {version: found[version]["answers"][number] for version in found}
        check_known(row, answers)
        kept = {k: v for k, v in row.items() if k != "known"}
        lines.append(json.dumps(kept | {"answers": history(answers)}))
    head = {
        "source": facts["source"],
        "commit": facts["head"],
        "generated_by": "python tools/peft_tables.py",
        "transformers": {version: found[version]["transformers"] for version in found},
    }
    text = json.dumps(head, indent=1)[:-2]
    DATA.write_text(f'{text},\n "rows": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n")


def kept_answers(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The answers of the existing file, as ``run_environments`` gives them."""
    data = json.loads(DATA.read_text())
    old = {
        json.dumps({k: v for k, v in row.items() if k not in ("answers", "name")}): row["answers"]
        for row in data["rows"]
    }
    found: dict[str, Any] = {
        version: {"transformers": transformers, "answers": []}
        for version, transformers in data["transformers"].items()
    }
    for row in rows:
        key = json.dumps({k: v for k, v in row.items() if k not in ("known", "name")})
        if key not in old:
            raise SystemExit(f"not measured yet: {key}; pass --environments")
        changes, current = {c["since"]: c["answer"] for c in old[key]}, None
        for version, answers in found.items():
            current = changes.get(version, current)
            answers["answers"].append(current)
    return found


def main() -> None:
    """Write the file; with ``--measure``, answer for the installed PEFT."""
    if sys.argv[1:2] == ["--measure"]:
        from importlib.metadata import version

        answers = measure(json.loads(Path(sys.argv[2]).read_text()))
        result = {"transformers": version("transformers"), "answers": answers}
        Path(sys.argv[3]).write_text(json.dumps(result))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("conformance", type=Path, help="the cases of PEFT's tests, as JSON")
    parser.add_argument("--environments", type=Path, help="folder with a venv per PEFT release")
    options = parser.parse_args()
    facts = json.loads(options.conformance.read_text())
    rows = rows_of(facts)
    folder = options.environments
    write(facts, rows, run_environments(rows, folder) if folder else kept_answers(rows))
    print(f"{len(rows)} rows in {DATA.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
