"""The versions that a config is decided for: from the files around it, range by range."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lora_lint.cli import main

LLAMA = "model_name_or_path: meta-llama/Llama-2-7b-hf\nr: 16\nlora_alpha: 32\n"
ALL_LINEAR = LLAMA + "target_modules: all-linear\n"
UV_LOCK = 'version = 1\n\n[[package]]\nname = "peft"\nversion = "{}"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository that the command runs in."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    return tmp_path


def lint(text: str, *options: str, code: str | None = None) -> tuple[int, dict[str, Any]]:
    """The exit status and the JSON report; with ``code`` only its diagnostics."""
    Path("lora.yaml").write_text(text)
    arguments = ["lint", "lora.yaml", "--output-format", "json", *options]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    report = json.loads(result.output)
    if code is not None:
        report["diagnostics"] = [d for d in report["diagnostics"] if d["code"] == code]
    return result.exit_code, report


def test_a_lock_file_is_used_without_an_option(project: Path) -> None:
    (project / "uv.lock").write_text(UV_LOCK.format("0.7.1"))
    status, report = lint(ALL_LINEAR)
    assert status == 1
    (found,) = report["diagnostics"]
    assert (found["code"], found["severity"]) == ("VR303", "error")
    assert "uv.lock has 0.7.1" in found["message"]
    assert "takes this config" not in found["help"]  # 0.8.0, as the message says
    peft = report["recipes"][0]["environment"]["peft"]
    assert peft == {"version": "0.7.1", "source": "uv.lock"}


def test_advice_names_the_smallest_release_that_takes_the_whole_config(project: Path) -> None:
    (project / "uv.lock").write_text(UV_LOCK.format("0.7.1"))
    _, report = lint(ALL_LINEAR + "use_dora: true\nexclude_modules: [lm_head]\n")
    told = {d["message"].partition(";")[0]: d["help"] for d in report["diagnostics"]}
    advised = {message for message, advice in told.items() if "takes this config" in advice}
    assert advised == {"`all-linear` needs peft>=0.8.0", "`use_dora` needs peft>=0.9.0"}
    assert all(told[message].endswith("; peft>=0.14.0 takes this config") for message in advised)
    assert "`exclude_modules` needs peft>=0.14.0" in told


def test_a_range_says_for_which_part_a_finding_holds(project: Path) -> None:
    (project / "requirements.txt").write_text("torch\npeft>=0.7,<0.9\n")
    status, report = lint(ALL_LINEAR)
    assert status == 0
    (found,) = report["diagnostics"]
    assert (found["code"], found["severity"]) == ("VR303", "warning")
    assert "requirements.txt allows 0.7.0 (in peft 0.7.0 to 0.7.1)" in found["message"]


def test_a_range_that_fails_as_a_whole_is_an_error(project: Path) -> None:
    (project / "requirements.txt").write_text("peft>=0.6,<0.8\n")
    status, report = lint(ALL_LINEAR)
    assert status == 1
    assert [d["severity"] for d in report["diagnostics"]] == ["error"]
    assert "(in peft" not in report["diagnostics"][0]["message"]


def test_a_range_that_works_as_a_whole_is_silent(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["peft>=0.8", "transformers<5"]\n'
    )
    status, report = lint(ALL_LINEAR)
    assert (status, report["diagnostics"]) == (0, [])
    environment = report["recipes"][0]["environment"]
    assert environment["peft"] == {"version": ">=0.8", "source": "pyproject.toml"}
    assert environment["transformers"] == {"version": "<5", "source": "pyproject.toml"}


def test_an_option_wins_over_a_lock_file(project: Path) -> None:
    (project / "uv.lock").write_text(UV_LOCK.format("0.7.1"))
    status, report = lint(ALL_LINEAR, "--peft-version", "0.8.2")
    assert (status, report["diagnostics"]) == (0, [])
    assert report["recipes"][0]["environment"]["peft"]["source"] == "--peft-version"


def test_isolated_looks_at_no_lock_file(project: Path) -> None:
    (project / "uv.lock").write_text(UV_LOCK.format("0.7.1"))
    status, report = lint(ALL_LINEAR, "--isolated")
    assert (status, report["diagnostics"]) == (0, [])
    assert "not known" in report["recipes"][0]["environment"]["peft"]["source"]


def test_each_config_has_the_versions_of_its_own_folder(project: Path) -> None:
    for name, version in (("old", "0.7.1"), ("new", "0.21.2")):
        (project / name).mkdir()
        (project / name / "uv.lock").write_text(UV_LOCK.format(version))
        (project / name / "lora.yaml").write_text(ALL_LINEAR)
    result = CliRunner().invoke(main, ["lint", "old/lora.yaml", "new/lora.yaml"])
    assert result.exit_code == 1
    assert "old/lora.yaml:4:17 error[VR303]" in result.output
    assert "peft 0.7.1 (uv.lock)" in result.output
    assert "peft 0.21.2 (uv.lock)" in result.output


# vit's query and value are called q_proj and v_proj since transformers 5.6 or so.
VIT = "model_name_or_path: google/vit-base-patch16-224\nr: 8\nlora_alpha: 16\n"


@pytest.mark.usefixtures("project")
def test_without_a_source_an_error_needs_both_lines() -> None:
    """Names that transformers 5 has changed are a warning that names the line; others an error."""
    _, report = lint(VIT + "target_modules: [query, value]\n", "--isolated", code="TM128")
    assert [d["severity"] for d in report["diagnostics"]] == ["warning", "warning"]
    assert all(d["message"].endswith("(with transformers 5)") for d in report["diagnostics"])
    _, report = lint(LLAMA + "target_modules: [query, value]\n", "--isolated", code="TM101")
    assert [d["severity"] for d in report["diagnostics"]] == ["error"]


def test_a_release_that_is_not_known_yet_is_judged_as_the_newest_with_warnings(
    project: Path,
) -> None:
    (project / "uv.lock").write_text(UV_LOCK.format("99.0.0"))
    status, report = lint(LLAMA + "target_modules: [c_attn]\n", code="TM101")
    assert status == 0
    (found,) = report["diagnostics"]
    assert found["severity"] == "warning"
    assert "if peft 99.0.0 does as 0.21.2 does" in found["message"]


def test_before_0_4_nothing_but_versions_is_judged(project: Path) -> None:
    (project / "uv.lock").write_text(UV_LOCK.format("0.3.0"))
    _, report = lint(ALL_LINEAR)
    assert {d["code"] for d in report["diagnostics"]} == {"VR303", "VR305"}
    skipped = [n for n in report["not_checked"] if "TM101" in n["codes"]]
    assert "older than 0.4.0" in skipped[0]["reason"]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (("0.17.0", "5.0.0"), "cannot import name 'HybridCache' from 'transformers'"),
        (("0.17.0", "5.1.0"), "cannot import name 'HybridCache' from 'transformers'"),
        (("0.21.2", "4.41.2"), "cannot import name 'EncoderDecoderCache' from 'transformers'"),
        (("0.21.2", "4.42.0"), None),
        (("0.21.2", "5.23.0"), None),
        (("0.21.2", "6.0.0"), None),
    ],
)
def test_versions_that_do_not_import_together(
    versions: tuple[str, str], message: str | None
) -> None:
    options = ("--isolated", "--peft-version", versions[0], "--transformers-version", versions[1])
    _, report = lint(ALL_LINEAR, *options, code="VR307")
    told = [d["message"] for d in report["diagnostics"]]
    assert bool(told) == bool(message)
    assert all(message in text for text in told if message)


@pytest.mark.usefixtures("project")
def test_a_field_that_the_older_line_lacks_rules_that_line_out() -> None:
    """Who writes a field of PEFT 0.19 has that, or 0.20, ...: nothing is said about 0.18."""
    text = LLAMA + "target_modules: all-linear\ninit_lora_weights: mica\n"
    status, report = lint(text, "--isolated")
    assert (status, report["diagnostics"]) == (0, [])


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("version", "told"),
    [
        # Measured: 0.1.0 raises an AttributeError, 0.2.0 and 0.7.1 the ValueError that is quoted.
        ("0.1.0", "letter by letter"),
        ("0.2.0", "take it for a pattern"),
    ],
)
def test_all_linear_before_there_were_patterns(version: str, told: str) -> None:
    text = ALL_LINEAR + "lora_dropout: 0.0\n"
    result = lint(text, "--isolated", "--peft-version", version, code="VR303")[1]
    (found,) = result["diagnostics"]
    assert ("not found in the base model" in (found["help"] or "")) == (version != "0.1.0")
    printed = CliRunner().invoke(main, ["lora.yaml", "--isolated", "--peft-version", version])
    assert told in printed.output


def test_a_removed_field_counts_in_the_part_of_a_range_that_lacks_it(project: Path) -> None:
    (project / "requirements.txt").write_text("peft>=0.2,<0.4\n")
    text = LLAMA + "lora_dropout: 0.0\ntarget_modules: [q_proj]\nmerge_weights: false\n"
    (found,) = lint(text, code="VR306")[1]["diagnostics"]
    assert found["severity"] == "warning"
    assert found["message"].endswith("(in peft 0.3.0)")


def test_a_regex_in_a_list_is_none_in_the_one_release_that_reads_it(project: Path) -> None:
    (project / "requirements.txt").write_text("peft>=0.5,<0.7\n")
    text = LLAMA + "target_modules: ['.*q_proj', v_proj]\n"
    (found,) = lint(text, code="TM104")[1]["diagnostics"]
    assert found["message"].endswith("(in peft 0.6.0 to 0.6.2)")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("version", "zero"), [("0.17.1", False), ("0.18.1", True)])
def test_inference_mode_leaves_a_head_in_training_before_0_18(version: str, zero: bool) -> None:
    text = (
        "model_name_or_path: google-bert/bert-base-uncased\ntask_type: SEQ_CLS\nr: 8\n"
        "lora_alpha: 16\ntarget_modules: [query]\ninference_mode: true\n"
    )
    (found,) = lint(text, "--isolated", "--peft-version", version, code="TR611")[1]["diagnostics"]
    assert ("0 trainable parameters" in found["message"]) == zero


def test_an_open_lower_end_means_no_transformers_that_the_peft_is_too_new_for(
    project: Path,
) -> None:
    (project / "requirements.txt").write_text("peft>=0.16\ntransformers<5\n")
    assert lint(ALL_LINEAR, code="VR307")[1]["diagnostics"] == []


def test_a_newer_transformers_than_the_older_peft_imports_with(project: Path) -> None:
    (project / "requirements.txt").write_text("peft>=0.16,<0.18\ntransformers>=4.50\n")
    (found,) = lint(ALL_LINEAR, code="VR307")[1]["diagnostics"]
    assert found["message"].endswith("(with transformers 5)")
    assert "cannot import name 'HybridCache'" in found["message"]


def test_a_lock_file_that_changes_between_two_runs_of_one_process(project: Path) -> None:
    for version, status in (("0.7.1", 1), ("0.18.1", 0)):
        (project / "requirements.txt").write_text(f"peft=={version}\n")
        assert lint(ALL_LINEAR, code="VR303")[0] == status
