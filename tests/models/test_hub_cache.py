"""The Hugging Face cache, read as plain files."""

import pytest

from lora_lint.models.hub_cache import cache_folder, is_repository, snapshot

SHA = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(hub, name, sha=SHA, ref="main"):
    folder = hub / f"models--{name.replace('/', '--')}"
    (folder / "snapshots" / sha).mkdir(parents=True, exist_ok=True)
    if ref:
        path = folder / "refs" / ref
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sha)
    return folder / "snapshots" / sha


def test_the_variables_count_in_the_order_of_huggingface_hub(tmp_path, monkeypatch):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert cache_folder() == tmp_path / "hub"


def test_variables_in_the_variables_count(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("DISK", str(tmp_path))
    monkeypatch.setenv("HF_HOME", "$DISK/hf")
    assert cache_folder() == tmp_path / "hf" / "hub"


@pytest.mark.parametrize("variable", ["TRANSFORMERS_CACHE", "PYTORCH_TRANSFORMERS_CACHE"])
def test_where_transformers_4_keeps_models_is_looked_at_too(hub, tmp_path, monkeypatch, variable):
    old = tmp_path / "old"
    path = put(old, "org/name")
    assert snapshot("org/name") is None
    monkeypatch.setenv(variable, str(old))
    assert snapshot("org/name") == path
    newer = put(hub, "org/name", OTHER)
    assert snapshot("org/name") == newer


def test_main_is_what_is_read(hub):
    path = put(hub, "org/name")
    put(hub, "org/name", OTHER, ref=None)
    assert snapshot("org/name") == path


def test_a_revision_is_a_reference_or_a_commit(hub):
    put(hub, "org/name")
    tagged = put(hub, "org/name", OTHER, ref="v1.0")
    assert snapshot("org/name", "v1.0") == tagged
    assert snapshot("org/name", OTHER) == tagged
    assert snapshot("org/name", "v2.0") is None
    assert snapshot("org/name", "../../../etc") is None


def test_a_reference_may_have_folders(hub):
    path = put(hub, "org/name", ref="refs/pr/1")
    assert snapshot("org/name", "refs/pr/1") == path
    assert snapshot("org/name", "refs/pr/2") is None


def test_without_a_reference_the_only_snapshot_counts(hub):
    path = put(hub, "gpt2", ref=None)
    assert snapshot("gpt2") == path
    put(hub, "gpt2", OTHER, ref=None)
    assert snapshot("gpt2") is None


def test_a_damaged_cache_holds_nothing(hub):
    assert snapshot("org/other") is None
    folder = put(hub, "org/name").parent.parent
    (folder / "refs" / "main").write_bytes(b"\xff\xfe../../etc")
    assert snapshot("org/name", "main") is None
    (folder / "refs" / "main").write_text("../..")
    assert snapshot("org/name", "main") is None


@pytest.mark.parametrize("name", ["gpt2", "org/name", "org/name-1.0_x", "01-ai/Yi-6B"])
def test_ids(name):
    assert is_repository(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "./x",
        "/x",
        "~/x",
        "a/b/c",
        "a//b",
        "a/../b",
        "${X}",
        "a b",
        "a\x00b",
        "x" * 300,
    ],
)
def test_what_is_no_id(name):
    assert not is_repository(name)
    assert snapshot(name) is None
