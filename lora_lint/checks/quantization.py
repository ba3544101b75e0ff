"""QT: weights in fewer bits, and what LoRA can do with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from lora_lint.checks.registry import check
from lora_lint.checks.training import cuts_adapters_off
from lora_lint.diagnostics import Finding, Note, Remove, Set, Wish
from lora_lint.facts import version_key
from lora_lint.models import catalogue
from lora_lint.models.resolve import Resolution
from lora_lint.neighbours import Section, zero_stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora_lint.checks.subject import RecipeSubject

# What bitsandbytes makes of the weights: bytes that hold two 4-bit values, or 8-bit integers.
_FOUR_BITS: Final = ("nf4", "fp4")
_PACKED: Final = (*_FOUR_BITS, "int8")
# Initialisations that need the weights themselves, in floating point.
_OF_WEIGHTS: Final = re.compile(r"pissa(_niter_\d+)?|corda|mica|orthogonal")
# Where Axolotl is told to start with LoftQ.
_AXOLOTL_LOFTQ: Final = ("peft", "loftq_config")
# The release from which bitsandbytes computes in the dtype that it is told (nn/modules.py,
# `compute_type_is_set`); older ones take that of the input.
_LITERAL_SINCE: Final = "0.47.0"
# The release in which TrainingArguments means FSDP2 where no version is written.
_FSDP2_SINCE: Final = "5.10.0"
# Frameworks that hand their BitsAndBytesConfig to from_pretrained as it is: trl 1.16.0
# trainer/utils.py, axolotl 0.19.0 loaders/model.py, oumi 0.9 builders/models.py, ms_swift 4.6.0
# model/register.py, openrlhf 0.11.2 models/actor.py, ludwig 0.11.0 utils/llm_utils.py,
# llamafactory 0.9.5 v1/core/model_engine.py, autotrain_advanced 0.8.36 trainers/clm/utils.py.
_PASSED_ON: Final = frozenset(
    ("autotrain", "axolotl", "llama_factory_v1", "ludwig", "ms_swift", "openrlhf", "oumi")
) | {"peft_python", "trl"}
# What Axolotl takes from the model's config.json in any case (``_set_quantization_config``).
_AXOLOTL_KEEPS: Final = ("gptq", "awq")
# What can load the model in the place of LLaMA-Factory's own code.
_OTHER_LOADERS: Final = ("use_unsloth", "use_kt")
# What it makes whole (llamafactory 0.9.5 model/model_utils/quantization.py).
_MADE_WHOLE: Final = ("mxfp4", "fp8")
# The methods of published weights that transformers 4.56.0 knows (quantizers/auto.py); weights of
# another one it loads as if they were not quantized.
_METHODS: Final = frozenset(
    ("aqlm", "auto-round", "awq", "bitnet", "compressed-tensors", "eetq", "fbgemm_fp8", "fp8")
) | {"fp_quant", "gptq", "higgs", "hqq", "mxfp4", "quanto", "quark", "spqr", "torchao", "vptq"}
# Releases of transformers: the first in which the settings of a run and of a model are merged
# (quantizers/auto.py ``merge_quantization_configs``), which fails at once for some methods; the
# first that refuses all of another kind; the first that finds those of a text model as well.
_MERGED_SINCE: Final = "4.38.0"
_REFUSED_AT_ONCE: Final = ("gptq", "awq")
_REFUSED_SINCE: Final = "4.56.0"
_NESTED_SINCE: Final = "5.13.0"

_Outcome = Literal["kept", "made whole", "refused", "either"]


@check("QT501")
def qlora_without_4bit(subject: RecipeSubject) -> Iterator[Finding]:
    """``adapter: qlora`` takes 4-bit weights and nothing else."""
    value = subject.value
    if value("adapter_type") != "qlora" or value("merge_lora") not in (None, False):
        return
    for name in ("load_in_8bit", "gptq"):
        if value(name) is True:
            yield Finding(
                f"adapter: qlora does not go with {name}",
                field=name,
                help=f"{subject.dialect.title} stops with a ValueError",
                wishes=(
                    Wish(
                        f"{name}: false, load_in_4bit: true",
                        (Set(name, False), Set("load_in_4bit", True)),
                    ),
                ),
            )
            return
    if value("load_in_4bit") in (None, False):
        yield Finding(
            "adapter: qlora needs load_in_4bit: true",
            field="load_in_4bit" if subject.states("load_in_4bit") else "adapter_type",
            help=f'{subject.dialect.title} stops with "Require cfg.load_in_4bit to be True for '
            'qlora"',
            wishes=(Wish("load_in_4bit: true", (Set("load_in_4bit", True),), "safe"),),
        )


@check("QT502")
def both_bit_widths(subject: RecipeSubject) -> Iterator[Finding]:
    """4-bit and 8-bit loading are both on."""
    if subject.value("load_in_4bit") is not True or subject.value("load_in_8bit") is not True:
        return
    axolotl = subject.value("adapter_type") is not None
    if axolotl and subject.value("adapter_type") != "lora":
        return  # QT501 says it
    yield Finding(
        "load_in_4bit and load_in_8bit are both true",
        field="load_in_8bit",
        severity="warning" if axolotl or not subject.run_is_certain else None,
        notes=(Note("", "load_in_4bit"),),
        help="Axolotl loads 8-bit weights for adapter: lora, and drops the other"
        if axolotl
        else "only one can be used at the same time: the run stops with a ValueError",
        wishes=(Wish("load_in_8bit: false", (Set("load_in_8bit", False),)),),
    )


@check("QT503")
def quantized_full_finetune(subject: RecipeSubject) -> Iterator[Finding]:
    """Quantized weights and no adapter: there is nothing that could be trained."""
    if subject.value("inference") not in (None, False):
        return
    for name in ("load_in_4bit", "load_in_8bit", "quantization_bit"):
        value = subject.value(name)
        if value is True or (name == "quantization_bit" and isinstance(value, int)):
            yield Finding(
                f"{name} without an adapter: quantized weights can't be fully fine-tuned",
                field=name,
                severity=None if subject.run_is_certain else "warning",
                help=f"{subject.dialect.title} stops with a ValueError",
            )
            return


@check("QT504")
def fp4_by_default(subject: RecipeSubject) -> Iterator[Finding]:
    """Nobody chose fp4: it is BitsAndBytesConfig's default."""
    kind = subject.recipe["bnb_4bit_quant_type"]
    if subject.value("load_in_4bit") is not True or _published(subject) in _PACKED:
        return
    if kind.origin == "default" and kind.value == "fp4":
        yield Finding(
            "bnb_4bit_quant_type is not set and defaults to fp4; QLoRA is nf4",
            field="load_in_4bit",
            help="the QLoRA paper measures nf4 ahead of fp4, at the same size",
            wishes=(Wish("bnb_4bit_quant_type='nf4'", (Set("bnb_4bit_quant_type", "nf4"),)),),
        )


