"""Models that the catalogue does not know, built by the installed transformers."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from click.testing import CliRunner

from lora_lint.cli import main
from lora_lint.models import ModuleTree, building, catalogue, live
from lora_lint.models.config_file import ConfigFile
from lora_lint.models.live import NotBuilt, tree_of
from lora_lint.models.resolve import Effort, Resolution, Unresolved, resolve

TEXT = {
    "vocab_size": 1000,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **TEXT}
# The catalogue's templates have a Llama in there.
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "text_config": {"model_type": "phi", **TEXT, "num_key_value_heads": 4},
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 28,
        "patch_size": 14,
        "projection_dim": 32,
    },
}
LIVE = Effort(live="missing")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_LINT_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    forget()
    yield tmp_path / "own"
    forget()


def forget() -> None:
    """What a new process would not know."""
    live._BUILT.clear()


def put(folder: Path, config: object = LLAMA, name: str = "config.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(config))
    return folder


def request(config: dict[str, Any], cls: str | None = None) -> live.Request:
    return live.request(ConfigFile(config), cls, None)


@pytest.fixture
def answers(monkeypatch):
    """Answers in place of the process, which takes seconds; what it was asked for."""
    asked = []

    def ask(wanted: live.Request, seconds: float) -> dict[str, Any]:
        asked.append(wanted)
        return {"tree": building.build(dict(wanted.values), wanted.cls, wanted.task).to_json()}

    monkeypatch.setattr(live, "_ask", ask)
    return asked


# What is built


def test_the_tree_is_that_of_the_class(tmp_path):
    tree = tree_of(str(put(tmp_path / "base", {**LLAMA, "torch_dtype": "bfloat16"})))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT))
    assert [name for name, _ in tree.named_modules()] == [name for name, _ in model.named_modules()]
    assert tree.parameter_count() == model.num_parameters()
    assert (tree.grade, tree.dtype) == ("live", "bfloat16")
    assert tree.transformers == transformers.__version__


def test_the_class_follows_the_task_and_the_caller(answers, tmp_path):
    base = str(put(tmp_path / "base"))
    assert tree_of(base).cls == "LlamaForCausalLM"
    assert tree_of(base, task="SEQ_CLS").cls == "LlamaForSequenceClassification"
    assert tree_of(base, cls="AutoModelForTokenClassification").cls == "LlamaForTokenClassification"
    assert tree_of(base, cls="LlamaModel").cls == "LlamaModel"


def test_an_adapter_leads_to_its_base(answers, tmp_path):
    put(tmp_path / "base")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base")}
    put(tmp_path / "adapter", adapter, "adapter_config.json")
    assert tree_of(str(tmp_path / "adapter")).cls == "LlamaForCausalLM"


def test_what_is_not_on_this_disk_needs_the_hub(tmp_path):
    with pytest.raises(NotBuilt, match=r"not on this disk .*--online"):
        tree_of("openai-community/gpt2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "nonsense"}, "has no model type 'nonsense'"),
        ({"model_type": ["llama"]}, "has no model type"),
        ({"architectures": ["OtherForCausalLM"]}, "has no OtherForCausalLM for llama"),
        ({"architectures": ["pipeline"]}, "has no pipeline for llama"),
        ({"architectures": ["GPT2LMHeadModel"]}, "has no GPT2LMHeadModel for llama"),
    ],
)
def test_what_transformers_does_not_have(change, reason):
    with pytest.raises(building._Refused, match=reason):
        building.build({**LLAMA, **change}, None, None)


def test_what_a_class_refuses_is_said(tmp_path):
    base = put(tmp_path / "base", {**LLAMA, "num_attention_heads": 5})
    with pytest.raises(NotBuilt, match=r"transformers can't build it: .*attention heads"):
        tree_of(str(base))


# When a run builds


def test_a_run_builds_what_has_no_sizes_if_asked_to(answers, tmp_path):
    put(tmp_path / "base", LLAVA)
    plain = resolve("./base", folder=tmp_path)
    assert isinstance(plain, Unresolved)
    assert plain.reason.endswith("(--live builds it)")
    assert not answers
    result = resolve("./base", folder=tmp_path, effort=LIVE)
    assert isinstance(result, Resolution)
    assert result.tree.sized
    version = transformers.__version__
    assert result.source == f"config.json in ./base, built with transformers {version}"


def test_what_was_built_needs_no_second_build(answers, tmp_path, monkeypatch):
    put(tmp_path / "base", LLAVA)
    resolve("./base", folder=tmp_path, effort=LIVE)
    put(tmp_path / "copy", {**LLAVA, "_name_or_path": "x", "transformers_version": "4.40.0"})
    forget()
    monkeypatch.setattr(live, "installed", lambda: None)  # nor torch, nor --live
    assert isinstance(resolve("./copy", folder=tmp_path), Resolution)
    assert len(answers) == 1


def test_a_model_of_the_catalogue_is_not_built(answers):
    result = resolve("openai-community/gpt2", effort=LIVE)
    assert isinstance(result, Resolution)
    assert result.source.startswith("catalogue")
    assert not answers


def test_the_command_line_and_the_settings(answers, tmp_path, monkeypatch):
    put(tmp_path / "base", LLAVA)
    (tmp_path / "config.yaml").write_text(
        "base_model: ./base\nadapter: lora\nlora_r: 8\nlora_alpha: 16\n"
        "lora_target_modules: [c_attn]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "TM101" not in CliRunner().invoke(main, ["config.yaml"]).output
    assert "TM101" in CliRunner().invoke(main, ["config.yaml", "--live"]).output
    (tmp_path / "own").rename(tmp_path / "gone")
    assert "TM101" not in CliRunner().invoke(main, ["config.yaml"]).output
    (tmp_path / "pyproject.toml").write_text("[tool.lora-lint]\nlive = true\n")
    assert "TM101" in CliRunner().invoke(main, ["config.yaml"]).output


# The cache


def test_what_decides_no_module_decides_no_entry():
    loaded = {"torch_dtype": "float16", "quantization_config": {"bits": 4}, "use_cache": False}
    assert request({**LLAMA, **loaded}).digest == request(LLAMA).digest
    assert request(dict(reversed(LLAMA.items()))).digest == request(LLAMA).digest
    assert request({**LLAMA, "hidden_size": 64}).digest != request(LLAMA).digest
    assert request(LLAMA, "LlamaModel").digest != request(LLAMA).digest


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b"null"])
def test_a_damaged_entry_is_built_again(answers, own_cache, damage):
    live.build(request(LLAMA))
    entry = next(own_cache.rglob("*.json"))
    whole = entry.read_bytes()
    for half in (damage, whole[: len(whole) // 2]):
        entry.write_bytes(half)
        forget()
        assert live.build(request(LLAMA)).sized
        assert entry.read_bytes() == whole
    assert [path for path in own_cache.rglob("*") if path.is_file()] == [entry]


def test_a_place_that_cant_be_written_is_no_obstacle(answers, own_cache):
    own_cache.write_text("a file")
    assert live.build(request(LLAMA)).sized
    assert live.build(request(LLAMA)).sized
    assert len(answers) == 1


# Releases of transformers


def built_by(version: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry as another installation of transformers writes it."""
    monkeypatch.setattr(live, "installed", lambda: version)
    live.build(request(LLAVA))
    entry = next(own_cache.rglob("*.json"))
    entry.write_text(entry.read_text().replace(transformers.__version__, version))
    forget()


