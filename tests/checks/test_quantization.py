"""What the rules about quantization rest on, run where it runs without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from lora_lint import Options, lint_text

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = """from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

bits = BitsAndBytesConfig({bits})
model = AutoModelForCausalLM.from_pretrained(
    "meta-llama/Llama-3.1-8B", quantization_config=bits, dtype="bfloat16"
)
model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"{more}))
"""
AXOLOTL = "base_model: meta-llama/Llama-3.1-8B\nadapter: {adapter}\nlora_r: 8\nlora_alpha: 16\n"
AXOLOTL += "lora_target_linear: true\n{more}"
TRL = "model_name_or_path: meta-llama/Llama-3.1-8B\nuse_peft: true\nlora_r: 8\nlora_alpha: 16\n"
TRL += "lora_target_modules: all-linear\nload_in_4bit: true\nfsdp: full_shard auto_wrap\n"


def codes(text: str, name: str, **options: str) -> dict[str, str]:
    report = lint_text(text, name, Options(select=("QT",), isolated=True, **options))
    return {d.code: d.severity for d in report.diagnostics}


def test_the_defaults_of_bitsandbytes_config() -> None:
    """QT504, QT505 and QT507 report these where nothing is written."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BitsAndBytesConfig(load_in_4bit=True)
    assert config.bnb_4bit_quant_type == "fp4"
    assert str(config.bnb_4bit_compute_dtype) == "torch.float32"
    assert str(config.bnb_4bit_quant_storage) == "torch.uint8"
    with pytest.raises(ValueError, match="only one can be used at the same time"):
        transformers.BitsAndBytesConfig(load_in_4bit=True, load_in_8bit=True)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ("load_in_4bit=True", {"QT504", "QT505"}),
        ("load_in_4bit=True, bnb_4bit_quant_type='nf4'", {"QT505"}),
        ("load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16", {"QT504"}),
        ("load_in_8bit=True", set()),
        ("load_in_4bit=four_bits()", set()),
        ("**settings()", set()),
        ("load_in_4bit=True, bnb_4bit_quant_type=kind(), bnb_4bit_compute_dtype=kind()", set()),
        ("load_in_4bit=True, load_in_8bit=True", {"QT502", "QT504", "QT505"}),
    ],
)
def test_switches_in_python(bits: str, expected: set[str]) -> None:
    assert set(codes(PYTHON.format(bits=bits, more=""), "train.py")) == expected


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
@pytest.mark.parametrize(
    ("init", "told"),
    # Run once with peft 0.21.2 and bitsandbytes 0.50.2: the first four raise, the others do not.
    [
        ("pissa", True),
        ("pissa_niter_16", True),
        ("mica", True),
        ("orthogonal", True),
        ("olora", False),
        ("gaussian", False),
        ("eva", False),
    ],
)
def test_initialisations(bits: str, init: str, told: bool) -> None:
    text = PYTHON.format(bits=f"{bits}=True", more=f', init_lora_weights="{init}"')
    assert ("QT508" in codes(text, "train.py")) is told


@pytest.mark.parametrize(
    ("adapter", "more", "told"),
    # The answers of axolotl 0.19.0's own validators.
    [
        ("qlora", "", True),
        ("qlora", "load_in_4bit: true\n", False),
        ("qlora", "load_in_4bit: false\n", True),
        ("qlora", "load_in_8bit: true\n", True),
        ("qlora", "load_in_4bit: true\ngptq: true\n", True),
        ("qlora", "merge_lora: true\n", False),
        ("lora", "load_in_8bit: true\n", False),
    ],
)
def test_qlora_in_axolotl(adapter: str, more: str, told: bool) -> None:
    found = codes(AXOLOTL.format(adapter=adapter, more=more), "train.yaml")
    assert found == ({"QT501": "error"} if told else {})


@pytest.mark.parametrize(
    ("transformers", "version", "expected"),
    # Where no version is written, FSDP 2 is meant from transformers 5.10 on.
    [
        ("4.57.6", "", {"QT507": "error"}),
        ("5.23.0", "", {}),
        ("5.23.0", "fsdp_config: {version: 1}\n", {"QT507": "error"}),
        ("4.57.6", "fsdp_config: {version: 2}\n", {}),
    ],
)
def test_fsdp_versions(transformers: str, version: str, expected: dict[str, str]) -> None:
    found = codes(TRL + version, "a.yaml", peft_version="0.18.0", transformers_version=transformers)
    assert found == expected


