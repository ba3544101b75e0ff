"""What the user wants: command-line options, and ``[tool.lora-lint]`` in pyproject.toml."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from lora_lint.environment import Environment, Version
from lora_lint.facts import DATA
from lora_lint.recipe import NOTHING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lora_lint.diagnostics import Severity


class SettingsError(Exception):
    """The settings are wrong; the message says where and how, for people."""


class Options(NamedTuple):
    """The lint options, under the command line's long names.

    ``config`` names the pyproject.toml to use. ``isolated``: no pyproject.toml is read, nor any
    lock file or virtual environment for the versions. ``hook``: the files come
    from a pre-commit hook, which passes every file of a type, so that one without LoRA is skipped
    in silence. ``jobs`` is the number of processes of the command line; None chooses it.
    ``since`` is the git revision to compare with. ``online``: a model's config.json is fetched from
    the hub where it is needed. ``live``: models of unknown sizes are built with transformers.
    ``trace``: memory is that of a traced step.
    """

    model: str | None = None
    peft_version: str | None = None
    transformers_version: str | None = None
    gpu: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fix: bool = False
    unsafe_fixes: bool = False
    diff: bool = False
    fail_on: Severity | None = None
    require: tuple[str, ...] = ()
    exit_zero: bool = False
    config: str | None = None
    isolated: bool = False
    hook: bool = False
    jobs: int | None = None
    since: str | None = None
    online: bool = False
    live: bool = False
    trace: bool = False


class Settings(NamedTuple):
    """Options and pyproject.toml together, ready for the engine.

    ``models`` maps private model names (or glob patterns) to known ones, ``rules`` the codes of
    single rules to their settings. ``source`` is the file the settings were read from.
    """

    environment: Environment = Environment()
    model: str | None = None
    models: Mapping[str, str] = NOTHING
    select: tuple[str, ...] = ("ALL",)
    ignore: tuple[str, ...] = ()
    per_file_ignores: Mapping[str, tuple[str, ...]] = NOTHING
    rules: Mapping[str, Mapping[str, Any]] = NOTHING
    fail_on: Severity = "error"
    require: tuple[str, ...] = ()
    source: str | None = None
    isolated: bool = False
    since: str | None = None
    online: bool = False
    live: bool = False
    trace: bool = False


# What --require can ask for.
REQUIRABLE: Final = ("model", "versions")
_VERSION: Final = re.compile(r"\d+(\.\d+)*")


def settle(options: Options, folder: Path | None = None) -> Settings:
    """The settings that hold for a run; options win over pyproject.toml.

    ``folder`` is where the search for pyproject.toml begins, upwards. Raises ``SettingsError``.
    """
    source, table = _load(options, folder or Path.cwd())
    versions = table.get("versions", {})
    where = str(source) if source else ""
    for codes in (options.select, options.ignore, table.get("select", ()), table.get("ignore", ())):
        _check_codes(codes, where)
    for need in options.require:
        if need not in REQUIRABLE:
            _refuse("", f"--require {need}: known are {', '.join(REQUIRABLE)}")
    return Settings(
        environment=Environment(
            _version(options.peft_version, "--peft-version", versions.get("peft"), where),
            _version(
                options.transformers_version,
                "--transformers-version",
                versions.get("transformers"),
                where,
            ),
            _gpu(options.gpu, "--gpu") or _gpu(table.get("gpu"), where),
        ),
        model=options.model or table.get("model"),
        models=table.get("models", {}),
        select=options.select or tuple(table.get("select", ("ALL",))),
        ignore=options.ignore or tuple(table.get("ignore", ())),
        per_file_ignores={k: tuple(v) for k, v in table.get("per-file-ignores", {}).items()},
        rules=table.get("rules", {}),
        fail_on=options.fail_on or table.get("fail-on", "error"),
        require=options.require or tuple(table.get("require", ())),
        source=where or None,
        isolated=options.isolated,
        since=options.since,
        online=options.online or table.get("online", False),
        live=options.live or table.get("live", False),
        trace=options.trace,
    )


def _version(option: str | None, flag: str, setting: str | None, where: str) -> Version | None:
    if option:
        if not _VERSION.match(option):
            _refuse(flag, f"{option!r} is not a version like 0.17.1")
        return Version(option, flag)
    return Version(setting, where) if setting else None


def _gpu(name: str | None, where: str) -> str | None:
    """The name of a GPU that is known."""
    if name is None:
        return None
    from lora_lint.memory import parse_gpu

    try:
        parse_gpu(name)
    except ValueError as exc:
        _refuse(where, str(exc))
    return name


def _check_codes(codes: Iterable[str], where: str) -> None:
    from lora_lint.checks.names import nearest
    from lora_lint.rulebook import matches, rules

    for code in codes:
        if not any(matches(code, rule) for rule in rules().values()):
            near = nearest(code.upper(), rules()) or nearest(
                code, [r.name for r in rules().values()]
            )
            hint = f"; did you mean {near}?" if near else "; `lora-lint rules` lists them"
            _refuse(where, f"no rule is called {code!r}{hint}")


def _refuse(where: str, message: str) -> NoReturn:
    raise SettingsError(f"{where}: {message}" if where else message)


# pyproject.toml ----------------------------------------------------------------------------------


def _load(options: Options, folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The file the settings stand in, and its [tool.lora-lint] table."""
    if options.config is not None:
        path = Path(options.config)
        if not path.is_file():
            _refuse("", f"--config {options.config}: no such file")
        return path, _read(path)
    if options.isolated:
        return None, {}
    for holder in (folder, *folder.resolve().parents):
        path = holder / "pyproject.toml"
        if path.is_file() and (table := _read(path)):
            return path, table
    return None, {}


def _read(path: Path) -> dict[str, Any]:
    """The table of a pyproject.toml, validated; empty where it has none."""
    data = path.read_bytes()
    if b"lora-lint" not in data:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(data.decode("utf-8")).get("tool", {}).get("lora-lint", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        _refuse(str(path), str(exc))
    if table:
        _validate(table, str(path))
    return dict(table)


def _validate(table: dict[str, Any], where: str) -> None:
    import jsonschema

    schema = json.loads((DATA / "settings.schema.json").read_text(encoding="utf-8"))
    problems = jsonschema.Draft202012Validator(schema).iter_errors(table)
    for problem in sorted(problems, key=lambda p: [str(step) for step in p.absolute_path]):
        steps = ["tool", "lora-lint", *(str(step) for step in problem.absolute_path)]
        place = f"[{'.'.join(steps)}]"
        if problem.validator == "additionalProperties":
            _refuse_unknown(where, place, problem)
        _refuse(where, f"{place}: {problem.message}")


def _refuse_unknown(where: str, place: str, problem: Any) -> NoReturn:
    from lora_lint.checks.names import nearest

    known = problem.schema["properties"]
    name = next(name for name in problem.instance if name not in known)
    near = nearest(name.replace("_", "-"), known, cutoff=0.6)
    hint = f"did you mean {near!r}?" if near else "known are " + ", ".join(sorted(known))
    _refuse(where, f"{place} has no setting {name!r}; {hint}")
