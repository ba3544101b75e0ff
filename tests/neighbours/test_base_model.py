"""The base model's tokenizer, where its files are on this disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_lint.dialects import recipes
from lora_lint.documents import parse
from lora_lint.neighbours import Tokenizer, tokenizer

AXOLOTL = "base_model: %s\nadapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_target_linear: true\n"
FILE = {
    "model": {"vocab": {"a": 0, 'say "hi"': 1, "Ünï": 2}},
    "added_tokens": [{"id": 3, "content": "<|im_start|>"}],
}


def of(config: Path, model: str) -> Tokenizer | None:
    document = parse(str(config), AXOLOTL % model)
    (recipe,) = recipes(document)
    return tokenizer(str(config), recipe)


def test_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(FILE))
    found = of(tmp_path / "train.yaml", "./base")
    assert found is not None
    for token in ("a", "<|im_start|>", 'say "hi"', "Ünï"):
        assert found.has(token)
    for token in ("<|im_end|>", "im_start", "say"):
        assert not found.has(token)


def test_the_hugging_face_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hub" / "models--acme--base"
    snapshot = folder / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc123")
    (snapshot / "tokenizer.json").write_text(json.dumps(FILE))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = of(tmp_path / "train.yaml", "acme/base")
    assert found is not None
    assert found.has("<|im_start|>")


@pytest.mark.parametrize("model", ["./nowhere", "${BASE}", "acme/unknown"])
def test_what_is_not_there_is_not_known(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert of(tmp_path / "train.yaml", model) is None
