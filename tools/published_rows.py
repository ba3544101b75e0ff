"""Published measurements as settings: what each row of a file says, or why it is left out.

A file of measurements has one JSON object a line: the ``source``, its ``repo``, ``path`` and
``commit``, the setting (``model``, ``method``, ``r``, ``target_modules``, ``lora_dropout``,
``quant``, ``max_seq_len``, ``micro_batch``, ``grad_ckpt``, ``optimizer``, ``gpu``), the ``metric``,
``peak_bytes`` or ``oom``, and a ``quality`` that begins with a grade.

How a row becomes a setting:

- PEFT's method comparison: a loop written by hand without autocast, which holds the model's outputs
  during the backward; batches of 4 cut at 768 tokens, in bfloat16, AdamW in every step. Whether the
  batch of the peak was padded is not known and stays open. The metric is the most memory reserved.
- LitGPT on one GPU: its own loop in bfloat16 without autocast or checkpointing; the length is the
  longest sample's, which the resource tables state, and in config_hub the 512 tokens at which its
  files cut. Modules that Hugging Face fuses and LitGPT takes as several are several
  (``lora_lint.models.litgpt``). In config_hub gradients accumulate (``global_batch_size``) and a
  step's graph lives on; the resource tables are of the first step, which alone has the longest
  sample for sure (finetune/lora.py of 2023 at cc190152, ``train``: ``longest_seq_ix if iter_num ==
  0``). They say
  bitsandbytes 0.41; LitGPT 0.3.1 and 0.4.0, of the time of config_hub's rows, pin 0.42.0: 4-bit
  products before 0.43.2 keep their inputs. None had bitsandbytes' StableEmbedding, which came with
  LitGPT 0.5. Dropout is 0.05 where the row has none (finetune/lora.py of 2023).
  The metric is the most memory allocated, in units of 1e9 bytes.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.memory import Profile, framework_profile
from lora_lint.models import ModuleTree
from lora_lint.models.litgpt import litgpt_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The models' dimensions, as their published config.json have them.
_LLAMA: Final = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
CONFIGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "meta-llama/Llama-3.2-3B": _LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-2-7b-hf": _LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": _LLAMA
    | {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "microsoft/Phi-3-mini-4k-instruct": {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
    },
    "stabilityai/stablelm-base-alpha-3b": {
        "model_type": "gpt_neox",
        "architectures": ["GPTNeoXForCausalLM"],
        "vocab_size": 50688,
        "hidden_size": 4096,
        "intermediate_size": 16384,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
    },
    "tiiuae/falcon-7b": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "vocab_size": 65024,
        "hidden_size": 4544,
        "num_hidden_layers": 32,
        "num_attention_heads": 71,
        "multi_query": True,
        "parallel_attn": True,
        "new_decoder_architecture": False,
        "bias": False,
        "alibi": False,
    },
    "tiiuae/falcon-40b": {
        "model_type": "falcon",
        "architectures": ["FalconForCausalLM"],
        "vocab_size": 65024,
        "hidden_size": 8192,
        "num_hidden_layers": 60,
        "num_attention_heads": 128,
        "num_kv_heads": 8,
        "parallel_attn": True,
        "new_decoder_architecture": True,
        "bias": False,
        "alibi": False,
    },
}
# The models as rows call them.
_NAMES: Final = {
    "meta-llama/Llama-3.2-3B": "meta-llama/Llama-3.2-3B",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "Llama 2 7 B": "meta-llama/Llama-2-7b-hf",
    "tiny-llama": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
    "Phi-3-mini-4k-instruct": "microsoft/Phi-3-mini-4k-instruct",
    "stablelm-base-alpha-3b": "stabilityai/stablelm-base-alpha-3b",
    "StableLM Alpha 3 B": "stabilityai/stablelm-base-alpha-3b",
    "falcon-7b": "tiiuae/falcon-7b",
    "Falcon 40 B": "tiiuae/falcon-40b",
}
# LitGPT's parts, by the last of names of modules in the trees of ``litgpt_tree``.
PARTS: Final = {
    "query": ("q_proj",),
    "key": ("k_proj",),
    "value": ("v_proj",),
    "projection": ("o_proj", "self_attn.dense", "attention.dense", "self_attention.dense"),
    "mlp": (
        *("gate_proj", "up_proj", "down_proj", "fc1", "fc2"),
        *("dense_h_to_4h", "dense_4h_to_h"),
    ),
    "head": ("lm_head", "embed_out"),
}
_GPUS: Final = {"1xA10G": "a10g", "A100-40GB": "a100-40gb", "NVIDIA L40S": "l40s"}
# Why whole sources are left out.
_SOURCES: Final = {
    "litgpt_resource_tables_multi": (
        "FSDP: the figures exceed a GPU's share of the weights by far (two GPUs, Llama-2-7B: 22 GB"
        " each, of 13.5 GB of weights in all), so they include loading or gathering the model,"
        " which is no training step"
    ),
    "ms_swift_benchmark": (
        "Qwen-7B-Chat (the first Qwen) brings its own code, of which there is no module tree"
    ),
    "torchtune": (
        "its own model and LoRA code; settings (checkpointing, offloading, lengths) are ambiguous"
        " or not stated, or torch.compile runs, which is not estimated"
    ),
    "peft_docs_velora": "rank and targets are not stated",
}


class Setting(NamedTuple):
    """What a row says: a model of ``CONFIGS``, LoraConfig's keywords, the settings of
    ``estimate_memory``, the framework's profile, the GPU, and the measured bytes; None where the
    run was out of memory.
    """

    model: str
    lora: Mapping[str, Any]
    settings: Mapping[str, Any]
    profile: Profile
    gpu: str
    measured: int | None
    litgpt: bool = False


class Row(NamedTuple):
    """A row: its number in the file, what it says, its grade, and its setting or the reason why it
    is left out.
    """

    number: int
    said: Mapping[str, Any]
    grade: str
    setting: Setting | str

    @property
    def label(self) -> str:
        """The setting in a few words."""
        said = self.said
        parts = [
            str(said.get("model", "")).rsplit("/", 1)[-1],
            f"r {said['r']}" if said.get("r") else "",
            "+".join(_targets(said)),
            str(said.get("quant") or said.get("dtype") or ""),
            f"{said.get('micro_batch')} x {said.get('max_seq_len')}",
            "MiCA" if "mica" in str(said.get("experiment")) else "",
        ]
        return ", ".join(part for part in parts if part)

    @property
    def where(self) -> str:
        """The file that has the figure."""
        return f"{self.said['repo']} {self.said['path']} @{str(self.said.get('commit', ''))[:8]}"


def read_rows(file: Path) -> Iterator[Row]:
    """The rows of a file of measurements, in its order.

    Raises ``OSError`` and ``ValueError`` for a file that is no such file.
    """
    seen: set[tuple[Any, ...]] = set()
    for number, line in enumerate(file.read_text().splitlines(), 1):
        said = json.loads(line)
        grade = str(said.get("quality", "?"))[:1]
        setting = setting_of(said) if grade in "AB" else f"grade {grade}"
        key = said["source"], said["path"], said.get("model"), said.get("peak_bytes")
        if said["source"] == "litgpt_config_hub" and not isinstance(setting, str):
            if key in seen:
                setting = (
                    "repeats the one-GPU row: the same file and figure under a label of four GPUs"
                )
            seen.add(key)
        yield Row(number, said, grade, setting)


def setting_of(said: Mapping[str, Any]) -> Setting | str:
    """The setting that a row of grade A or B states, or why it is left out."""
    source = said["source"]
    if source in _SOURCES:
        return _SOURCES[source]
    if said.get("method") == "FULL":
        return "full fine-tuning, no LoRA"
    if said.get("optimizer") == "lora-fa":
        return "LoRA-FA: an optimizer of its own, which trains no A"
    if source == "peft_metamathqa":
        return _peft(said)
    if source.startswith("litgpt"):
        return _litgpt(said)
    return f"no setting is known for {source}"


def _peft(said: Mapping[str, Any]) -> Setting:
    lora = {
        "r": said["r"],
        "target_modules": said["target_modules"],
        "lora_dropout": said["lora_dropout"],
        "use_dora": said["use_dora"],
        "task_type": "CAUSAL_LM",
    }
    if "mica" in said["experiment"]:
        lora["init_lora_weights"] = "mica"
    return Setting(
        model=_NAMES[said["model"]],
        lora=lora,
        settings=_settings(said, accumulation=1),
        profile=Profile(autocast=False, outputs_kept=True, padded=None),
        gpu=_GPUS[said["gpu"]],
        measured=said["peak_bytes"],
    )


def _litgpt(said: Mapping[str, Any]) -> Setting:
    model = _NAMES[said["model"]]
    dropout = said.get("lora_dropout")
    quantized = said["quant"] is not None
    profile = framework_profile("litgpt", quantized=quantized, given={"autocast": False})
    measured = said["peak_bytes"]
    return Setting(
        model=model,
        lora={
            "r": said["r"],
            "target_modules": [name for part in said["target_modules"] for name in PARTS[part]],
            "lora_dropout": 0.05 if dropout is None else dropout,
            "task_type": "CAUSAL_LM",
        },
        settings=_settings(said, accumulation=1 if is_first_step(said) else 2),
        profile=profile._replace(
            keeps_inputs=quantized, stable_embedding=False, graph_kept=not is_first_step(said)
        ),
        gpu=_GPUS.get(said["gpu"], "a10g"),
        measured=None if said["oom"] else round(measured),
        litgpt=True,
    )


def is_first_step(said: Mapping[str, Any]) -> bool:
    """Whether a row is of a run whose first step needs most."""
    return str(said["source"]).startswith("litgpt_resource_tables")


def _settings(said: Mapping[str, Any], accumulation: int) -> dict[str, Any]:
    quant = said["quant"]
    return {
        "dtype": "bfloat16",
        "quantization": "nf4" if quant else "none",
        "double_quant": bool(quant and quant.endswith("-dq")),
        "max_length": said["max_seq_len"],
        "per_device_train_batch_size": said["micro_batch"],
        "gradient_checkpointing": said["grad_ckpt"],
        "gradient_accumulation_steps": accumulation,
        "optim": "adamw_torch",
        "attn_implementation": "sdpa",
        "packing": False,
    }


def _targets(said: Mapping[str, Any]) -> list[str]:
    targets = said.get("target_modules") or []
    return [targets] if isinstance(targets, str) else list(targets)


@cache
def tree(model: str, *, litgpt: bool = False) -> ModuleTree:
    """The module tree of a model of ``CONFIGS``, built by transformers without weights; as LitGPT
    has it if so asked.
    """
    built = build(CONFIGS[model])
    return litgpt_tree(built) if litgpt else built


def build(values: Mapping[str, Any]) -> ModuleTree:
    """The module tree of a model by its config.json, built by transformers without weights."""
    import torch
    import transformers

    built = getattr(transformers, values["architectures"][0])
    config = transformers.CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
    with torch.device("meta"):
        return ModuleTree.from_model(built._from_config(config, dtype=torch.bfloat16))
