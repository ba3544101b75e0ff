"""Sizes by formulas: the real library's tree for any config, or a reason and no tree."""

import json
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lint.models import ModuleTree, catalogue, packed
from lora_lint.models.config_file import ConfigFile
from lora_lint.models.resolve import Resolution, resolve
from lora_lint.models.sizes import ACTIVATION, sized

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32016,
    "hidden_size": 1536,
    "intermediate_size": 4000,
    "num_hidden_layers": 7,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


def tree_of(config: dict, cls: str | None = None) -> ModuleTree | str:
    known = catalogue.architecture(config["model_type"])
    assert known is not None
    return sized(known, cls or config["architectures"][0], ConfigFile(config))


def count(config: dict) -> int:
    tree = tree_of(config)
    assert isinstance(tree, ModuleTree), tree
    return tree.parameter_count()


def by_hand(layers=7, d=1536, ff=4000, vocab=32016, q=1536, kv=512, tied=False) -> int:
    """A Llama's parameters, as its paper describes it."""
    layer = 2 * d * q + 2 * d * kv + 3 * d * ff + 2 * d
    return layers * layer + (1 if tied else 2) * vocab * d + d


# What people have


def test_an_unknown_model_has_its_own_sizes():
    assert count(LLAMA) == by_hand()
    assert count({**LLAMA, "num_hidden_layers": 3}) == by_hand(layers=3)
    assert count({**LLAMA, "tie_word_embeddings": True}) == by_hand(tied=True)
    assert count({**LLAMA, "num_key_value_heads": 12}) == by_hand(kv=1536)


def test_null_and_silence_stand_for_what_transformers_takes():
    silent = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    assert count(silent) == by_hand(kv=1536)
    assert count({**LLAMA, "num_key_value_heads": None}) == by_hand(kv=1536)
    assert count({**LLAMA, "head_dim": None}) == by_hand()
    assert count({**LLAMA, "head_dim": 64}) == by_hand(q=768, kv=256)
    assert count({k: v for k, v in LLAMA.items() if k != "vocab_size"}) == by_hand(vocab=32000)


def test_a_switch_adds_its_parameters():
    biases = 7 * (1536 + 512 + 512 + 1536)
    assert count({**LLAMA, "attention_bias": True}) == by_hand() + biases
    assert count({**LLAMA, "mlp_bias": True}) == by_hand() + 7 * (4000 + 4000 + 1536)


def test_the_tree_is_resolved_from_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "torch_dtype": "bfloat16"}))
    result = resolve("./", folder=tmp_path)
    assert isinstance(result, Resolution)
    assert result.source == "config.json in ./"
    assert result.tree.grade == "given"
    assert result.tree.facts["checkpoint_dtype"] == "bfloat16"
    assert result.tree.parameter_count() == by_hand()
    assert result.tree.get("model.layers.6.mlp.up_proj").parameters["weight"] == (4000, 1536)
    assert result.tree.get("model.layers.7") is None


def test_a_head_has_as_many_rows_as_the_config_has_labels():
    config = {**LLAMA, "architectures": ["LlamaForSequenceClassification"]}
    body = by_hand() - 32016 * 1536
    three = {"id2label": {"0": "a", "1": "b", "2": "c"}}
    assert count({**config, **three}) == body + 3 * 1536
    assert count(config) == body + 2 * 1536  # transformers' default
    # A base model gets its head from the run, which may want any number of labels.
    assert "labels" in tree_of(LLAMA, "LlamaForSequenceClassification")


# What strangers have


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**30},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 2.5},
        {"num_hidden_layers": True},
        {"num_hidden_layers": "32"},
        {"num_hidden_layers": [32]},
        {"num_hidden_layers": {"a": 1}},
        {"hidden_size": None},
        {"hidden_size": 10**400},
        {"hidden_size": float("nan")},
        {"hidden_size": float("inf")},
        {"hidden_size": 1535},
        {"num_attention_heads": 0},
        {"num_attention_heads": 7},
        {"num_key_value_heads": -4},
        {"vocab_size": 2**40},
        {"tie_word_embeddings": "yes"},
        {"attention_bias": 1},
        {"mlp_bias": []},
        {"hidden_act": "made-up"},
        {"hidden_act": 3},
    ],
)
def test_what_was_not_built_has_a_reason_and_no_tree(change):
    reason = tree_of({**LLAMA, **change})
    assert isinstance(reason, str)
    assert 0 < len(reason) < 200


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*LLAMA, "head_dim", "attention_bias", "id2label"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
            lambda v: st.lists(v) | st.dictionaries(st.text(), v),
            max_leaves=5,
        ),
    )
)
def test_no_config_breaks_it(changes):
    changes.pop("model_type", None)
    changes.pop("architectures", None)
    start = time.perf_counter()
    assert isinstance(tree_of({**LLAMA, **changes}), ModuleTree | str)
    assert time.perf_counter() - start < 2


