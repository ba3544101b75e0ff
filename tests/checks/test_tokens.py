"""Tokens that an Axolotl file adds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_lint import Options, lint_file

TEXT = "base_model: {model}\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\n"
TEXT += 'tokens: ["<|im_start|>", "<|im_end|>"]\n{more}'


def found(folder: Path, model: str, more: str = "") -> list[tuple[str, str]]:
    path = folder / "train.yaml"
    path.write_text(TEXT.format(model=model, more=more))
    report = lint_file(str(path), Options(select=("EM805",), isolated=True))
    return [(d.severity, d.message) for d in report.diagnostics]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model that has one of the two tokens."""
    folder = tmp_path / "base"
    folder.mkdir()
    added = [{"id": 5, "content": "<|im_start|>"}]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {}, "added_tokens": added}))
    return tmp_path


def test_an_unknown_vocabulary_gives_a_warning(tmp_path: Path) -> None:
    ((severity, message),) = found(tmp_path, "meta-llama/Llama-3.1-8B")
    assert severity == "warning"
    assert "if the vocabulary lacks them" in message


def test_a_known_vocabulary_gives_an_error_about_what_it_lacks(base: Path) -> None:
    ((severity, message),) = found(base, "./base")
    assert severity == "error"
    assert "<|im_end|>" in message
    assert "<|im_start|>" not in message


@pytest.mark.parametrize(
    "more",
    [
        "lora_modules_to_save: [embed_tokens, lm_head]\n",
        "lora_modules_to_save: [embed_tokens]\n",
        "peft_trainable_token_indices: [1, 2]\n",
        "lora_target_modules: [q_proj, embed_tokens]\n",
    ],
)
def test_trained_embeddings_are_no_finding(base: Path, more: str) -> None:
    assert not found(base, "./base", more)


def test_a_saved_head_alone_does_not_train_the_embeddings(base: Path) -> None:
    assert found(base, "./base", "lora_modules_to_save: [lm_head]\n")


def test_the_collator_leaves_the_end_of_text_out_of_the_loss() -> None:
    """TR617's claim, by transformers itself."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pytest.importorskip("torch")
    vocabulary = {"a": 0, "b": 1, "</s>": 2, "<pad>": 3}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="a")
    for pad, label in (("</s>", -100), ("<pad>", 2)):
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer(model), eos_token="</s>", pad_token=pad
        )
        collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
        batch = collator([{"input_ids": [0, 1, 2]}])
        assert batch["labels"].tolist() == [[0, 1, label]]
