"""Writes ``lora_lint/data/models/names.json``: which architecture a model id has, without sizes.

    python tools/model_names.py --ms-swift DIR --unsloth DIR

``DIR`` is the package's folder of an unpacked release (``pip download --no-deps``). Read as text,
nothing is run. Needs the catalogue (``tools/catalogue.py``) to be there. The sources:

* ms-swift's model registry (``swift/model/models``, Apache-2.0): each group of models with its
  ``architectures``, and each model's id on ModelScope beside that on the hub. Groups with one
  architecture count; a group of which transformers has none of the architectures is remote code.
* unsloth's table of its own uploads (``unsloth/models/mapper.py``, Apache-2.0): which upload holds
  which model. Uploads whose layout is another (``DIFFERENT``) are left out.
* transformers' own documentation: the checkpoint a config class names, where the name speaks of the
  model type and no other model type names the same checkpoint.
* the tables below, kept by hand: series of models and renamed repositories. An organisation's
  series is in transformers' documentation of the model type, a renamed repository redirects on the
  hub.

What can't be told for certain is left out: a wrong tree is worse than none.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
from collections import Counter, defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lora_lint.models.catalogue import architecture, model, model_types, models

DATA = Path(__file__).parent.parent / "lora_lint" / "data" / "models" / "names.json"

# Series of models -> model type. The class follows the task, since heads differ within a series.
SERIES = {
    "01-ai/Yi-*": "llama",
    "CohereForAI/aya-23-*": "cohere",
    "CohereLabs/tiny-aya-*": "cohere2",
    "EleutherAI/gpt-j-6*": "gptj",
    "EleutherAI/gpt-neo-*": "gpt_neo",
    "EleutherAI/gpt-neox-20b": "gpt_neox",
    "EleutherAI/pythia-*": "gpt_neox",
    "FacebookAI/roberta-*": "roberta",
    "FacebookAI/xlm-roberta-*": "xlm-roberta",
    "HuggingFaceH4/zephyr-7b-*": "mistral",
    "HuggingFaceTB/SmolLM-*": "llama",
    "HuggingFaceTB/SmolLM2-*": "llama",
    "HuggingFaceTB/SmolLM3-*": "smollm3",
    "HuggingFaceTB/SmolVLM2-*": "smolvlm",
    "HuggingFaceTB/SmolVLM-Instruct": "idefics3",
    "Qwen/Qwen2.5-Omni-*": "qwen2_5_omni",
    "Salesforce/xgen-7b-*": "llama",
    "arcee-ai/Trinity-Nano-*": "afmoe",
    "ByteDance-Seed/Seed-Coder-8B-*": "llama",
    "h2oai/h2o-danube2-1.8b-*": "mistral",
    "h2oai/llama2-0b-unit-test": "llama",
    "mistralai/Devstral-Small-2505": "mistral",
    "mistralai/Devstral-Small-2507": "mistral",
    "mistralai/Magistral-Small-250?": "mistral",
    "mistralai/Mistral-Medium-3.5-128B": "mistral3",
    "mistralai/Mistral-Small-4-119B-2603": "mistral3",
    "nvidia/NVIDIA-Nemotron-3-Nano-*": "nemotron_h",
    "LiquidAI/LFM2-8B-A1B*": "lfm2_moe",
    "LiquidAI/LFM2-VL-*": "lfm2_vl",
    "Salesforce/blip2-*": "blip-2",
    "ai21labs/AI21-Jamba-*": "jamba",
    "ai21labs/Jamba-*": "jamba",
    "albert/albert-*": "albert",
    "allenai/OLMo-1B-hf": "olmo",
    "allenai/OLMo-7B*-hf": "olmo",
    "allenai/OLMo-2-*": "olmo2",
    "allenai/OLMoE-1B-7B-*": "olmoe",
    "arcee-ai/AFM-4.5B*": "arcee",
    "bigcode/starcoder2-*": "starcoder2",
    "bigscience/bloom": "bloom",
    "bigscience/bloom-*": "bloom",
    "bigscience/bloomz": "bloom",
    "bigscience/bloomz-*": "bloom",
    "bigscience/mt0-*": "mt5",
    "cerebras/Cerebras-GPT-*": "gpt2",
    "deepcogito/cogito-v1-preview-llama-*": "llama",
    "deepcogito/cogito-v1-preview-qwen-*": "qwen2",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-*": "llama",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-*": "qwen2",
    "distilbert/distilbert-*": "distilbert",
    "distilbert/distilgpt2": "gpt2",
    "distilbert/distilroberta-base": "roberta",
    "facebook/bart-*": "bart",
    "facebook/dinov2-base": "dinov2",
    "facebook/dinov2-giant": "dinov2",
    "facebook/dinov2-large": "dinov2",
    "facebook/dinov2-small": "dinov2",
    "facebook/hubert-*": "hubert",
    "facebook/mbart-large-*": "mbart",
    "facebook/opt-*": "opt",
    "google-bert/bert-*": "bert",
    "google-t5/t5-*": "t5",
    "google/codegemma-*": "gemma",
    "google/electra-*": "electra",
    "google/flan-t5-*": "t5",
    "google/gemma-2-*": "gemma2",
    "google/gemma-3-1b-*": "gemma3_text",
    "google/gemma-3-270m*": "gemma3_text",
    "google/gemma-3n-*": "gemma3n",
    "google/mt5-*": "mt5",
    "google/paligemma-*": "paligemma",
    "google/paligemma2-*": "paligemma",
    "google/siglip-*": "siglip",
    "google/t5-v1_1-*": "t5",
    "google/vit-base-patch*": "vit",
    "google/vit-huge-patch*": "vit",
    "google/vit-large-patch*": "vit",
    "huggyllama/llama-*": "llama",
    "ibm-granite/granite-3.?-2b-*": "granite",
    "ibm-granite/granite-3.?-8b-*": "granite",
    "llava-hf/llava-1.5-*": "llava",
    "meta-llama/Llama-2-*-hf": "llama",
    "meta-llama/Llama-3.1-*": "llama",
    "meta-llama/Llama-3.2-1B*": "llama",
    "meta-llama/Llama-3.2-3B*": "llama",
    "meta-llama/Llama-3.3-*": "llama",
    "meta-llama/Meta-Llama-3-*": "llama",
    "microsoft/deberta-base": "deberta",
    "microsoft/deberta-large": "deberta",
    "microsoft/deberta-v2-*": "deberta-v2",
    "microsoft/deberta-v3-*": "deberta-v2",
    "microsoft/layoutlm-*-uncased": "layoutlm",
    "microsoft/resnet-*": "resnet",
    "microsoft/swin-base-*": "swin",
    "microsoft/swin-large-*": "swin",
    "microsoft/swin-tiny-*": "swin",
    "mistralai/Voxtral-*-2507": "voxtral",
    "nvidia/Nemotron-Mini-4B-Instruct": "nemotron",
    "nvidia/mit-b?": "segformer",
    "openai/clip-vit-*": "clip",
    "openai/whisper-*": "whisper",
    "stabilityai/stablelm-2-*": "stablelm",
    "stabilityai/stablelm-3b-4e1t": "stablelm",
    "stabilityai/stablelm-base-alpha-*": "gpt_neox",
    "stabilityai/stablelm-tuned-alpha-*": "gpt_neox",
    "stabilityai/stablelm-zephyr-3b": "stablelm",
    "tiiuae/Falcon-H1-*": "falcon_h1",
    "tiiuae/Falcon3-*": "llama",
    "tiiuae/falcon-11B*": "falcon",
    "tiiuae/falcon-40b*": "falcon",
    "tiiuae/falcon-7b*": "falcon",
}
# Series of models whose repositories bring their own code, beside what ms-swift lists.
REMOTE = {
    "GSAI-ML/LLaDA-8B-*": "LLaDAModelLM",
    "THUDM/chatglm*": "ChatGLMModel",
    "THUDM/glm-4-9b": "ChatGLMModel",
    "THUDM/glm-4-9b-chat": "ChatGLMModel",
    "baichuan-inc/Baichuan*": "BaichuanForCausalLM",
    "cerebras/btlm-3b-8k-*": "BTLMLMHeadModel",
    "deepseek-ai/Janus-*": "MultiModalityCausalLM",
    "deepseek-ai/deepseek-vl2*": "DeepseekVLV2ForCausalLM",
    "inclusionAI/LLaDA2.?-*": "LLaDA2MoeModelLM",
    "internlm/internlm-*": "InternLMForCausalLM",
    "internlm/internlm2*": "InternLM2ForCausalLM",
    "microsoft/Phi-3-small-*": "Phi3SmallForCausalLM",
    "microsoft/Phi-3-vision-*": "Phi3VForCausalLM",
    "nvidia/Nemotron-Flash-*": "NemotronFlashForCausalLM",
    "nvidia/Nemotron-Labs-Diffusion-*": "NemotronLabsDiffusionModel",
    "openbmb/MiniCPM-2B-*": "MiniCPMForCausalLM",
    "replit/replit-code-*": "ReplitLM",
}
# Repositories that hold the same model under another name, beside what the rules below find.
SAME = {
    "huggyllama/llama-7b": "decapoda-research/llama-7b-hf",  # two conversions of LLaMA 7B
    "axolotl-ai-co/Mistral-Medium-3.5-128B-BF16": "mistralai/Mistral-Medium-3.5-128B",
    "axolotl-ai-co/Mistral-Small-4-119B-2603-BF16": "mistralai/Mistral-Small-4-119B-2603",
    "casperhansen/llama-3-70b-fp16": "meta-llama/Meta-Llama-3-70B",
    "Hugofernandez/Mistral-7B-v0.1-colab-sharded": "mistralai/Mistral-7B-v0.1",
    "mhenrichsen/gemma-7b": "google/gemma-7b",
    "opensourcerelease/DeepSeek-V3-bf16": "deepseek-ai/DeepSeek-V3",
    "philschmid/meta-llama-2-7b-hf": "meta-llama/Llama-2-7b-hf",
    "philschmid/Llama-2-7b-hf": "meta-llama/Llama-2-7b-hf",
}
# Tuned releases of a model by its own publisher, which keep its dimensions (their model cards). Not
# all do: Mixtral-8x22B-Instruct has another vocabulary, DeepSeek-R1-Distill-Qwen-1.5B another head.
TUNED = {
    "HuggingFaceH4/zephyr-7b-beta": "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2-0.5B-Instruct": "Qwen/Qwen2-0.5B",
    "Qwen/Qwen2-7B-Instruct": "Qwen/Qwen2-7B",
    "Qwen/Qwen3-235B-A22B-Instruct-2507": "Qwen/Qwen3-235B-A22B",
    "Qwen/Qwen3-235B-A22B-Thinking-2507": "Qwen/Qwen3-235B-A22B",
    "Qwen/Qwen3-30B-A3B-Base": "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-Instruct-2507": "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-Thinking-2507": "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-VL-235B-A22B-Thinking": "Qwen/Qwen3-VL-235B-A22B-Instruct",
    "Qwen/Qwen3-VL-2B-Thinking": "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-30B-A3B-Thinking": "Qwen/Qwen3-VL-30B-A3B-Instruct",
    "Qwen/Qwen3-VL-4B-Thinking": "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3-VL-8B-Thinking": "Qwen/Qwen3-VL-8B-Instruct",
    "agentica-org/DeepCoder-14B-Preview": "Qwen/Qwen2.5-14B",
    "deepseek-ai/DeepSeek-R1-0528": "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B": "Qwen/Qwen3-8B",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": "Qwen/Qwen2.5-14B",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": "Qwen/Qwen2.5-32B",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": "Qwen/Qwen2.5-7B",
    "deepseek-ai/DeepSeek-V3-0324": "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3-Base": "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3.1": "deepseek-ai/DeepSeek-V3",
    "meta-llama/Llama-3.2-11B-Vision": "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": "meta-llama/Llama-4-Maverick-17B-128E",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": "meta-llama/Llama-4-Scout-17B-16E",
    "meta-llama/Meta-Llama-3.1-405B-Instruct": "meta-llama/Meta-Llama-3.1-405B",
    "microsoft/Phi-4-mini-reasoning": "microsoft/Phi-4-mini-instruct",
    "mistralai/Devstral-Small-2505": "mistralai/Magistral-Small-2506",
    "mistralai/Devstral-Small-2507": "mistralai/Magistral-Small-2507",
    "tiiuae/falcon-7b": "tiiuae/falcon-7b-instruct",
}
# Names under which the hub still finds a repository: its organisation's name today and before.
# Models of the first days had none.
RENAMED = {
    "": ["openai-community", "google-bert", "FacebookAI", "distilbert", "google-t5", "albert"],
    "CohereLabs": ["CohereForAI"],
    "THUDM": ["zai-org"],
    "zai-org": ["THUDM"],
    "ZhipuAI": ["zai-org", "THUDM"],  # on ModelScope
}
RENAMED_PARTS = [["Meta-Llama-3.1-", "Llama-3.1-"], ["Llama-3.1-", "Meta-Llama-3.1-"]]
# Organisations whose uploads carry the name of the model they copy or quantize.
MIRRORS = [
    "AI-ModelScope",
    "LLM-Research",
    "NousResearch",
    "RedHatAI",
    "TechxGenus",
    "TheBloke",
    "axolotl-quants",
    "casperhansen",
    "hugging-quants",
    "ISTA-DASLab",
    "mlx-community",
    "modelscope",
    "neuralmagic",
    "nv-community",
    "nvidia",
    "solidrust",
    "unsloth",
]
# What a quantized copy adds to the name. The classes of its Linear layers differ, names do not.
SUFFIXES = [
    r"-(?:unsloth-)?bnb-[48]bit",
    r"-bnb-nf4(?:-bf16)?",
    r"-(?:GPTQ|AWQ|HQQ|AQLM)(?:-[\w.-]+)?",
    r"-quantized\.w\d+a\d+",
    r"-(?:FP8|fp8)(?:-[\w-]+)?",
    r"-(?:NVFP4|MXFP4)",
    r"-(?:BF16|FP16)",
]
MLX_SUFFIXES = [r"-(?:[3468]bit|bf16|fp16)"]
# Uploads that are laid out otherwise than the model whose name they carry: unsloth's Phi models
# are converted to Llama and Mistral; experts split into Linear modules.
DIFFERENT = [
    "unsloth/*phi*",
    "*linearized*",
    "*gpt-oss*bnb*",
    "*gpt-oss*-linear*",
    "*llama-4*bnb*",
    "*-gguf",
]


def registry(folder: Path) -> list[tuple[list[str], list[list[str]]]]:
    """ms-swift's groups: architectures, and for each model its ids (ModelScope's, the hub's)."""
    groups = []
    for path in sorted((folder / "model" / "models").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Meta")):
                continue
            architectures = [
                ast.literal_eval(k.value)
                for k in node.keywords
                if k.arg == "architectures" and isinstance(k.value, ast.List)
            ]
            if not architectures:
                continue
            ids = [
                [a.value for a in call.args[:2] if isinstance(a, ast.Constant) and a.value]
                for call in ast.walk(node)
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Model"
            ]
            groups.append((architectures[0], [names for names in ids if names]))
    return groups


def uploads(folder: Path) -> list[list[str]]:
    """unsloth's groups of ids that hold one model."""
    tree = ast.parse((folder / "models" / "mapper.py").read_text(encoding="utf-8"))
    table = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith("_MAPPER")
    )
    groups = []
    for key, value in table.items():
        values = [v for part in value.values() for v in part] if isinstance(value, dict) else value
        groups.append([name for name in (key, *values) if name])
    return groups


