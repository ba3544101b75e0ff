"""TRL's own reading of YAML files and commands: TrlParser with the classes of its SFT script.

python tools/second_ways/trl.py FILE ...
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

from trl import DPOConfig, GRPOConfig, ModelConfig, RewardConfig, ScriptArguments, SFTConfig
from trl.scripts.utils import TrlParser
from trl.trainer.utils import get_peft_config, get_quantization_config

sys.path.append(str(Path(__file__).parent))
from argv import arguments, calls

CONFIGS = (SFTConfig, DPOConfig, GRPOConfig, RewardConfig)


def reading(path: str) -> dict[str, object]:
    """What the first of TRL's trainers that takes a file makes of it."""
    error: BaseException | None = None
    given = arguments(calls(path)[0]) if path.endswith(".sh") else ["--config", path]
    for config in CONFIGS:
        parser = TrlParser((ScriptArguments, config, ModelConfig))
        try:
            _, training, model = parser.parse_args_and_config(
                [*given, "--output_dir", "out", "--bf16", "false", "--fp16", "false"],
                fail_with_unknown_args=False,
            )
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - argparse exits
            error = exc
            continue
        lora = get_peft_config(model)
        quantization = get_quantization_config(model)
        kind = "none"
        if quantization is not None:
            kind = quantization.bnb_4bit_quant_type if quantization.load_in_4bit else "int8"
        told = {
            "base_model": model.model_name_or_path,
            "per_device_train_batch_size": training.per_device_train_batch_size,
            "quantization": kind,
        }
        if path.endswith(".sh"):  # a command names its trainer
            told["max_length"] = getattr(training, "max_length", None)
        if lora is not None:
            targets = lora.target_modules
            told |= {
                "r": lora.r,
                "lora_alpha": lora.lora_alpha,
                "lora_dropout": lora.lora_dropout,
                "target_modules": sorted(targets) if isinstance(targets, set) else targets,
            }
        return told
    return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    answers: dict[str, object] = {"version": f"trl {version('trl')}"}
    for name in sys.argv[1:]:
        answers[name] = reading(name)
    print(json.dumps(answers))
