"""The closed form against the operations of real steps, by the shipped tracer.

Depth is cut to a few layers, widths are the published ones. ``tools/memory_form.py`` does the same
for whole models and many more settings.
"""

from __future__ import annotations

import pytest
import transformers

from lora_lint.injection import inject
from lora_lint.memory.estimate import whole_step
from lora_lint.memory.regime import Run
from lora_lint.memory.shapes import TRACED
from lora_lint.memory.tracer import quantized
from lora_lint.models import ModuleTree
from tests.memory.models import CONFIGS

quantized.stand_in()  # before PEFT is imported

from lora_lint.memory.tracer.step import Request, _build, config_of, trace  # noqa: E402

QV = {"r": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
ALL = {"r": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
DROPOUT = {**ALL, "lora_dropout": 0.05}
DORA = {**ALL, "use_dora": True}
HEADS = {**QV, "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
ON_HEAD = {**QV, "target_modules": ["q_proj", "lm_head"]}
UPPER = {**QV, "layers_to_transform": [2]}
EXPERTS = {**QV, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
GC = {"checkpointing": "non-reentrant"}
REENTRANT = {"checkpointing": "reentrant"}
QLORA = {"quantization": "nf4", "prepared": True, "autocast": True}
LAYERS = 3
# Families whose usual class is no causal decoder or whose default config is none that could run:
# tools/memory_form.py has them.
ELSEWHERE = frozenset(
    {
        "bart",
        "bert",
        "deepseek_v2",
        "distilbert",
        "electra",
        "llava",
        "mt5",
        "qwen2_5_vl",
        "qwen2_vl",
    }
    | {"roberta", "t5", "vit", "whisper"}
    | {"gemma3", "idefics3", "internvl", "llava_next", "mistral3", "qwen3_vl", "qwen3_vl_moe"}
    | {"smolvlm"}
)


def request(values, cls, lora, *, layers=LAYERS, length=512, **how):
    cut = transformers.CONFIG_MAPPING[values["model_type"]](**values)
    if layers and not getattr(cut, "is_encoder_decoder", False):
        text = cut.get_text_config()
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
    return Request(cut.to_dict(), cls, lora, length=length, **how)


def ratio(run: Request) -> float:
    """The closed form's peak over the traced one."""
    tree = ModuleTree.from_model(
        _build(run, None) if not run.quantization else _build(bare(run), None)
    )
    answer = whole_step(
        tree,
        run.lora,
        inject(tree, run.lora, peft="0.21.2"),
        Run(
            batch=run.batch,
            length=run.length,
            weight_bytes=4 if run.dtype == "float32" else 2,
            quantized=run.quantization,
            double_quant=run.double_quant,
            prepared=run.prepared,
            autocast=run.autocast,
            adapter_bytes=4 if run.adapter_dtype == "float32" else 2,
            dropout=bool(run.lora.get("lora_dropout")),
            dora=bool(run.lora.get("use_dora")),
            checkpointing=run.checkpointing is not None,
            reentrant=run.checkpointing == "reentrant",
            attention=run.attention or "sdpa",
            masked=not run.uniform,
            images=run.images,
        ),
        accumulates=run.accumulates,
        outputs_kept=run.outputs_kept,
    )
    assert not isinstance(answer, str), answer
    return answer[0] / trace(run).peak


def bare(run):
    return run._replace(quantization=None)


@pytest.mark.parametrize(
    "name",
    [
        "llama-2-7b",
        "llama-3.1-8b",
        "qwen2.5-7b",
        "qwen3-8b",
        "gemma-2b",
        "gemma-3-1b",
        "phi-3-mini",
        "granite-2b",
    ],
)
@pytest.mark.parametrize("how", [{}, GC])
def test_families(name, how):
    values = CONFIGS[name]
    cls = transformers.AutoModelForCausalLM._model_mapping[
        transformers.CONFIG_MAPPING[values["model_type"]]
    ].__name__
    assert ratio(request(values, cls, ALL, batch=2, **how)) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("lora", "how"),
    [
        (QV, {}),
        (QV, {"length": 2000}),
        (QV, {"outputs_kept": True}),
        (QV, {"attention": "eager"}),
        (QV, {"dtype": "float32"}),
        (QV, {"batch": 4, "uniform": False}),
        (QV, {"accumulates": True}),
        (ALL, {"adapter_dtype": "bfloat16"}),
        (ALL, {"quantization": "nf4"}),
        (ALL, {"quantization": "nf4", "prepared": True}),
        (ALL, {"quantization": "int8", "dtype": "float16"}),
        (ALL, {"quantization": "int8", "dtype": "float16", **GC}),
        (ALL, {"quantization": "int8", "dtype": "float16", **REENTRANT}),
        (ALL, {**QLORA, **REENTRANT}),
        (DROPOUT, {**QLORA, **GC}),
        (DROPOUT, REENTRANT),
        (DROPOUT, {"autocast": True}),
        (DROPOUT, {"autocast": True, "dtype": "float32"}),
        (DORA, {}),
        (DORA, {**QLORA, **GC}),
        (HEADS, {}),
        (HEADS, {"autocast": True}),
        (ON_HEAD, {}),
        (UPPER, {}),
    ],
)
def test_settings(lora, how):
    run = request(CONFIGS["llama-3.1-8b"], "LlamaForCausalLM", lora, **how)
    assert ratio(run) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("how", [{}, GC, REENTRANT, {**QLORA, **GC}])
@pytest.mark.parametrize("lora", [ALL, DROPOUT, DORA])
def test_layer_peaks(lora, how):
    """With few tokens to predict from a small vocabulary the peak lies in a layer."""
    run = request(CONFIGS["small"], "LlamaForCausalLM", lora, length=1024, **how)
    assert ratio(run) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("values", "cls", "lora"),
    [
        ({"model_type": "qwen3_moe"}, "Qwen3MoeForCausalLM", QV),
        ({"model_type": "mixtral", "vocab_size": 1000}, "MixtralForCausalLM", EXPERTS),
        ({"model_type": "gpt_oss"}, "GptOssForCausalLM", QV),
        ({"model_type": "gemma2"}, "Gemma2ForCausalLM", ALL),
        ({"model_type": "falcon"}, "FalconForCausalLM", ALL),
        ({"model_type": "t5"}, "T5ForConditionalGeneration", {"r": 8, "target_modules": ["q"]}),
        (
            {"model_type": "bert"},
            "BertForSequenceClassification",
            {"r": 8, "target_modules": "query"},
        ),
    ],
)
def test_architectures(values, cls, lora):
    if "Seq" in cls:
        lora = {**lora, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
    run = request(values, cls, lora, layers=2, batch=2, length=256)
    assert ratio(run) == pytest.approx(1, abs=0.03)


@pytest.mark.sweep
@pytest.mark.parametrize("how", [{}, GC])
@pytest.mark.parametrize("family", sorted(TRACED - ELSEWHERE))
def test_every_traced_family(family, how):
    """Two layers of each family's default config."""
    config = config_of({"model_type": family})
    cls = transformers.AutoModelForCausalLM._model_mapping[type(config)].__name__
    run = request({"model_type": family}, cls, ALL, layers=2, **how)
    assert ratio(run) == pytest.approx(1, abs=0.03)
