"""--since: a config is compared with itself at a git revision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_lint import Options, lint_file
from lora_lint.cli import main
from tests.gate.repository import commit, git

PLAIN = "lora_config:\n  r: {r}\n  lora_alpha: {alpha}\n  target_modules: [c_attn]\n"
NEW = PLAIN.format(r=8, alpha=16)
OLD = PLAIN.format(r=16, alpha=16)


def lint(*arguments: str, stdin: str | None = None) -> Result:
    command = ["lint", "--isolated", "--select", "SC211", *arguments]
    return CliRunner().invoke(main, command, input=stdin, catch_exceptions=False)


def messages(*arguments: str) -> list[str]:
    result = lint(*arguments, "--output-format", "json")
    assert result.exit_code == 0, result.output
    return [found["message"] for found in json.loads(result.stdout)["diagnostics"]]


SAID = "r changed 16 -> 8 but lora_alpha stayed 16: scale 1 -> 2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which train.yaml was committed and changed since."""
    root = tmp_path / "repository"
    root.mkdir()
    commit(root, {"configs/train.yaml": OLD, "configs/other.yaml": "name: CI\n"})
    (root / "configs" / "train.yaml").write_text(NEW)
    monkeypatch.chdir(root)
    return root


def test_it_is_said_with_the_old_values(folder: Path) -> None:
    result = lint("configs", "--since", "HEAD")
    assert f"configs/train.yaml:3:15 warning[SC211] {SAID}" in result.stdout
    assert "at HEAD it was 16 / 16 = 1" in result.stdout
    assert lint("configs", "--since", "HEAD", "--fail-on", "warning").exit_code == 1


def test_from_any_folder_and_in_a_hook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "configs" / "train.yaml"
    monkeypatch.chdir(folder / "configs")
    assert messages("train.yaml", "--since", "HEAD") == [SAID]
    monkeypatch.chdir(folder.parent)
    assert messages(str(path), "--since", "HEAD") == [SAID]
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    assert messages(str(path), "--since", "HEAD") == [SAID]


def test_in_a_worktree(folder: Path) -> None:
    tree = folder.parent / "tree"
    git(folder, "worktree", "add", "--quiet", "--detach", str(tree))
    (tree / "configs" / "train.yaml").write_text(NEW)
    assert messages(str(tree), "--since", "HEAD") == [SAID]


def test_any_revision(folder: Path) -> None:
    commit(folder, {"configs/train.yaml": NEW})
    assert messages("configs", "--since", "HEAD") == []
    assert messages("configs", "--since", "HEAD~1") == [SAID]
    git(folder, "tag", "--annotate", "--message", "first", "first", "HEAD~1")
    assert messages("configs", "--since", "first") == [SAID]
    assert messages("configs", "--since", git(folder, "rev-parse", "HEAD~1")) == [SAID]


def test_a_renamed_file(folder: Path) -> None:
    long = "".join(f"# line {number}\n" for number in range(20))
    commit(folder, {"configs/train.yaml": OLD + long})
    git(folder, "mv", "configs/train.yaml", "größer.yaml")
    (folder / "größer.yaml").write_text(NEW + long)
    assert messages(".", "--since", "HEAD") == [SAID]


def test_the_fix_restores_the_scale(folder: Path) -> None:
    assert "SC211" in lint("configs", "--since", "HEAD").stdout
    result = lint("configs", "--since", "HEAD", "--fix", "--unsafe-fixes")
    assert "1 fix applied" in result.stdout
    text = (folder / "configs" / "train.yaml").read_text()
    assert text == PLAIN.format(r=8, alpha=8)


def test_with_jobs(folder: Path) -> None:
    for number in range(8):
        (folder / "configs" / f"{number}.yaml").write_text(OLD)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "more")
    for number in range(8):
        (folder / "configs" / f"{number}.yaml").write_text(NEW)
    one = lint("configs", "--since", "HEAD", "--jobs", "1")
    assert one.stdout.count("warning[SC211]") == 8
    assert lint("configs", "--since", "HEAD", "--jobs", "2").stdout == one.stdout


def test_standard_input(folder: Path) -> None:
    (folder / "configs" / "train.yaml").write_text(OLD)
    result = lint("-", "--stdin-filename", "configs/train.yaml", "--since", "HEAD", stdin=NEW)
    assert SAID in result.stdout
    assert "SC211" not in lint("-", "--since", "HEAD", stdin=NEW).stdout


@pytest.mark.parametrize("revision", ["nowhere", "HEAD~7", "--all", "-h", "", "HEAD:configs"])
def test_a_wrong_revision_is_wrong_usage(folder: Path, revision: str) -> None:
    result = lint("configs", f"--since={revision}")
    assert result.exit_code == 2
    assert f"--since {revision}: " in result.stderr
    assert repr(revision) in result.stderr


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    path = tmp_path / "train.yaml"
    path.write_text(NEW)
    result = lint(str(path), "--since", "HEAD")
    assert result.exit_code == 2
    assert f"--since HEAD: {tmp_path} is not in a git repository" in result.stderr


