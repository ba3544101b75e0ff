"""The shipped catalogue: whole, consistent, and the same as what transformers builds."""

import json
import re

import pytest
import torch
import transformers

from lora_lint.models import ModuleTree, catalogue, packed
from lora_lint.models.catalogue import MODELS

INDEX = json.loads((MODELS / "index.json").read_text(encoding="utf-8"))
EVIDENCE = json.loads(packed.read("evidence.json"))


def test_every_tree_is_referenced_and_every_reference_is_there():
    referenced = {
        tree for entry in catalogue.models() for tree in (entry.tree, *entry.others.values())
    }
    assert referenced == {path.name.partition(".json")[0] for path in (MODELS / "trees").iterdir()}
    sized = {tree for cls in catalogue._read("dimensions.json").values() for tree in cls}
    assert sized <= referenced
    for model_type, classes in catalogue._read("classes.json").items():
        known = catalogue.architecture(model_type)
        assert known is not None
        assert set(classes) <= set(known.classes)


def test_every_model_has_its_evidence():
    assert set(INDEX) == set(EVIDENCE)
    for entry in catalogue.models():
        evidence = EVIDENCE[entry.id]
        assert evidence["grade"] == entry.grade
        assert evidence["because"]
        assert evidence["config"]


def test_sized_trees_have_the_recorded_parameter_count():
    trees = {entry.tree: entry for entry in catalogue.models() if entry.grade != "named"}
    assert len(trees) > 60
    for entry in trees.values():
        tree = entry.load()
        assert tree.parameter_count() == EVIDENCE[entry.id]["parameters"], entry.id
        assert tree.cls == entry.cls


def test_exact_means_that_the_published_count_was_met():
    for name, evidence in EVIDENCE.items():
        if evidence["grade"] == "exact" and "counted" not in evidence:
            assert evidence["published"] == evidence["parameters"], name


def test_a_model_without_a_second_source_has_no_sizes():
    named = [entry for entry in catalogue.models() if entry.grade == "named"]
    assert named
    for entry in named:
        tree = entry.load()
        assert not tree.sized
        for _, node in tree.named_modules():
            assert not any(any(shape) for shape in node.parameters.values())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("openai-community/gpt2", 124_439_808),
        ("facebook/opt-125m", 125_239_296),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("google/gemma-2-9b-it", 9_241_705_984),
        ("mistralai/Mixtral-8x7B-v0.1", 46_702_792_704),
        ("openai/whisper-large-v2", 1_543_304_960),
    ],
)
def test_published_totals(name, parameters):
    entry = catalogue.model(name)
    assert entry is not None
    assert entry.load().parameter_count() == parameters


def test_llama_2_13b_in_bf16_weighs_24_gib():
    entry = catalogue.model("meta-llama/Llama-2-13b-hf")
    assert entry is not None
    assert round(entry.load().parameter_count() * 2 / 2**30, 2) == 24.24


QWEN3_8B = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
# Default configs of transformers are those of these models.
REAL = [
    ("openai-community/gpt2", "GPT2LMHeadModel", "GPT2Config", {}),
    ("facebook/opt-125m", "OPTForCausalLM", "OPTConfig", {}),
    ("meta-llama/Llama-2-7b-hf", "LlamaForCausalLM", "LlamaConfig", {}),
    ("google-bert/bert-base-uncased", "BertForMaskedLM", "BertConfig", {}),
    ("mistralai/Mixtral-8x7B-v0.1", "MixtralForCausalLM", "MixtralConfig", {}),
    ("Qwen/Qwen3-8B", "Qwen3ForCausalLM", "Qwen3Config", QWEN3_8B),
]


def build(cls: str, config: object) -> torch.nn.Module:
    with torch.device("meta"):
        return getattr(transformers, cls)._from_config(config)


def comparable(tree: ModuleTree) -> list[object]:
    ties = {frozenset(group) for group in tree.tied}
    modules = [
        (name, node.cls, node.kind, dict(node.parameters), dict(node.facts))
        for name, node in tree.named_modules()
    ]
    own = {"config", "checkpoint_dtype"}
    return [modules, ties, {k: v for k, v in tree.facts.items() if k not in own}]


@pytest.mark.parametrize(("name", "cls", "config", "values"), REAL)
def test_a_tree_is_what_transformers_builds(name, cls, config, values):
    model = build(cls, getattr(transformers, config)(**values))
    entry = catalogue.model(name)
    assert entry is not None
    assert comparable(entry.load()) == comparable(ModuleTree.from_model(model))


TEMPLATES = [
    ("llama", "LlamaForSequenceClassification"),
    ("bert", "BertForTokenClassification"),
    ("t5", "T5ForConditionalGeneration"),
    ("qwen2_moe", "Qwen2MoeForCausalLM"),
    ("vit", "ViTForImageClassification"),
    ("llava", "LlavaForConditionalGeneration"),
]


@pytest.mark.parametrize(("model_type", "cls"), TEMPLATES)
def test_a_template_has_the_names_that_transformers_builds(model_type, cls):
    model = build(cls, transformers.AutoConfig.for_model(model_type))
    known = catalogue.architecture(model_type)
    assert known is not None
    template = known.tree(cls)
    assert template.transformers == transformers.__version__
    assert [name for name, _ in template.named_modules()] == [n for n, _ in model.named_modules()]
    real = ModuleTree.from_model(model)
    for (_, mine), (_, its) in zip(template.named_modules(), real.named_modules(), strict=True):
        assert (mine.cls, mine.kind, list(mine.parameters)) == (
            its.cls,
            its.kind,
            list(its.parameters),
        )
        assert not any(any(shape) for shape in mine.parameters.values())


def test_all_templates_can_be_read():
    assert len(catalogue.model_types()) > 500
    for model_type in catalogue.model_types():
        known = catalogue.architecture(model_type)
        assert known is not None
        for cls in known.classes:
            assert catalogue.model_type_of(cls) is not None
            assert next(known.tree(cls).named_modules())[1].cls == cls
        for switch in known.switches.values():
            assert switch["rule"] in ("none", "zero", "value", "absent")


def test_the_auto_classes_are_those_of_transformers():
    for model_type in ("llama", "bert", "t5", "gemma3", "qwen2_vl", "whisper", "vit"):
        known = catalogue.architecture(model_type)
        assert known is not None
        for auto in ("AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModel"):
            mapping = getattr(transformers, auto)._model_mapping._model_mapping
            task = auto.removeprefix("AutoModel").removeprefix("For")
            assert known.class_for(task) == mapping.get(model_type)


def test_the_data_is_small():
    total = sum(path.stat().st_size for path in MODELS.parent.rglob("*") if path.is_file())
    assert total < 2_000_000
    largest = max((MODELS / "architectures").iterdir(), key=lambda path: path.stat().st_size)
    assert largest.stat().st_size < 30_000


def test_file_names_suit_every_file_system():
    paths = [path for path in MODELS.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"[\w.-]+", path.name) for path in paths)
    names = [str(path).lower() for path in paths]
    assert len(names) == len(set(names))
