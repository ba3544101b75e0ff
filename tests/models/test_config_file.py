"""config.json as anybody may have written it."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_lint.models.config_file import (
    MAX_BYTES,
    MISSING,
    ConfigFile,
    UnreadableError,
    read_object,
)


def test_an_object_is_read_with_or_without_a_mark(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"model_type": "llama"}')
    assert read_object(path) == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"llama"', "not a JSON object"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b" " * (MAX_BYTES + 1), "more than 16 MiB"),
    ],
)
def test_anything_else_is_refused_with_the_reason(tmp_path, content, says):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=says):
        read_object(path)


def test_a_pipe_or_a_directory_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    for path in (tmp_path / "config.json", tmp_path, tmp_path / "none", tmp_path / "a\x00b"):
        with pytest.raises(UnreadableError):
            read_object(path)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = ["model_type", "architectures", "dtype", "torch_dtype", "auto_map", "text_config", "x"]
KNOWN = {"values": {"x": 1, "text_config.y": None}, "absent": ["x"], "null": []}
SWITCHES = {
    "text_config.x": {"default": [1], "rule": "value", "adds": [], "drops": []},
    "x.y": {"default": None, "rule": "none", "adds": [], "drops": []},
    "dtype": {"default": 0, "rule": "zero", "adds": [], "drops": []},
}


@given(st.dictionaries(st.sampled_from(KEYS), anything))
def test_odd_values_are_answers_not_errors(values):
    config = ConfigFile(json.loads(json.dumps(values)))
    assert config.model_type is None or isinstance(config.model_type, str)
    assert config.architecture is None or isinstance(config.architecture, str)
    assert config.dtype in (None, "float16", "bfloat16", "float32")
    assert isinstance(config.remote_code, bool)
    assert config.agrees(KNOWN) in (True, False)
    assert len(list(config.deviating(SWITCHES))) <= 3


def test_text_fields_stand_below_or_at_the_top():
    assert ConfigFile({"text_config": {"hidden_size": 8}}).get("text_config.hidden_size") == 8
    assert ConfigFile({"hidden_size": 8}).get("text_config.hidden_size") == 8
    nested = ConfigFile({"hidden_size": 8, "text_config": {}})
    assert nested.get("text_config.hidden_size") is MISSING


def test_a_config_agrees_where_all_deciding_fields_do():
    known = {
        "values": {"hidden_size": 64, "head_dim": 16, "q_rank": None},
        "absent": ["head_dim", "q_rank"],
        "null": ["head_dim"],
    }
    assert ConfigFile({"hidden_size": 64, "head_dim": 16}).agrees(known)
    assert ConfigFile({"hidden_size": 64, "head_dim": None, "other": 3}).agrees(known)
    assert not ConfigFile({"hidden_size": 64, "head_dim": 32}).agrees(known)
    assert not ConfigFile({"head_dim": 16}).agrees(known)
    assert not ConfigFile({"hidden_size": None}).agrees(known)
    assert not ConfigFile({"hidden_size": 64, "q_rank": 8}).agrees(known)


@pytest.mark.parametrize(
    ("rule", "default", "value", "deviates"),
    [
        ("none", 1536, 512, False),
        ("none", 1536, None, True),
        ("none", None, 8, True),
        ("zero", 8, 64, False),
        ("zero", 8, 0, True),
        ("zero", False, True, True),
        ("value", "relu", "relu", False),
        ("value", "relu", "gated-gelu", True),
        ("absent", None, ["full_attention"], True),
    ],
)
def test_a_switch_deviates_by_its_rule(rule, default, value, deviates):
    switch = {"default": default, "rule": rule, "adds": ["a"], "drops": []}
    assert list(ConfigFile({"field": value}).deviating({"field": switch})) == [switch] * deviates
    assert list(ConfigFile({}).deviating({"field": switch})) == []


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "fp4"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "load_in_8bit": False}, "nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_algo": "FP8", "producer": {"name": "modelopt"}}, "fp8"),
        ({"bits": 4}, "quantized"),
        (None, None),
        ("fp8", None),
    ],
)
def test_how_the_published_weights_are_held(values, held):
    assert ConfigFile({"quantization_config": values}).quantization == held
    assert ConfigFile({"text_config": {"quantization_config": values}}).quantization == held


def test_transformers_takes_the_same_type_of_4_bit():
    quantization_config = pytest.importorskip("transformers.utils.quantization_config")
    for values in ({}, {"bnb_4bit_quant_type": "nf4"}, {"bnb_4bit_quant_type": "fp4"}):
        stored = {"load_in_4bit": True, **values}
        theirs = quantization_config.BitsAndBytesConfig.from_dict(stored)
        found = ConfigFile({"quantization_config": stored}).quantization
        assert found == theirs.bnb_4bit_quant_type
