"""Settings come from pyproject.toml and from options; what is wrong there is said, with a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_lint.settings import Options, SettingsError, settle


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_everything_is_on(tmp_path: Path) -> None:
    settings = settle(Options(), tmp_path)
    assert settings.select == ("ALL",)
    assert settings.fail_on == "error"


def test_the_table_is_found_upwards(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[tool.lora-lint]\ngpu = "rtx4090"\n[tool.lora-lint.versions]\npeft = "0.9.0"\n'
    )
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    settings = settle(Options(), folder)
    assert settings.environment.gpu == "rtx4090"
    assert settings.environment.peft is not None
    assert settings.environment.peft.version == "0.9.0"
    assert Path(settings.environment.peft.source).resolve() == path.resolve()


def test_a_file_without_the_table_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, '[tool.lora-lint]\nfail-on = "warning"\n')
    folder = tmp_path / "project"
    folder.mkdir()
    write(folder, "[project]\nname = 'x'\n")
    assert settle(Options(), folder).fail_on == "warning"


def test_options_win(tmp_path: Path) -> None:
    write(tmp_path, '[tool.lora-lint]\nfail-on = "info"\nselect = ["TM"]\n')
    settings = settle(Options(fail_on="warning", select=("SC208",)), tmp_path)
    assert (settings.fail_on, settings.select) == ("warning", ("SC208",))


def test_the_revision_is_an_option_alone(tmp_path: Path) -> None:
    assert settle(Options(), tmp_path).since is None
    assert settle(Options(since="origin/main"), tmp_path).since == "origin/main"
    write(tmp_path, '[tool.lora-lint]\nsince = "HEAD"\n')
    with pytest.raises(SettingsError, match="has no setting 'since'"):
        settle(Options(), tmp_path)


def test_isolated_reads_nothing(tmp_path: Path) -> None:
    write(tmp_path, '[tool.lora-lint]\nfail-on = "info"\n')
    assert settle(Options(isolated=True), tmp_path).fail_on == "error"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("fail_on = 'info'", "did you mean 'fail-on'?"),
        ("selct = ['TM']", "did you mean 'select'?"),
        ("fail-on = 'never'", "'never' is not one of"),
        ("select = 'TM'", "'TM' is not of type 'array'"),
        ("select = ['SE7O1']", "no rule is called 'SE7O1'; did you mean SE701?"),
        ("gpu = 'rtx5095'", "unknown GPU 'rtx5095'"),
        ("[tool.lora-lint.versions]\npft = '0.9'", "did you mean 'peft'?"),
        ("[tool.lora-lint.rules.SC208]\nratio = 'two'", "'two' is not of type 'number'"),
        ("x = [", "Invalid"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, table: str, said: str) -> None:
    path = write(tmp_path, f"[tool.lora-lint]\n{table}\n")
    with pytest.raises(SettingsError) as caught:
        settle(Options(), tmp_path)
    assert said in str(caught.value)
    assert path.name in str(caught.value)


def test_a_missing_config_file_is_said() -> None:
    with pytest.raises(SettingsError, match=r"--config nowhere\.toml: no such file"):
        settle(Options(config="nowhere.toml"))