def test_a_shallow_clone_is_told_apart(folder: Path) -> None:
    commit(folder, {"configs/train.yaml": NEW})
    clone = folder.parent / "clone"
    git(folder.parent, "clone", "--quiet", "--depth=1", f"file://{folder}", str(clone))
    result = lint(str(clone), "--since", "HEAD~1")
    assert result.exit_code == 2
    assert "the clone is shallow" in result.stderr


def test_without_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    result = lint("configs", "--since", "HEAD")
    assert result.exit_code == 2
    assert "git is not installed" in result.stderr


def test_a_repository_inside_that_lacks_the_revision_is_not_checked(folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    inner = folder / "configs" / "inner"
    inner.mkdir()
    commit(inner, {"train.yaml": OLD})
    (inner / "train.yaml").write_text(NEW)
    result = lint("configs", "--since", first)
    assert result.stdout.count("warning[SC211]") == 1
    assert f"not checked: SC211: the repository of {inner} has no revision" in result.stdout


def test_the_api_compares_too(folder: Path) -> None:
    options = Options(since="HEAD", isolated=True)
    report = lint_file("configs/train.yaml", options)
    assert SAID in [found.message for found in report.diagnostics]
    wrong = lint_file("configs/train.yaml", options._replace(since="nowhere"))
    assert any("no revision 'nowhere'" in entry.reason for entry in wrong.not_checked)


# What is compared with what ----------------------------------------------------------------------


def compare(folder: Path, name: str, before: str, after: str) -> list[str]:
    commit(folder, {name: before})
    (folder / name).write_text(after)
    return messages(name, "--since", "HEAD")


def test_recipes_are_paired_by_their_place_then_by_their_order(folder: Path) -> None:
    two = "a:\n  lora:\n    r: {}\n    lora_alpha: 16\nb:\n  lora:\n    r: {}\n    lora_alpha: 32\n"
    found = compare(folder, "two.yaml", two.format(16, 16), two.format(16, 8))
    assert found == ["r changed 16 -> 8 but lora_alpha stayed 32: scale 2 -> 4"]
    swapped = two.format(4, 8).replace("a:\n", "c:\n", 1).replace("\nb:\n", "\na:\n")
    assert compare(folder, "moved.yaml", OLD, NEW.replace("lora_config", "lora")) == [SAID]
    more = compare(folder, "swapped.yaml", two.format(16, 16), swapped)
    assert more == []  # a is compared with a, whose alpha is another; c has no counterpart


def test_another_alpha_was_meant(folder: Path) -> None:
    assert compare(folder, "a.yaml", OLD, PLAIN.format(r=8, alpha=32)) == []
    assert compare(folder, "b.yaml", OLD, PLAIN.format(r=16, alpha=32)) == []


def test_rslora_divides_by_the_root(folder: Path) -> None:
    old, new = (f"{PLAIN.format(r=r, alpha=16)}  use_rslora: true\n" for r in (16, 64))
    assert compare(folder, "rs.yaml", old, new) == [
        "r changed 16 -> 64 but lora_alpha stayed 16: scale 4 -> 2"
    ]


def test_an_absent_alpha_is_the_frameworks(folder: Path) -> None:
    # peft 0.21.2 LoraConfig.lora_alpha: 8; LLaMA-Factory 0.9.4 FinetuningArguments: 2 * rank
    old, new = (PLAIN.format(r=r, alpha=1).replace("  lora_alpha: 1\n", "") for r in (8, 64))
    assert compare(folder, "peft.yaml", old, new) == [
        "r changed 8 -> 64 but lora_alpha stayed 8, the default: scale 1 -> 0.125"
    ]
    factory = (
        "model_name_or_path: meta-llama/Llama-3.2-1B\nstage: sft\nfinetuning_type: lora\n"
        "lora_target: all\nlora_rank: {}\n"
    )
    assert compare(folder, "factory.yaml", factory.format(8), factory.format(16)) == []


def test_a_rank_of_some_modules(folder: Path) -> None:
    old, new = (f"{OLD}  rank_pattern: {{h.0.attn.c_attn: {r}}}\n" for r in (16, 4))
    assert compare(folder, "pattern.yaml", old, new) == [
        "r changed 16 -> 4 under 'h.0.attn.c_attn' but lora_alpha stayed 16: scale 1 -> 4"
    ]


def test_python(folder: Path) -> None:
    code = "from peft import LoraConfig\nR = {}\nconfig = LoraConfig(r=R, lora_alpha={})\n"
    assert compare(folder, "a.py", code.format(16, 16), code.format(8, 16)) == [SAID]
    assert compare(folder, "b.py", code.format(16, "2 * R"), code.format(8, "2 * R")) == []


@pytest.mark.parametrize("before", ["", "a: [", "lora: 1\n", "\x00\x01"])
def test_an_earlier_version_without_a_recipe(folder: Path, before: str) -> None:
    assert compare(folder, "train.yaml", before, NEW) == []
