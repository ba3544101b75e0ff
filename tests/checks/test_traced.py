"""``--trace``: the memory of a real step, from a process of its own."""

from __future__ import annotations

import json

from lora_lint import Options, lint_text
from lora_lint.checks import traced
from lora_lint.memory.trace import NotTraced
from tests.checks.test_levers import BIG

TINY = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "torch_dtype": "bfloat16",
}


def subject(text, **options):
    (found,) = lint_text(text, "train.yaml", Options(isolated=True, **options)).recipes
    return found


def test_a_trace_takes_the_place_of_the_closed_form(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    text = BIG.replace("meta-llama/Llama-2-7b-hf", str(tmp_path)).replace("4096", "512")
    closed, found = (subject(text, trace=trace).memory for trace in (False, True))
    assert found.site.endswith("(traced)")
    assert found.peak != closed.peak
    assert abs(found.tensors / closed.tensors - 1) < 0.02


def test_why_there_is_no_trace_is_said(monkeypatch):
    def fail(_):
        raise NotTraced("torch is not there")

    monkeypatch.setattr(traced, "trace", fail)
    closed, found = (subject(BIG, trace=trace).memory for trace in (False, True))
    assert found == closed._replace(reason="not traced: torch is not there")


def test_the_catalogues_own_dimensions_make_a_config(monkeypatch):
    asked = []

    def note(request):
        asked.append(request)
        raise NotTraced("enough")

    monkeypatch.setattr(traced, "trace", note)
    assert subject(BIG, trace=True).memory is not None
    config = asked[0]["config"]
    assert config["model_type"] == "llama"
    assert (config["hidden_size"], config["num_hidden_layers"]) == (4096, 32)
    assert asked[0]["lora"]["r"] == 16
    assert (asked[0]["batch"], asked[0]["length"]) == (8, 4096)


def test_a_step_with_images_is_traced_as_it_is_estimated(monkeypatch):
    asked = []

    def note(request):
        asked.append(request["images"])
        raise NotTraced("enough")

    monkeypatch.setattr(traced, "trace", note)
    text = f"{BIG}processor_type: AutoProcessor\n"
    text = text.replace("meta-llama/Llama-2-7b-hf", "google/gemma-3-4b-it")
    assert subject(text, trace=True).memory.assumed["images_per_sequence"] == 1
    assert set(asked) == {1}