@check("QT505")
def float32_compute_dtype(subject: RecipeSubject) -> Iterator[Finding]:
    """Nobody chose float32 to compute in: it is BitsAndBytesConfig's default."""
    dtype = subject.recipe["bnb_4bit_compute_dtype"]
    if subject.value("load_in_4bit") is not True or dtype.origin != "default":
        return
    if dtype.value != "float32" or subject.value("dtype") in ("float32", "torch.float32"):
        return
    if _published(subject) in _PACKED:
        return
    yield Finding(
        "bnb_4bit_compute_dtype is not set: every quantized layer computes in float32",
        field="load_in_4bit",
        help=f"silent; from bitsandbytes {_LITERAL_SINCE} on it is taken literally, older releases "
        "take the dtype of the input",
        wishes=(
            Wish(
                "bnb_4bit_compute_dtype='bfloat16' (float16 before Ampere)",
                (Set("bnb_4bit_compute_dtype", "bfloat16"),),
            ),
        ),
    )


@check("QT506")
def quantized_zero3(subject: RecipeSubject) -> Iterator[Finding]:
    """LLaMA-Factory partitions no weights under ZeRO-3 but 4-bit ones of bitsandbytes."""
    bits = subject.value("quantization_bit")
    method = subject.value("quantization_method")
    method = "bnb" if method is None else method
    settings = subject.deepspeed
    if not isinstance(bits, int) or not isinstance(settings, Section) or zero_stage(settings) != 3:
        return
    if method in ("bnb", "bitsandbytes") and bits == 4:
        return
    if not isinstance(method, str):
        return
    yield Finding(
        f"{bits}-bit weights of {method} do not go with DeepSpeed ZeRO-3",
        field="quantization_bit",
        severity=None if settings.sure else "warning",
        notes=(settings.note("ZeRO stage 3", "zero_optimization", "stage"),),
        help="LLaMA-Factory stops with a ValueError: only 4-bit weights of bitsandbytes can be "
        "partitioned",
    )