# FSDP needs a process group, which a test must not leave behind.
FSDP = """
import os, torch, torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
store = dist.HashStore()
dist.init_process_group("gloo", rank=0, world_size=1, store=store)
layer = torch.nn.Linear(4, 4)
layer.weight = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.{dtype}), requires_grad=False)
try:
    FSDP(layer, use_orig_params=True, device_id=torch.device("cpu"))
    print("ok")
except ValueError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("dtype", "answer"), [("uint8", "Cannot flatten integer dtype tensors"), ("float32", "ok")]
)
def test_fsdp_can_not_flatten_bytes(dtype: str, answer: str) -> None:
    """QT507's claim, by torch itself."""
    pytest.importorskip("torch.distributed.fsdp")
    command = [sys.executable, "-c", FSDP.format(dtype=dtype)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout.strip().splitlines()[-1:] == [answer], ran.stderr[-500:]


@pytest.mark.parametrize(
    ("bits", "to", "expected"),
    # Run once with peft 0.21.2 and bitsandbytes 0.50.2: 4 bits stop in the first step, 8 bits start
    # from noise, but for those that LoftQ rounds to 8 bits.
    [
        ("load_in_4bit", "LoftQConfig(loftq_bits=4)", {"QT509": "error"}),
        ("load_in_4bit", "LoftQConfig(loftq_bits=8)", {"QT509": "error"}),
        ("load_in_4bit", "LoftQConfig()", {"QT509": "error"}),
        ("load_in_8bit", "{'loftq_bits': 4, 'loftq_iter': 1}", {"QT509": "error"}),
        ("load_in_8bit", "LoftQConfig(loftq_bits=8)", {}),
        ("load_in_4bit", "settings()", {}),
        ("load_in_4bit", "{}", {}),  # PEFT refuses that itself
        (None, "LoftQConfig(loftq_bits=4)", {}),
    ],
)
def test_loftq(bits: str | None, to: str, expected: dict[str, str]) -> None:
    text = PYTHON.format(
        bits=f"{bits}=True, bnb_4bit_quant_type='nf4', bnb_4bit_compute_dtype='bfloat16'",
        more=f", init_lora_weights='loftq', loftq_config={to}",
    ).replace("import LoraConfig,", "import LoftQConfig, LoraConfig,")
    if bits is None:
        text = text.replace("quantization_config=bits, ", "")
    assert codes(text, "train.py") == expected


@pytest.mark.parametrize(
    ("adapter", "loftq", "told"),
    [
        ("qlora", "loftq_bits: 4", True),
        ("qlora", "", False),  # no mapping
        ("lora", "loftq_bits: 4", False),  # which quantizes nothing in 4 bits
    ],
)
def test_loftq_in_axolotl(adapter: str, loftq: str, told: bool) -> None:
    more = f"load_in_4bit: true\npeft:\n  loftq_config:\n    {loftq}\n"
    found = codes(AXOLOTL.format(adapter=adapter, more=more), "train.yaml")
    assert ("QT509" in found) is told


def test_loftq_gives_packed_weights_adapters_of_their_own_shape() -> None:
    """Two 4-bit values in a byte, in one column: whatever the rank, the adapters have one row."""
    torch = pytest.importorskip("torch")
    utilities = pytest.importorskip("peft.utils.loftq_utils")
    decompose = utilities._low_rank_decomposition
    packed = decompose(torch.rand(64 * 32 // 2, 1), reduced_rank=8)
    assert (packed["R"].shape, packed["L"].shape) == ((1, 1), (1024, 1))
    whole = decompose(torch.rand(64, 32), reduced_rank=8)
    assert (whole["R"].shape, whole["L"].shape) == ((8, 32), (64, 8))


def test_loftq_takes_the_codes_of_8_bit_weights_for_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 8-bit weights PEFT's ``loftq_init`` sees the codes, up to 127, and not what they stand
    for: the adapters are those of the codes. bitsandbytes and the GPU are stood in for.
    """
    torch = pytest.importorskip("torch")
    utilities = pytest.importorskip("peft.utils.loftq_utils")

    class Rounded:
        """Values rounded to sixteen steps, as 4 bits do."""

        def __init__(self, values: Any, **_: object) -> None:
            step = values.abs().max() / 8
            self.data, self.quant_state = (values / step).round() * step, None

        def to(self, _: object) -> Rounded:
            return self

    class Here(torch.Tensor):  # type: ignore[misc,name-defined]
        """A tensor that stays where it is."""

        def to(self, *_: object, **how: Any) -> Any:
            plain = self.as_subclass(torch.Tensor)
            return plain.to(how["dtype"]) if "dtype" in how else plain

    stand_in = SimpleNamespace(
        nn=SimpleNamespace(Params4bit=Rounded),
        functional=SimpleNamespace(dequantize_4bit=lambda data, _: data),
    )
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    for name in ("is_bnb_available", "is_bnb_4bit_available"):
        monkeypatch.setattr(utilities, name, lambda: True)
    torch.manual_seed(0)
    whole = torch.randn(64, 32) * 0.02
    scale = whole.abs().max() / 127
    codes = (whole / scale).round().to(torch.int8)

    def adapters(weight: Any) -> float:
        _, a, b = utilities.loftq_init(weight.as_subclass(Here), 4, reduced_rank=8)
        return float((b @ a).abs().max())

    assert adapters(whole) < 0.02  # a part of what rounding to 4 bits loses
    assert adapters(codes) == pytest.approx(adapters(whole) / float(scale), rel=0.5)
    assert adapters(codes) > 1  # beside weights of 0.02


@pytest.mark.parametrize("flag", ["is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", ""])
def test_peft_sees_to_the_inputs_of_models_that_are_not_quantized(flag: str) -> None:
    """QT512's claim: only these get a gradient by PEFT alone."""
    peft = pytest.importorskip("peft")
    asked: list[str] = []
    model = SimpleNamespace(
        enable_input_require_grads=lambda: asked.append("gradients"),
        **({flag: True} if flag else {}),
    )
    peft.PeftModel._prepare_model_for_gradient_checkpointing(None, model)
    assert bool(asked) is not bool(flag)


TRAINED = PYTHON.replace("BitsAndBytesConfig\n", "BitsAndBytesConfig, Trainer, TrainingArguments\n")
TRAINED += "args = TrainingArguments('out', gradient_checkpointing=True{checkpointing})\n"
TRAINED += "trainer = Trainer(model, args)\n"
PREPARED = "model = get_peft_model(prepare_model_for_kbit_training(model)"


@pytest.mark.parametrize("bits", ["load_in_4bit=True", "load_in_8bit=True", "switches()"])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    ("reentrant", "transformers", "gradients"),
    # Run once with bitsandbytes 0.50.2: whether an unprepared model's adapters get any.
    [
        (None, "4.57.6", False),
        (True, "4.57.6", False),
        (False, "4.57.6", True),
        (None, "5.23.0", True),
        (True, "5.23.0", True),
    ],
)
def test_kbit_preparation(
    reentrant: bool | None, transformers: str, gradients: bool, prepared: bool, bits: str
) -> None:
    given = f", gradient_checkpointing_kwargs={{'use_reentrant': {reentrant}}}"
    text = TRAINED.format(
        bits=bits if "=" in bits else f"load_in_4bit={bits}",
        more="",
        checkpointing=given if reentrant is not None else "",
    ).replace("import LoraConfig,", "import LoraConfig, prepare_model_for_kbit_training,")
    if prepared:
        text = text.replace("model = get_peft_model(model", PREPARED)
    else:
        text = text.replace(" prepare_model_for_kbit_training,", "")
    found = codes(text, "t.py", peft_version="0.18.1", transformers_version=transformers)
    expected = None if gradients or prepared or bits == "switches()" else "warning"
    assert found.get("QT512") == expected


# QT513 -------------------------------------------------------------------------------------------

# The settings of published weights as config.json has them, for methods that need no package.
PUBLISHED: dict[str, dict[str, Any]] = {
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128},
    "int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "none": {},
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "vocab_size": 256,
}
WIDTHS = {"load_in_4bit": 4, "load_in_8bit": 8}


def answer_of_transformers(published: dict[str, Any], switch: str) -> str:
    """What real transformers does with a BitsAndBytesConfig for weights that are published so:
    ``refused``, the switch of what it loads, or ``not merged``.
    """
    auto = pytest.importorskip("transformers.quantizers.auto")
    merger = auto.AutoHfQuantizer
    if not published or not merger.supports_quant_method(published):
        return "not merged"
    wanted = auto.BitsAndBytesConfig(**{switch: True})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            merged = merger.merge_quantization_configs(dict(published), wanted)
        except ValueError as exc:
            if "but you are passing a BitsAndBytesConfig config" not in str(exc):
                raise
            return "refused"
    return next(name for name in WIDTHS if getattr(merged, name))


def written_for(framework: str, model: str, switch: str) -> tuple[str, str]:
    """A config that loads a model with bitsandbytes, and what it is called."""
    if framework == "python":
        text = PYTHON.format(bits=f"{switch}=True, bnb_4bit_compute_dtype='bfloat16'", more="")
        return text.replace("meta-llama/Llama-3.1-8B", model), "train.py"
    if framework == "axolotl":
        more = f"{switch}: true\n"
        text = AXOLOTL.format(adapter="qlora" if "4" in switch else "lora", more=more)
    elif framework == "llama_factory":
        text = "model_name_or_path: meta-llama/Llama-3.1-8B\nstage: sft\nfinetuning_type: lora\n"
        text += "template: llama3\ndo_train: true\nlora_rank: 8\nlora_alpha: 16\nlora_target: all\n"
        text += f"quantization_bit: {WIDTHS[switch]}\n"
    else:
        text = TRL.replace("fsdp: full_shard auto_wrap\n", "").replace("load_in_4bit", switch)
    return text.replace("meta-llama/Llama-3.1-8B", model), "train.yaml"


def verdict(text: str, path: str, **options: str) -> str | None:
    report = lint_text(text, path, Options(select=("QT513",), isolated=True, **options))
    return next((d.severity for d in report.diagnostics), None)


@pytest.mark.parametrize("framework", ["trl", "python"])
@pytest.mark.parametrize("switch", WIDTHS)
@pytest.mark.parametrize("held", PUBLISHED)
def test_what_transformers_does_with_published_weights(
    held: str, switch: str, framework: str, tmp_path: Path
) -> None:
    """Refused is an error, another width than the setting's a warning, the rest is silent."""
    folder = tmp_path / "model"
    folder.mkdir()
    own = {"quantization_config": PUBLISHED[held]} if PUBLISHED[held] else {}
    (folder / "config.json").write_text(json.dumps(LLAMA | own), encoding="utf-8")
    answer = answer_of_transformers(PUBLISHED[held], switch)
    expected = {"refused": "error", "not merged": None, switch: None}.get(answer, "warning")
    text, name = written_for(framework, str(folder), switch)
    assert verdict(text, str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("framework", "model", "expected"),
    [
        ("trl", "openai/gpt-oss-20b", "error"),
        ("trl", "TheBloke/Llama-2-7B-GPTQ", "warning"),  # only its name says so
        ("trl", "unsloth/gpt-oss-20b", "warning"),  # a copy
        ("trl", "unsloth/gpt-oss-20b-BF16", None),
        ("trl", "unsloth/Meta-Llama-3.1-8B-bnb-4bit", None),
        ("axolotl", "openai/gpt-oss-20b", "error"),
        ("axolotl", "TheBloke/Llama-2-7B-GPTQ", "warning"),
        ("llama_factory", "openai/gpt-oss-20b", "warning"),
        ("llama_factory", "TheBloke/Llama-2-7B-GPTQ", "warning"),
        ("llama_factory", "meta-llama/Llama-3.1-8B", None),
    ],
)
def test_by_framework_and_model(framework: str, model: str, expected: str | None) -> None:
    assert verdict(*written_for(framework, model, "load_in_4bit")) == expected


@pytest.mark.parametrize(
    ("transformers", "held", "expected"),
    # Run once with these releases: fp8 is kept in 4.55.4 and refused from 4.56 on, gptq fails in
    # all ("'BitsAndBytesConfig' object has no attribute 'get_loading_attributes'").
    [
        ("4.55.4", "fp8", "warning"),
        ("4.55.4", "gptq", "error"),
        ("4.57.6", "fp8", "error"),
        ("4.57.6", "gptq", "error"),
    ],
)
def test_by_release(transformers: str, held: str, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = LLAMA | {"quantization_config": PUBLISHED[held]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    text, name = written_for("trl", str(folder), "load_in_4bit")
    versions = {"transformers_version": transformers, "peft_version": "0.17.0"}
    assert verdict(text, str(tmp_path / name), **versions) == expected


def test_the_settings_of_published_bits_are_not_those_of_the_run() -> None:
    """A run's 4-bit type and dtype go nowhere: real transformers keeps those of the checkpoint."""
    auto = pytest.importorskip("transformers.quantizers.auto")
    own = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": "bfloat16",
    }
    wanted = auto.BitsAndBytesConfig(load_in_4bit=True)
    with pytest.warns(UserWarning, match="from the model will be used"):
        merged = auto.AutoHfQuantizer.merge_quantization_configs(own, wanted)
    assert merged.bnb_4bit_quant_type == "nf4"
    assert str(merged.bnb_4bit_compute_dtype) == "torch.bfloat16"
    text = PYTHON.format(bits="load_in_4bit=True", more="")
    assert set(codes(text, "train.py")) == {"QT504", "QT505"}
    published = text.replace("meta-llama/Llama-3.1-8B", "unsloth/Meta-Llama-3.1-8B-bnb-4bit")
    assert codes(published, "train.py") == {}


def test_another_width_of_bitsandbytes_has_no_effect() -> None:
    text, name = written_for("trl", "unsloth/Meta-Llama-3.1-8B-bnb-4bit", "load_in_8bit")
    report = lint_text(text, name, Options(select=("QT513",), isolated=True))
    (found,) = report.diagnostics
    assert found.message.startswith("load_in_8bit has no effect: ")
    assert "published in 4 bits" in found.message
