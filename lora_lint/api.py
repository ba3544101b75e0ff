"""The public API: the same judgement for scripts, tests and notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint import engine
from lora_lint.environment import Environment, Version
from lora_lint.models.resolve import Resolution, resolve
from lora_lint.settings import Options, Settings, settle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lora_lint.models import ModuleTree
    from lora_lint.reports.text import Style

__all__ = ["Options", "Report", "check", "lint_file", "lint_text", "resolve_model"]


class LoraLintError(ValueError):
    """A report holds errors; the message is the report."""


class Report(engine.Report):
    """What was found: ``diagnostics``, ``recipes`` and ``not_checked``, and the text report as its
    repr.
    """

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        from lora_lint.reports.notebook import html

        return html(self._lines)

    def _lines(self, style: Style | None = None) -> Iterator[str]:
        from lora_lint.reports import text

        yield from text.render(self, style or text.plain)

    def raise_for_errors(self) -> None:
        """Raises ``LoraLintError`` with the report if it holds an error."""
        if any(diagnostic.severity == "error" for diagnostic in self.diagnostics):
            raise LoraLintError(repr(self))


class _Checked(Report):
    """A report on objects, not on a file."""

    def _lines(self, style: Style | None = None) -> Iterator[str]:
        from lora_lint.reports.notebook import of_objects

        yield from of_objects(self, style)


def _report(found: engine.Report) -> Report:
    return Report(found.files, found.unread, found.settings)


def lint_file(path: str | Path, options: Options = Options()) -> Report:  # noqa: B008 - frozen
    """Lint a file as ``lora-lint PATH`` does, without applying fixes.

    Raises ``OSError`` if it can't be read, ``lora_lint.settings.SettingsError`` for wrong options.
    """
    linter = engine.Linter(settle(options))
    data, reason = engine.read(str(path))
    if data is None:
        raise OSError(f"{path}: {reason}")
    result = engine.lint_bytes(linter, str(path), data, named=not options.hook)
    return _report(engine.Report((result,), (), linter.settings))


def lint_text(text: str, path: str, options: Options = Options()) -> Report:  # noqa: B008 - frozen
    """Lint a text as if it stood in the file of that name; the name decides its format.

    Raises ``lora_lint.settings.SettingsError`` for wrong options.
    """
    linter = engine.Linter(settle(options))
    return _report(engine.Report((linter.lint(path, text),), (), linter.settings))


def resolve_model(
    name: str, *, transformers: str | None = None, task: str | None = None, cls: str | None = None
) -> ModuleTree | None:
    """The module tree of a base model by its id, directory or config.json; None if not known.

    ``task`` is PEFT's task type, ``cls`` a class or auto class of transformers, ``transformers`` a
    version.
    """
    found = resolve(name, transformers=transformers, task=task, cls=cls)
    return found.tree if isinstance(found, Resolution) else None


def check(config: Any, model: Any, *, peft: str | None = None) -> Report:
    """Judge a real ``peft.LoraConfig`` on a real model, before ``get_peft_model``.

    ``config`` may also be a ``PeftModel`` or its ``peft_config``, with one adapter. ``peft`` is the
    version to decide for, by default the installed one. Raises ``ValueError`` if the model already
    carries adapters, ``TypeError`` for another config or model.
    """
    import json

    from lora_lint.models.from_model import read_model

    config = _lora_config(config)
    tree = read_model(model)
    environment = Environment(
        Version(peft, "the argument peft") if peft else _installed("peft"),
        _installed("transformers"),
    )
    linter = engine.Linter(Settings(environment=environment, isolated=True))
    name = getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__
    resolution = Resolution(tree, str(name), "the model itself")
    linter.context = linter.context._replace(resolution=resolution)
    text = json.dumps(_stated(config), indent=2)
    result = linter.lint("LoraConfig.json", text)
    return _Checked((result,), (), linter.settings)


def _lora_config(config: Any) -> Any:
    """The LoraConfig that is meant.

    Raises ``TypeError`` for something else, ``ValueError`` where there are several.
    """
    held = getattr(config, "peft_config", config)  # a PeftModel has them by adapter
    if isinstance(held, dict) and held and all(hasattr(c, "peft_type") for c in held.values()):
        if len(held) > 1:
            names = ", ".join(map(repr, held))
            raise ValueError(f"there are several adapters ({names}); pass the config of one")
        held = next(iter(held.values()))
    kind = getattr(held, "peft_type", None)
    if getattr(kind, "value", kind) != "LORA":
        raise TypeError(f"a peft.LoraConfig is expected, not {type(held).__name__}")
    return held


def _installed(package: str) -> Version | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Version(version(package), "installed")
    except PackageNotFoundError:
        return None


def _stated(config: Any) -> Mapping[str, Any]:
    """What a LoraConfig says beyond its defaults, and rank and alpha."""
    default = type(config)()
    always = ("r", "lora_alpha", "target_modules")
    left_out = ("peft_type", "peft_version", "auto_mapping", "runtime_config")
    return {
        name: _plain(value)
        for name, value in vars(config).items()
        if name not in left_out
        and (name in always or _plain(value) != _plain(getattr(default, name, None)))
    }


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or type(value) in (str, int, float, bool):
        return value
    if hasattr(value, "value"):
        return value.value
    return _plain(vars(value)) if hasattr(value, "__dict__") else str(value)