@pytest.mark.parametrize(
    ("built", "used", "holds"),
    [
        ("5.23.0", "5.23.1", True),
        ("5.23.0", None, True),
        ("5.23.0", "4.57.6", False),  # llava's names changed with transformers 5
        ("4.57.6", "5.23.0", False),
        ("4.57.6", "4.57.1", True),
    ],
)
def test_a_tree_holds_for_releases_with_the_same_names(
    answers, own_cache, tmp_path, monkeypatch, built, used, holds
):
    built_by(built, own_cache, monkeypatch)
    put(tmp_path / "base", LLAVA)
    result = resolve("./base", folder=tmp_path, transformers=used)
    assert isinstance(result, Resolution) == holds, result


def test_names_that_are_the_same_in_both_releases_hold(answers):
    tree = live.build(request(LLAMA))
    assert live.other_release(tree, "4.57.6") is None
    other = dataclasses.replace(tree, cls="LlamaForSomethingNew")
    assert "is not known" in (live.other_release(other, "4.57.6") or "")


def test_a_build_is_offered_where_it_may_help(tmp_path):
    later = {"architectures": ["Qwen3_5ForCausalLM"], "model_type": "qwen3_5"}
    not_there = resolve(str(put(tmp_path / "later", later)), transformers="4.57.6")
    assert isinstance(not_there, Unresolved)
    assert "--live" not in not_there.reason
    vit = {"architectures": ["ViTForImageClassification"], "model_type": "vit"}
    base = str(put(tmp_path / "base", vit))
    no_class = resolve(base, task="SEQ_2_SEQ_LM")
    assert isinstance(no_class, Unresolved)
    assert "--live" not in no_class.reason