def documented() -> dict[str, str]:
    """Checkpoint -> model type, as transformers' config classes name them."""
    found: dict[str, set[str]] = defaultdict(set)
    for model_type in CONFIG_MAPPING.keys():
        try:
            source = inspect.getsource(CONFIG_MAPPING[model_type])
        except (OSError, TypeError, ImportError, KeyError, AttributeError):
            continue
        for name in re.findall(r'@auto_docstring\(checkpoint="([^"]+)"', source):
            found[name].add(model_type)
    result = {}
    for name, types in found.items():
        if len(types) == 1 and "/" in name:
            model_type = next(iter(types))
            letters = re.sub(r"[^a-z0-9]", "", model_type.lower())
            if letters in re.sub(r"[^a-z0-9]", "", name.lower()):
                result[name] = model_type
    return result


def collect(swift: Path, unsloth: Path) -> dict[str, Any]:
    """Everything that names.json holds."""
    types_known = set(model_types())
    known = {cls for name in types_known if (a := architecture(name)) for cls in a.classes}
    sized = {entry.id for entry in models()}
    architectures: dict[str, set[str]] = defaultdict(set)
    remote: dict[str, set[str]] = defaultdict(set)
    same: dict[str, str] = dict(SAME)
    for names, group in registry(swift):
        own = not any(hasattr(transformers, name) for name in names)
        for ids in group:
            if own and names:
                remote[names[0]].add(ids[-1])
            elif len(names) == 1 and names[0] in known:
                architectures[names[0]].add(ids[-1])
            if len(ids) == 2 and ids[0] != ids[1]:
                same[ids[0]] = ids[1]
    for group in uploads(unsloth):
        official = [name for name in group if not name.startswith("unsloth/")] or group[1:2]
        for name in group:
            if official and name != official[0] and not different(name):
                same.setdefault(name, official[0])
    of_class = {name: cls for cls, ids in architectures.items() for name in ids}
    types: dict[str, set[str]] = defaultdict(set)
    for name, model_type in documented().items():
        own_code = any(fnmatchcase(name, pattern) for pattern in REMOTE)
        if name in of_class or series(name) or own_code:
            continue
        if model_type in types_known:
            types[model_type].add(name)
    everything = sized | set(of_class) | {name for ids in types.values() for name in ids}
    everything |= {name for ids in remote.values() for name in ids}
    same = {
        name: target
        for name, target in same.items()
        if (target in everything or series(target)) and name not in everything
    }
    missing = [model_type for model_type in SERIES.values() if model_type not in types_known]
    if missing:
        raise SystemExit(f"series of model types that have no template: {missing}")
    return {
        "architectures": {cls: sorted(ids - sized) for cls, ids in sorted(architectures.items())},
        "model_types": {name: sorted(ids - sized) for name, ids in sorted(types.items())},
        "remote_code": {cls: sorted(ids - sized) for cls, ids in sorted(remote.items())},
        "same": dict(sorted(same.items())),
        "tuned": {name: base for name, base in TUNED.items() if name not in sized},
        "series": SERIES,
        "remote_series": REMOTE,
        "renamed": RENAMED,
        "renamed_parts": RENAMED_PARTS,
        "mirrors": MIRRORS,
        "suffixes": SUFFIXES,
        "mlx_suffixes": MLX_SUFFIXES,
        "different": DIFFERENT,
    }


