"""The public API: the same judgement for scripts, tests and notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lora_lint import engine
from lora_lint.environment import Environment, Version
from lora_lint.models.resolve import Resolution, resolve
from lora_lint.settings import Options, Settings, settle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lora_lint.models import ModuleTree

__all__ = ["Options", "Report", "check", "lint_file", "lint_text", "resolve_model"]


class LoraLintError(ValueError):
    """A report holds errors; the message is the report."""


class Report(engine.Report):
    """What was found: ``diagnostics``, ``recipes`` and ``not_checked``, and the text report as its
    repr.
    """

    def __repr__(self) -> str:
        from lora_lint.reports import text

        return "\n".join(text.render(self))

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(repr(self))}</pre>"

    def raise_for_errors(self) -> None:
        """Raises ``LoraLintError`` with the report if it holds an error."""
        if any(diagnostic.severity == "error" for diagnostic in self.diagnostics):
            raise LoraLintError(repr(self))


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

    ``peft`` is the version to decide for, by default the installed one. Raises ``ValueError`` if
    the model already carries adapters.
    """
    import json

    from lora_lint.models.from_model import read_model

    tree = read_model(model)
    environment = Environment(
        Version(peft, "peft=") if peft else _installed("peft"), _installed("transformers")
    )
    linter = engine.Linter(Settings(environment=environment, isolated=True))
    name = getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__
    resolution = Resolution(tree, str(name), "the model itself")
    linter.context = linter.context._replace(resolution=resolution)
    text = json.dumps(_stated(config), indent=2)
    result = linter.lint("LoraConfig.json", text)
    return _report(engine.Report((result,), (), linter.settings))


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
