"""What the rules about quantization rest on, run where it runs without a GPU."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lora_lint import Options, lint_text

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
