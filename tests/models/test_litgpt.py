"""LitGPT's own trees, against litgpt 0.5.13: ``litgpt.lora.GPT`` on the meta device after
``mark_only_lora_as_trainable``, with a rank of 8.
"""

from __future__ import annotations

import pytest

from lora_lint import resolve_model
from lora_lint.checks.subject import Context, RecipeSubject
from lora_lint.dialects import recipes
from lora_lint.documents import parse
from lora_lint.models import ModuleTree
from lora_lint.models.litgpt import litgpt_tree

PARTS = ("query", "key", "value", "projection", "mlp", "head")
SWITCHES = ("query value", "key", "query key value projection", "mlp", " ".join(PARTS))
# Trained parameters with each of the switches, and all parameters beside the adapters'.
COUNTS = {
    # fused: gpt_neox, falcon (one key for all queries), phi3 without and with grouped queries
    "EleutherAI/pythia-160m": (294912, 147456, 589824, 737280, 1735680, 162322944),
    "EleutherAI/pythia-1b": (1048576, 524288, 2097152, 2621440, 5137408, 1011781632),
    "tiiuae/falcon-7b": (3506176, 1179648, 7012352, 11632640, 19201536, 7217189760),
    "microsoft/Phi-3-mini-4k-instruct": (
        *(3145728, 1572864, 6291456, 8650752, 15223296),
        3821079552,
    ),
    "microsoft/phi-4": (5324800, 2048000, 10649600, 22118400, 33611776, 14659507200),
    # not fused: tied, with biases, with images
    "meta-llama/Llama-3.2-1B": (851968, 327680, 1703936, 3932160, 6678528, 1498482688),
    "Qwen/Qwen2.5-0.5B": (540672, 196608, 1081344, 3317760, 5621760, 630167424),
    "microsoft/phi-2": (2621440, 1310720, 5242880, 6553600, 12226560, 2779683840),
    "google/gemma-3-4b-it": (2228224, 974848, 4456448, 10444800, 17018880, 4551187968),
    # mixtures
    "mistralai/Mixtral-8x7B-v0.1": (
        *(3407872, 1310720, 6815744, 114296832, 121401344),
        46702792704,
    ),
    "Qwen/Qwen3-30B-A3B": (3342336, 983040, 6684672, 416071680, 423988224, 30532122624),
}


def subject(model: str, on: str, more: str = "") -> RecipeSubject:
    switches = "".join(f"lora_{part}: {str(part in on.split()).lower()}\n" for part in PARTS)
    text = f"checkpoint_dir: checkpoints/{model}\nprecision: bf16-true\nlora_r: 8\n{switches}{more}"
    document = parse("a.yaml", text)
    (recipe,) = recipes(document)
    return RecipeSubject(document, recipe, Context())


@pytest.mark.parametrize("model", COUNTS)
def test_parameters_are_those_of_litgpts_class(model: str) -> None:
    *trained, whole = COUNTS[model]
    found = [subject(model, on).injection for on in SWITCHES]
    assert [one.trainable for one in found] == trained
    assert [one.total for one in found] == [whole + number for number in trained]


@pytest.mark.parametrize("release", ["4.51.0", "4.57.6"])
@pytest.mark.parametrize(
    "model", ["microsoft/phi-4", "google/gemma-3-4b-it", "mistralai/Mixtral-8x7B-v0.1"]
)
def test_they_are_so_whatever_the_release_of_transformers(model: str, release: str) -> None:
    tree = resolve_model(model, transformers=release)
    assert tree is not None
    assert litgpt_tree(tree).parameter_count() == COUNTS[model][-1]


def test_a_model_of_unknown_sizes_has_the_names() -> None:
    tree = resolve_model("EleutherAI/pythia-70m")
    assert tree is not None
    assert not tree.sized
    names = {name.rpartition(".")[2] for name, _ in litgpt_tree(tree).named_modules()}
    assert {"q_proj", "k_proj", "v_proj", "dense"} <= names
    assert "query_key_value" not in names


def test_equal_layers_stay_one_object() -> None:
    tree = resolve_model("tiiuae/falcon-7b")
    assert tree is not None
    layers = litgpt_tree(tree).get("transformer.h")
    assert layers is not None
    assert len({id(layer) for layer in layers.children.values()}) == 1
    assert ModuleTree.from_json(litgpt_tree(tree).to_json()).parameter_count() == 7217189760


# Bytes that PyTorch would have allocated at the peak, by ``tools/litgpt_step.py`` with litgpt
# 0.5.13, lightning 2.6.6 and torch 2.13: model, parts, batch, length.
TRACED = {
    ("EleutherAI/pythia-1b", " ".join(PARTS), 2, 512): 4_027_367_936,
    ("tiiuae/falcon-7b", "query value projection", 2, 512): 18_993_179_136,
    ("microsoft/Phi-3-mini-4k-instruct", "query value projection", 2, 512): 12_661_209_600,
    ("microsoft/phi-4", "query value mlp", 1, 1024): 42_949_061_120,
    ("google/gemma-3-4b-it", "query value projection", 2, 512): 17_095_226_880,
}


@pytest.mark.parametrize("run", TRACED)
def test_their_memory_is_that_of_a_trace(run: tuple[str, str, int, int]) -> None:
    model, on, batch, length = run
    train = f"train:\n  micro_batch_size: {batch}\n  max_seq_length: {length}\n"
    found = subject(model, on, f"lora_dropout: 0.05\ndevices: 1\n{train}").memory
    assert found is not None
    assert found.tensors == pytest.approx(TRACED[run], rel=2e-3)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [("mistralai/Mixtral-8x7B-v0.1", 46702792704), ("Qwen/Qwen3-30B-A3B", 30532122624)],
)
def test_experts_are_quantized_as_other_maps(model: str, parameters: int) -> None:
    """Two values a byte and an fp32 scale for 64; LitGPT's experts are linear maps (lora.py
    ``LLaMAMoE``), while Hugging Face's are parameters that bitsandbytes leaves as they are.
    """
    run = "quantize: bnb.nf4\ndevices: 1\ntrain:\n  max_seq_length: 512\n"
    found = subject(model, "query value", run).memory
    assert found is not None
    assert 0.56 * parameters < found.bytes["weights"] < 0.6 * parameters


def test_adapted_experts_have_no_figure() -> None:
    found = subject("mistralai/Mixtral-8x7B-v0.1", "mlp", "devices: 1\n").memory
    assert found is not None
    assert found.peak is None
    assert "experts" in str(found.reason)
