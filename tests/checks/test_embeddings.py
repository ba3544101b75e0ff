"""Tied embeddings, by what the base model's own config.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_lint import Options, lint_file

TEXT = "lora:\n  base_model_name_or_path: ./base\n  r: 16\n  lora_alpha: 32\n"
TEXT += "  target_modules: [q_proj, up_proj]\n  modules_to_save: [%s]\n"
# Sizes that no known model has; Gemma's class ties by default, Llama's does not.
SIZES = {"num_hidden_layers": 5, "hidden_size": 1024, "vocab_size": 4000}
CLASSES = {"gemma": "GemmaForCausalLM", "llama": "LlamaForCausalLM"}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head", "norm"])
def test_the_own_config_decides(kind: str, tied: bool, saved: str, tmp_path: Path) -> None:
    config = {"model_type": kind, "architectures": [CLASSES[kind]], "tie_word_embeddings": tied}
    path = tmp_path / "train.yaml"
    path.write_text(TEXT % saved)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(config | SIZES, indent=1))
    options = Options(
        select=("EM804",), isolated=True, peft_version="0.21.2", transformers_version="5.23.0"
    )
    found = lint_file(str(path), options).diagnostics
    assert bool(found) is (tied and saved != "norm")
    for diagnostic in found:
        (related,) = diagnostic.related
        assert related.path.endswith("config.json")
        assert related.document is not None
        assert related.document.text[slice(*related.span)] == "true"
