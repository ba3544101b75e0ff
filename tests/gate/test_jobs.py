"""--jobs changes how long a run takes, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_lint.cli import main

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
BAD = """\
base_model: gpt2
trust_remote_code: true
adapter: lora
lora_r: {r}
lora_alpha: 16
lora_target_modules: [q_proj]
"""


def lint(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["lint", "--isolated", *arguments], catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with findings of every kind, files without LoRA, and two names for one file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for number in range(12):
        sub = tmp_path / "configs" / f"{number % 3}"
        sub.mkdir(parents=True, exist_ok=True)
        (sub / f"bad{number}.yaml").write_text(BAD.format(r=2**number))
        (sub / f"other{number}.yaml").write_text("name: CI\n")
    for example in sorted(EXAMPLES.glob("*.yaml")):
        shutil.copy(example, tmp_path / "configs")
    (tmp_path / "configs" / "broken.yaml").write_text("lora_r: [8\nlora_alpha: 16\n")
    (tmp_path / "configs" / "link.yaml").symlink_to("0/bad0.yaml")
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--verbose", "--color", "always"),
        ("--quiet",),
        ("--statistics",),
        ("--show-files",),
        ("--output-format", "json"),
        ("--output-format", "github"),
        ("--output-format", "concise"),
        ("--diff", "--unsafe-fixes"),
        ("--fail-on", "info"),
        ("--require", "model,versions"),
        ("--select", "CF", "--exit-zero"),
        ("nowhere.yaml", "configs/0/bad0.yaml"),
    ],
    ids=" ".join,
)
def test_the_report_is_the_same(folder: Path, options: tuple[str, ...]) -> None:
    one = lint("configs", *options, "--jobs", "1")
    two = lint("configs", *options, "--jobs", "2")
    assert len(one.stdout.splitlines()) > 2
    assert (two.stdout, two.stderr, two.exit_code) == (one.stdout, one.stderr, one.exit_code)


def test_the_same_is_fixed(folder: Path) -> None:
    shutil.copytree(folder / "configs", folder / "more" / "configs", symlinks=True)
    results = []
    for place, jobs in ((folder, "1"), (folder / "more", "2")):
        os.chdir(place)
        results.append(lint("configs", "--fix", "--unsafe-fixes", "--jobs", jobs))
    one, two = results
    assert "fixes applied" in one.stdout
    assert (two.stdout, two.exit_code) == (one.stdout, one.exit_code)
    before, after = (
        {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*.yaml"))}
        for root in (folder / "configs", folder / "more" / "configs")
    )
    assert before == after
    assert b"c_attn" in before[Path("0/bad0.yaml")]
    assert (folder / "configs" / "link.yaml").is_symlink()


def test_a_file_is_linted_once_whatever_its_paths(folder: Path) -> None:
    twice = lint("configs/0", "configs", "configs/0/bad0.yaml", "--show-files").stdout.splitlines()
    assert sorted(set(twice)) == sorted(twice)


def test_zero_jobs_are_refused(folder: Path) -> None:
    assert lint("configs", "--jobs", "0").exit_code == 2


# The command with a file that takes for ever, once every worker is at work.
SLOW = """
import sys, time
from pathlib import Path
from lora_lint import engine
from lora_lint.cli import console
quick = engine.lint_listed
def slow(linter, path, **given):
    if "bad7" in path:
        Path("begun").touch()
        time.sleep(60)
    return quick(linter, path, **given)
engine.lint_listed = slow
sys.argv = ["lora-lint", "configs", "--fix", "--jobs", sys.argv[1]]
console()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the slow file needs a fork")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupt_ends_the_run_at_once(folder: Path, jobs: str) -> None:
    files = {path: path.read_bytes() for path in (folder / "configs").rglob("*.yaml")}
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, jobs],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (folder / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (out, err) == ("", "interrupted; no fixes were applied\n")
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert files == {path: path.read_bytes() for path in files}
