"""The catalogue's files, as text and compressed."""

import pytest

from lora_lint.models import packed
from tools import packing


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "MODELS", tmp_path)
    packed._dictionary.cache_clear()
    yield tmp_path
    packed._dictionary.cache_clear()


def put(models, name, text):
    path = models / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)


def texts(count):
    common = b'["model",["Linear",["in_features","out_features"]],["self_attn","q_proj","v_proj"]],'
    return {f"trees/t{i}.json": b"[" + common * 2 + str(i).encode() + b"]" for i in range(count)}


def test_a_folder_is_packed_and_reads_as_before(models):
    for name, text in texts(5).items():
        put(models, name, text)
    packing.pack_folder("trees")
    assert not list(models.glob("trees/*.json"))
    assert {name: packed.read(name) for name in texts(5)} == texts(5)


def test_a_file_written_since_is_the_one_that_counts(models):
    packing.write("trees/a.json", b"[1]")
    put(models, "trees/a.json", b"[2]")
    assert packed.read("trees/a.json") == b"[2]"


def test_what_was_packed_against_a_file_can_still_be_read_when_that_changes(models):
    packing.write("trees/a.json", b'["the newest"]')
    packing.write("lines/known/a.json", b'["the newest but one"]', b'["the newest"]')
    packing.write("trees/a.json", b'["another"]')
    assert packed.read("lines/known/a.json", b'["another"]') == b'["the newest but one"]'


def test_a_file_that_is_not_there_is_an_error(models):
    with pytest.raises(OSError, match="nothing"):
        packed.read("trees/nothing.json")
