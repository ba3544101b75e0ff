"""--online, against a real server that speaks the hub's endpoints."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner

from lora_lint.cli import main
from lora_lint.models import online
from lora_lint.models.resolve import Effort, Resolution, Unresolved, resolve
from lora_lint.recipe import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SHA = "0123456789abcdef0123456789abcdef01234567"
# The dimensions of Llama 3.1 8B.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "acme/base"}
ONLINE = Effort(online=True)


class Answer(NamedTuple):
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = NOTHING
    wait: float = 0
    trickle: bool = False


class Asked(NamedTuple):
    path: str
    token: str | None
    etag: str | None


class Hub:
    """A server on loopback: what it answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.done = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = self.headers
                hub.asked.append(
                    Asked(self.path, headers["Authorization"], headers["If-None-Match"])
                )
                answer = hub.files.get(self.path, NO_MODEL)
                hub.done.wait(answer.wait)
                etag = answer.headers.get("ETag")
                if etag is not None and etag == headers["If-None-Match"]:
                    answer = Answer(304, b"", answer.headers)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if not answer.trickle:
                    self.wfile.write(answer.body)
                for byte in answer.body if answer.trickle else b"":
                    if hub.done.wait(0.05):
                        return
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def put(
        self, name: str, config: Any = LLAMA, file: str = "config.json", revision: str = "main"
    ) -> None:
        body = config if isinstance(config, bytes) else json.dumps(config).encode()
        headers = {"X-Repo-Commit": SHA, "ETag": '"e1"'}
        for other in ("config.json", "adapter_config.json", "model_index.json"):
            self.files.setdefault(f"/{name}/resolve/{revision}/{other}", NO_ENTRY)
        self.files[f"/{name}/resolve/{revision}/{file}"] = Answer(200, body, headers)

    def refuse(self, name: str, answer: Answer) -> None:
        self.files[f"/{name}/resolve/main/config.json"] = answer

    def close(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()


def refusal(status: int, code: str | None = None, message: str | None = None) -> Answer:
    headers = {"X-Error-Code": code, "X-Error-Message": message}
    return Answer(status, b"refused", {k: v for k, v in headers.items() if v is not None})


# As huggingface.co answers: a missing repository is a 401 for who is not logged in.
NO_MODEL = refusal(401, "RepoNotFound", "Repository not found")
NO_ENTRY = refusal(404, "EntryNotFound", "Entry not found")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in [name for name in os.environ if name.startswith(("HF_", "TRANSFORMERS_"))]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("LORA_LINT_CACHE", str(tmp_path / "cache"))
    server = Hub()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    yield server
    server.close()
    forget()


def forget() -> None:
    """What a new process would not know."""
    online._fetched.cache_clear()
    online._DOWN.clear()


def found(name: str, **given: Any) -> Resolution:
    result = resolve(name, effort=ONLINE, **given)
    assert isinstance(result, Resolution), result
    return result


def refused(name: str, **given: Any) -> str:
    result = resolve(name, effort=ONLINE, **given)
    assert isinstance(result, Unresolved), result
    return result.reason


# What is found


def test_a_config_of_the_hub_gives_sizes(hub: Hub) -> None:
    hub.put("acme/tuned")
    result = found("acme/tuned")
    assert result.tree.parameter_count() == 8_030_261_248  # as published
    assert result.id == "acme/tuned"
    assert result.source == f"config.json from {hub.address.removeprefix('http://')}"
    assert [asked.path for asked in hub.asked] == ["/acme/tuned/resolve/main/config.json"]


def test_a_model_with_known_sizes_is_not_asked_for(hub: Hub) -> None:
    assert found("meta-llama/Llama-2-7b-hf").source == "catalogue"
    assert not hub.asked


def test_a_model_that_this_release_has_no_class_for_is_not_asked_for(hub: Hub) -> None:
    reason = refused("Qwen/Qwen3-8B", transformers="4.46.3")
    assert "transformers 4.46.3 has no qwen3 models" in reason
    assert not hub.asked


def test_a_model_of_which_only_names_are_known_gets_its_sizes(hub: Hub) -> None:
    name = "acme/Llama-3.1-8B-GGUF-x"
    hub.put(name)
    assert found(name).tree.sized


def test_offline_nothing_is_asked(hub: Hub, tmp_path: Path) -> None:
    hub.put("acme/tuned")
    result = resolve("acme/tuned")
    assert isinstance(result, Unresolved)
    assert "--online" in result.reason
    config = tmp_path / "config.yaml"
    config.write_text("base_model: acme/tuned\nadapter: lora\nlora_r: 8\nlora_alpha: 16\n")
    CliRunner().invoke(main, [str(config), "--isolated"])
    assert not hub.asked


def test_an_adapter_leads_to_its_base(hub: Hub) -> None:
    hub.put("acme/adapter", ADAPTER, "adapter_config.json")
    hub.put("acme/base")
    result = found("acme/adapter")
    assert result.id == "acme/adapter"
    assert result.tree.sized
    assert "base of the adapter in acme/adapter" in result.source


def test_an_adapter_of_a_known_model_needs_no_second_model(hub: Hub) -> None:
    base = {**ADAPTER, "base_model_name_or_path": "openai-community/gpt2"}
    hub.put("acme/adapter", base, "adapter_config.json")
    assert found("acme/adapter").tree.cls == "GPT2LMHeadModel"
    assert not any("gpt2" in asked.path for asked in hub.asked)


def test_adapters_in_a_circle_end(hub: Hub) -> None:
    hub.put("acme/base", ADAPTER, "adapter_config.json")
    assert "adapter of an adapter" in refused("acme/base")


def test_a_revision_is_asked_for_as_written(hub: Hub) -> None:
    hub.put("acme/tuned", revision="refs%2Fpr%2F1")
    assert found("acme/tuned", revision="refs/pr/1").tree.sized
    assert [asked.path for asked in hub.asked] == ["/acme/tuned/resolve/refs%2Fpr%2F1/config.json"]


# The cache


def test_what_was_fetched_is_not_asked_for_again(hub: Hub) -> None:
    hub.put("acme/tuned")
    found("acme/tuned")
    found("acme/tuned")
    forget()
    found("acme/tuned")
    assert len(hub.asked) == 1
    offline = resolve("acme/tuned")
    assert isinstance(offline, Resolution)
    assert offline.tree.sized


def test_another_hub_has_other_models(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("acme/tuned")
    found("acme/tuned")
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/mirror")
    assert isinstance(resolve("acme/tuned"), Unresolved)


def aged(tmp_path: Path, seconds: float) -> None:
    for note in (tmp_path / "cache").rglob("fetched.json"):
        os.utime(note, (time.time() - seconds, time.time() - seconds))
    forget()


def test_after_a_day_a_branch_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    hub.put("acme/tuned")
    found("acme/tuned")
    aged(tmp_path, 90_000)
    assert found("acme/tuned").tree.sized
    assert [asked.etag for asked in hub.asked] == [None, '"e1"']
    forget()
    found("acme/tuned")
    assert len(hub.asked) == 2


def test_a_commit_never_changes(hub: Hub, tmp_path: Path) -> None:
    hub.put("acme/tuned", revision=SHA)
    found("acme/tuned", revision=SHA)
    aged(tmp_path, 9_000_000)
    found("acme/tuned", revision=SHA)
    assert len(hub.asked) == 1


def test_an_old_answer_is_better_than_none(hub: Hub, tmp_path: Path) -> None:
    hub.put("acme/tuned")
    found("acme/tuned")
    aged(tmp_path, 90_000)
    hub.refuse("acme/tuned", Answer(503))
    assert found("acme/tuned").tree.sized


def test_a_damaged_file_is_no_model(hub: Hub, tmp_path: Path) -> None:
    hub.put("acme/tuned")
    found("acme/tuned")
    next((tmp_path / "cache").rglob("config.json")).write_text("{")
    assert isinstance(resolve("acme/tuned"), Unresolved)


# What is refused, and why


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NO_MODEL, "has no model acme/x, or it is private: set HF_TOKEN"),
        (refusal(404, "RepoNotFound"), "has no model acme/x"),
        (refusal(401), "has no model acme/x"),
        (refusal(404), "answers with status 404"),  # of a proxy, perhaps
        (refusal(401, "GatedRepo", "Access restricted"), "and set HF_TOKEN"),
        (refusal(403, "GatedRepo", "Not in the list"), "acme/x is gated: accept its licence at"),
        (refusal(404, "RevisionNotFound"), "acme/x has no revision main"),
        (refusal(401, None, "Invalid credentials in Authorization header"), "refuses your token"),
        (refusal(403, None, "Access to this resource is disabled."), "acme/x is disabled"),
        (refusal(429), "too many requests"),
        (refusal(500), "is in trouble (status 500)"),
        (refusal(418), "answers with status 418"),
        (Answer(200, b"<html>log in to this network</html>"), "is not a JSON object"),
        (Answer(200, b"[" * 100_000), "is not a JSON object"),
        (Answer(200, b"[]"), "is not a JSON object"),
        (Answer(302, b"", {"Location": "file:///etc/passwd"}), "answers with status 302"),
    ],
)
def test_a_refusal_is_said_plainly(hub: Hub, answer: Answer, expected: str) -> None:
    hub.refuse("acme/x", answer)
    reason = refused("acme/x")
    assert expected in reason
    assert "\n" not in reason
    assert len(reason) < 250