def different(name: str) -> bool:
    """Whether an upload is known to be laid out otherwise than its name says."""
    return any(fnmatchcase(name.lower(), pattern) for pattern in DIFFERENT)


def series(name: str) -> str | None:
    """The model type of the series that a model belongs to."""
    return next((t for pattern, t in SERIES.items() if fnmatchcase(name, pattern)), None)


def check(names: dict[str, Any]) -> None:
    """Stop where two sources disagree about a model's class or model type."""
    from lora_lint.models.catalogue import class_of, model_type_of

    for cls, ids in names["architectures"].items():
        for name in ids:
            entry, listed = model(name), series(name)
            if entry is not None and class_of(entry.tree) != cls:
                print(f"disagree: {name} is {cls} to ms-swift, {class_of(entry.tree)} in the index")
            if listed is not None and listed != model_type_of(cls):
                print(f"disagree: {name} is {cls} to ms-swift, {listed} as a series")
    for entry in models():
        listed = series(entry.id)
        if listed is not None and entry.load().model_type != listed:
            print(f"disagree: {entry.id} is {entry.load().model_type}, {listed} as a series")


def main() -> None:
    """Write the file and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ms-swift", type=Path, required=True)
    parser.add_argument("--unsloth", type=Path, required=True)
    options = parser.parse_args()
    names = collect(options.ms_swift, options.unsloth)
    check(names)
    before = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
    body = ",\n".join(f'"{key}":{compact.encode(value)}' for key, value in names.items())
    DATA.write_text(f"{{\n{body}\n}}\n", encoding="utf-8", newline="\n")
    for key, value in names.items():
        if value != before.get(key):
            print(f"changed: {key}")
    counts = Counter({key: sum(map(len, names[key].values())) for key in names if key in COUNTED})
    print(dict(counts), f"same {len(names['same'])}", f"{DATA.stat().st_size:,} bytes")


COUNTED = ("architectures", "model_types", "remote_code")

if __name__ == "__main__":
    main()