@check("QT507")
def fsdp_quant_storage(subject: RecipeSubject) -> Iterator[Finding]:
    """FSDP1 flattens the weights of a layer into one tensor, which takes one floating dtype."""
    storage = subject.recipe["bnb_4bit_quant_storage"]
    if subject.value("quantization") not in _FOUR_BITS or storage.origin == "unknown":
        return
    stated = subject.states("fsdp") and subject.value("fsdp") not in (None, False, "", [], {})
    launched = subject.accelerate
    by_accelerate = isinstance(launched, Section) and launched.value("distributed_type") == "FSDP"
    version: object = _fsdp_version(subject)
    if isinstance(launched, Section) and by_accelerate and not stated:
        version = launched.value("fsdp_config", "fsdp_version") or 1  # accelerate's default
    if not (stated or by_accelerate) or storage.value not in (None, "uint8") or version != 1:
        return
    if storage.origin == "unset" and subject.dialect.name != "trl":
        return
    yield Finding(
        "4-bit weights are stored as uint8, which FSDP can't shard",
        field="fsdp" if stated else "quantization",
        severity=None
        if subject.run_is_certain and (stated or (isinstance(launched, Section) and launched.sure))
        else "warning",
        notes=(launched.note("here FSDP is turned on", "distributed_type"),)
        if isinstance(launched, Section) and not stated
        else (),
        help='torch stops with "Cannot flatten integer dtype tensors"; bnb_4bit_quant_storage must '
        "be the model's dtype",
        wishes=(
            Wish(
                "bnb_4bit_quant_storage: bfloat16 (the model's dtype)",
                (Set("bnb_4bit_quant_storage", "bfloat16"),),
            ),
        )
        if subject.dialect.name == "trl"
        else (),
    )


def _fsdp_version(subject: RecipeSubject) -> int | None:
    """1 or 2, as transformers takes it; None where it is not known."""
    settings = subject.fsdp_settings
    if subject.recipe["fsdp_config"].path is not None and not isinstance(settings, Section):
        return None
    if isinstance(settings, Section):
        for key in ("version", "fsdp_version"):
            given = settings.value(key)
            if given is not None:
                return given if isinstance(given, int) else None
    return 1 if version_key(subject.transformers) < version_key(_FSDP2_SINCE) else 2


@check("QT508")
def initialisation_of_quantized(subject: RecipeSubject) -> Iterator[Finding]:
    """An initialisation that decomposes the weights meets packed ones."""
    init, bits = subject.value("init_lora_weights"), subject.value("quantization")
    if not isinstance(init, str) or not _OF_WEIGHTS.fullmatch(init.lower()):
        return
    if bits not in _PACKED:
        return
    yield Finding(
        f"init_lora_weights: {init} needs weights in floating point; the base model is loaded in "
        f"{'8' if bits == 'int8' else '4'} bits",
        field="init_lora_weights",
        severity=None if subject.run_is_certain else "warning",
        help="PEFT stops with an exception, or decomposes the packed bytes",
        wishes=(Wish("init_lora_weights: true", (Set("init_lora_weights", True),)),)
        if "init_lora_weights" in subject.dialect.slots
        else (),
    )


@check("QT509")
def loftq_of_quantized(subject: RecipeSubject) -> Iterator[Finding]:
    """LoftQ, which quantizes the weights itself, meets packed ones."""
    bits, to = subject.value("quantization"), _loftq_bits(subject)
    whole_anyway = bits == "int8" and to == 8  # what it rounds again is whole numbers already
    if bits not in _PACKED or to is None or whole_anyway or subject.dialect.name == "unsloth":
        return
    written = subject.states("init_lora_weights")
    yield Finding(
        f"LoftQ needs weights in floating point; the base model is loaded in {_width(bits)} bits",
        field="init_lora_weights" if written else None,
        path=None if written else _AXOLOTL_LOFTQ,
        severity=None if subject.run_is_certain else "warning",
        help=(
            "it takes the bytes for weights: "
            + (
                "the adapters get the shape of packed ones, and the first step stops"
                if bits in _FOUR_BITS
                else "the adapters start from noise, and the model with them"
            )
            + "; load the model in 16 bits, or call replace_lora_weights_loftq instead"
        ),
        wishes=(Wish("init_lora_weights: true", (Set("init_lora_weights", True),)),)
        if written and "init_lora_weights" in subject.dialect.slots
        else (),
    )


def _loftq_bits(subject: RecipeSubject) -> object:
    """The bits that LoftQ quantizes to; None where the run does not start with it, or says so in a
    way that PEFT refuses.
    """
    if subject.dialect.name == "axolotl":  # 0.19.0 loaders/adapter.py; 4 where nothing is written
        section = subject.document.parts[subject.recipe.part].node.at(_AXOLOTL_LOFTQ)
        if section is None or section.kind != "mapping":
            return None
        told = section.get("loftq_bits")
        return told.value if told else 4
    config = subject.recipe["loftq_config"]
    if subject.value("init_lora_weights") != "loftq" or not isinstance(config.value, Mapping):
        return None
    usual = 4 if (config.detail or "").endswith("LoftQConfig") else None
    return config.value.get("loftq_bits", usual)