def test_of_an_unknown_model_type_nothing_is_assumed(answers, own_cache, tmp_path, monkeypatch):
    built_by("5.23.0", own_cache, monkeypatch)
    put(tmp_path / "base", LLAVA)
    monkeypatch.setattr(catalogue, "architecture", lambda _: None)
    assert isinstance(resolve("./base", folder=tmp_path, transformers="5.23.0"), Resolution)
    other = resolve("./base", folder=tmp_path, transformers="5.22.0")
    assert isinstance(other, Unresolved)
    assert "whether 5.22.0 has the same module names is not known" in other.reason


# Safety


@pytest.mark.parametrize("inside", [True, False])
def test_own_code_is_not_run(answers, tmp_path, inside):
    brings = {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}}
    config = (
        {**LLAVA, "text_config": {**LLAVA["text_config"], **brings}}
        if inside
        else {**LLAVA, **brings}
    )
    base = str(put(tmp_path / "base", config))
    with pytest.raises(NotBuilt, match="brings its own code"):
        tree_of(base)
    assert isinstance(resolve(base, effort=LIVE), Unresolved)
    assert not answers


def test_without_transformers_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "installed", lambda: None)
    with pytest.raises(NotBuilt, match=r"pip install 'lora-lint\[live\]'"):
        tree_of(str(put(tmp_path / "base")))


def test_a_build_has_its_time(tmp_path):
    with pytest.raises(NotBuilt, match=r"more than 0\.2 s"):
        tree_of(str(put(tmp_path / "base")), seconds=0.2)


def test_modules_of_the_folder_are_not_imported(tmp_path, monkeypatch):
    for name in ("torch", "json", "transformers"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken in')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert tree_of(str(put(tmp_path / "base"))).sized


def in_a_process(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"from lora_lint.models import building\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_the_build_reaches_no_network():
    code = "import sys, urllib.request\nsys.addaudithook(building._no_network)\n"
    for address in ("http://127.0.0.1:1", "http://localhost:1"):
        assert "the build has no network" in in_a_process(
            f"{code}urllib.request.urlopen({address!r})"
        )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound a process so")
def test_the_build_is_bounded_in_memory():
    code = "building._limit(2**28)\nbytearray(2**29)"
    assert "MemoryError" in in_a_process(code)


def test_what_is_no_tree_is_not_kept(own_cache, monkeypatch):
    monkeypatch.setattr(live, "_ask", lambda *_: {"tree": "{}"})
    with pytest.raises(NotBuilt, match="gave no module tree"):
        live.build(request(LLAMA))
    assert not own_cache.exists()


def test_a_tree_survives_the_cache(answers):
    tree = live.build(request(LLAMA))
    assert ModuleTree.from_json(tree.to_json()).to_json() == tree.to_json()