def test_a_large_model_takes_no_torch_and_no_time():
    config = {**LLAMA, "num_hidden_layers": 126, "hidden_size": 16384, "num_attention_heads": 128}
    assert count(config) > 10**10
    start = time.perf_counter()
    tree_of(config)
    assert time.perf_counter() - start < 0.05


# The real library

FAMILIES = [
    ("llama", "LlamaForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("gemma2", "Gemma2ForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt_neox", "GPTNeoXForCausalLM"),
    ("qwen3_moe", "Qwen3MoeForCausalLM"),
    ("mixtral", "MixtralForCausalLM"),
    ("bert", "BertForSequenceClassification"),
    ("roberta", "RobertaForSequenceClassification"),
    ("t5", "T5ForConditionalGeneration"),
]


def as_torch_builds(model_type: str, cls: str, values: dict) -> ModuleTree | None:
    """The real model's tree; None where the library refuses the config."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from huggingface_hub.errors import StrictDataclassError
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    refusals = (ValueError, TypeError, AssertionError, RuntimeError, ZeroDivisionError)
    try:
        config = CONFIG_MAPPING[model_type].from_dict(json.loads(json.dumps(values)))
        with torch.device("meta"):
            return ModuleTree.from_model(getattr(transformers, cls)._from_config(config))
    except (*refusals, StrictDataclassError):
        return None


def same(ours: ModuleTree, real: ModuleTree) -> None:
    assert ours.parameter_count() == real.parameter_count()
    assert (ours.tied, ours.shared) == (real.tied, real.shared)
    for (name, node), (true_name, true) in zip(
        ours.named_modules(), real.named_modules(), strict=True
    ):
        assert (name, node.kind, node.parameters) == (true_name, true.kind, true.parameters)
        assert node.facts == true.facts
        assert node.cls in (true.cls, ACTIVATION)
    for name, value in ours.facts.get("config", {}).items():
        assert real.facts["config"].get(name, value) == value


def names_of(path: Path) -> tuple[str, str]:
    """The model type and the class of a file of formulas."""
    model_type, _, cls = path.name.partition(".json")[0].rpartition(".")
    return model_type, cls


# Numbers that divide one another, as the classes want them, and few layers.
FEW = st.sampled_from([1, 2, 3, 4, 6, 8])
WIDTHS = st.integers(1, 40).map(lambda n: n * 96)


def compare(model_type: str, cls: str, draw: st.DataObject) -> bool:
    """Compare one drawn config; False where the formulas or the library refuse it."""
    data = catalogue.formulas(model_type, cls)
    assert data is not None
    config: dict = {part: {} for part in data["parts"]}
    for path in sorted({path for needs in data["needs"] for path in needs}):
        step, _, name = path.rpartition(".")
        if "." in step:
            continue
        few = any(word in name for word in ("layer", "expert", "head", "interval", "step", "label"))
        kept = st.sampled_from(["number"] * 8 + ["left out", "null"])
        kind = draw.draw(kept, path)
        if kind != "left out" or "layers" in name:
            part = config[step] if step else config
            value = draw.draw(FEW if few and "head_dim" not in name else WIDTHS, path)
            part[name] = None if kind == "null" else value
    for path, state in data["silent"].items():
        if isinstance(state, bool) and "." not in path:
            config[path] = draw.draw(st.booleans(), path)
    config |= {"model_type": model_type, "architectures": [cls]}
    ours = tree_of(config, cls)
    if isinstance(ours, str):
        return False
    real = as_torch_builds(model_type, cls, config)
    if real is None:
        return False
    same(ours, real)
    return True


@pytest.mark.parametrize(("model_type", "cls"), FAMILIES)
def test_the_tree_is_the_real_models(model_type, cls):
    agreed = []

    @settings(
        max_examples=10,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(draw):
        agreed.append(compare(model_type, cls, draw))

    run()
    assert any(agreed)


@pytest.mark.sweep
@pytest.mark.parametrize(
    "path", sorted((packed.MODELS / "formulas").glob("*")), ids=lambda path: path.name[:-7]
)
def test_every_class_is_the_real_models(path):
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(draw):
        compare(*names_of(path), draw)

    run()


def test_formulas_are_of_classes_that_have_a_template():
    paths = list((packed.MODELS / "formulas").glob("*"))
    assert paths
    for path in paths:
        model_type, cls = names_of(path)
        known = catalogue.architecture(model_type)
        assert known is not None
        assert cls in known.classes
        assert catalogue.formulas(model_type, cls) is not None


def test_the_formulas_need_no_torch(tmp_path):
    import subprocess

    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    code = (
        "import sys\nfrom lora_lint.models import resolve\n"
        f"assert resolve('./', folder=__import__('pathlib').Path({str(tmp_path)!r})).tree.sized\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