@check("QT510")
def resize_quantized_embedding(subject: RecipeSubject) -> Iterator[Finding]:
    """New tokens for a quantized model."""
    if subject.value("resize_vocab") is True and isinstance(subject.value("quantization_bit"), int):
        yield Finding(
            "resize_vocab: true does not go with quantization_bit",
            field="resize_vocab",
            notes=(Note("", "quantization_bit"),),
            help='LLaMA-Factory stops with "Cannot resize embedding layers of a quantized model"',
        )


@check("QT512")
def missing_kbit_preparation(subject: RecipeSubject) -> Iterator[Finding]:
    """A quantized model whose adapters get no gradient, since nothing prepares it."""
    if subject.value("quantization") in _PACKED and cuts_adapters_off(subject):
        yield Finding(
            "nothing prepares the quantized model for reentrant gradient checkpointing: no "
            "gradient reaches the adapters",
            field="gradient_checkpointing",
            notes=(Note("here it is quantized", "quantization"),),
            help='backward stops with "element 0 of tensors does not require grad"; '
            "model = prepare_model_for_kbit_training(model) before get_peft_model mends it, or "
            "gradient_checkpointing_kwargs={'use_reentrant': False}",
        )


@check("QT513")
def checkpoint_quantized_otherwise(subject: RecipeSubject) -> Iterator[Finding]:
    """Weights that are published quantized, which the run wants quantized in another way."""
    held, bits = _published(subject), subject.recipe["quantization"]
    if held is None or bits.value not in _PACKED or bits.path is None:
        return
    outcome = _outcome(subject, held)
    if outcome is None or _width(held) == _width(bits.value):
        return
    key, width = str(bits.path[-1]), _width(held)
    recorded = is_recorded(subject)
    published = (
        f"{subject.model_name} is published {f'in {width} bits' if width else f'as {held} weights'}"
        f"{'' if recorded else ', by its name'}"
    )
    removed = Wish(f"delete {key}", (Remove(bits.path),))
    yield Finding(
        f"{key} has no effect: {published}"
        if outcome in ("kept", "made whole")
        else f"{key} can't quantize the model: {published}",
        field="quantization",
        severity=None if outcome == "refused" and recorded else "warning",
        help={
            "kept": "the weights are trained as they are published",
            "made whole": f"{subject.dialect.title} trains them in 16 bits",
            "refused": "transformers takes no BitsAndBytesConfig for them and stops; what is "
            "published in 16 bits can be loaded in fewer",
            "either": f"transformers {subject.transformers} keeps them as they are, or stops",
        }[outcome],
        wishes=(removed,) if outcome == "kept" or held in _REFUSED_AT_ONCE else (),
    )


def _outcome(subject: RecipeSubject, held: str) -> _Outcome | None:
    """What becomes of weights that are published otherwise than the run loads them; None where
    that is not known.
    """
    release, name = version_key(subject.transformers), subject.dialect.name
    if held not in (*_METHODS, *_PACKED):
        return None
    if name == "llama_factory":
        if subject.recipe.private.get("other_way") in _OTHER_LOADERS:
            return None
        return "made whole" if held in _MADE_WHOLE else "kept"
    if name not in _PASSED_ON or release < version_key(_MERGED_SINCE):
        return None
    if release < version_key(_NESTED_SINCE) and _is_nested(subject):
        return None
    if held in _PACKED or (name == "axolotl" and held in _AXOLOTL_KEEPS):
        return "kept"
    refused = held in _REFUSED_AT_ONCE or release >= version_key(_REFUSED_SINCE)
    return "refused" if refused else "either"


def _published(subject: RecipeSubject) -> str | None:
    """How the model's weights are published where they are quantized. What bitsandbytes has
    quantized keeps all of its own settings.
    """
    return subject.tree.facts.get("checkpoint_quantization") if subject.tree else None


def _width(kind: str) -> int | None:
    """The bits of weights of bitsandbytes, None for those of another method."""
    return 4 if kind in _FOUR_BITS else 8 if kind in _PACKED else None


def is_recorded(subject: RecipeSubject) -> bool:
    """Whether the model's own config.json says how its weights are published: not a name alone,
    and not the config of a model that it is made from.
    """
    found = subject.resolution
    if not isinstance(found, Resolution) or found.known_as is not None:
        return False
    entry = catalogue.model(found.id) if found.source.startswith("catalogue") else None
    return not found.source.startswith("catalogue") or bool(entry and entry.quantization)


def _is_nested(subject: RecipeSubject) -> bool:
    """Whether only the text model of a model on this disk says that it is quantized."""
    config = subject.model_config
    return config is not None and config.value("quantization_config") is None