def test_with_a_token_a_gated_model_is_not_for_this_account(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.refuse("acme/x", refusal(403, "GatedRepo"))
    reason = refused("acme/x")
    assert "was not granted access" in reason
    assert "hf_secret" not in reason


def test_a_repository_without_a_config(hub: Hub) -> None:
    hub.put("acme/x")
    hub.refuse("acme/x", NO_ENTRY)
    assert "acme/x has no config.json" in refused("acme/x")


def test_a_body_without_end_is_not_read(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "MAX_BYTES", 2**20)
    hub.refuse("acme/x", Answer(200, b" " * 2 * 2**20))
    assert "has more than 1 MiB" in refused("acme/x")


@pytest.mark.parametrize("slow", [Answer(wait=30), Answer(200, b"{}" * 500, trickle=True)])
def test_a_slow_hub_is_not_waited_for(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, slow: Answer
) -> None:
    monkeypatch.setattr(online, "TOTAL", 0.4)
    hub.refuse("acme/x", slow)
    begun = time.monotonic()
    assert "did not answer" in refused("acme/x")
    assert time.monotonic() - begun < 3
    asked = len(hub.asked)
    assert "did not answer" in refused("acme/y")  # nor is it asked for more
    assert len(hub.asked) == asked


def test_where_no_hub_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.close()
    assert "can't be reached" in refused("acme/x")
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert "HF_ENDPOINT is no web address" in refused("acme/x")


def test_offline_mode_of_the_hub_wins(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.put("acme/tuned")
    assert "HF_HUB_OFFLINE is set" in refused("acme/tuned")
    assert not hub.asked


def test_without_a_place_to_keep_it(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    hub.put("acme/tuned")
    assert "LORA_LINT_CACHE" in refused("acme/tuned")


# The token


def test_the_token_goes_to_the_hub_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    cdn = Hub()
    try:
        cdn.files["/blob"] = Answer(200, json.dumps(LLAMA).encode())
        moved = f"{hub.address}/acme/new/resolve/main/config.json"
        hub.refuse("acme/old", Answer(307, b"", {"Location": moved}))
        hub.refuse("acme/new", Answer(302, b"", {"Location": f"{cdn.address}/blob"}))
        assert found("acme/old").tree.sized
        assert [asked.token for asked in hub.asked] == ["Bearer hf_secret"] * 2
        assert [asked.token for asked in cdn.asked] == [None]
    finally:
        cdn.close()


def test_where_the_token_comes_from(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("a", "b", "c", "d"):
        hub.put(f"acme/{name}")
    found("acme/a")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_file\n")
    found("acme/b")
    monkeypatch.setenv("HF_TOKEN", "hf_variable")
    found("acme/c")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    found("acme/d")
    tokens = [asked.token for asked in hub.asked]
    assert tokens == [None, "Bearer hf_file", "Bearer hf_variable", None]


# The command line and the settings


@pytest.mark.parametrize("by", ["option", "setting"])
def test_a_run_with_online_knows_the_model(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    hub.put("acme/tuned")
    config = tmp_path / "config.yaml"
    config.write_text(
        "base_model: acme/tuned\nadapter: lora\nlora_r: 8\nlora_alpha: 16\n"
        "lora_target_modules: [c_attn]\n"
    )
    monkeypatch.chdir(tmp_path)
    if by == "setting":
        (tmp_path / "pyproject.toml").write_text("[tool.lora-lint]\nonline = true\n")
    options = ["--online"] if by == "option" else []
    result = CliRunner().invoke(main, [str(config), *options])
    assert result.exit_code == 1
    assert "TM101" in result.output
    assert len(hub.asked) == 1
