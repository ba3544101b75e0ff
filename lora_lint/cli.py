"""The command line: arguments in, engine called, report chosen; no logic of its own."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lora_lint import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lora_lint.settings import Options

FORMATS = ("text", "concise", "json", "github")
EXIT_FOUND, EXIT_USAGE, EXIT_FAULT, EXIT_INTERRUPTED = 1, 2, 3, 130


class LintByDefault(click.Group):
    """A group whose first argument may be a path: then it is ``lint``'s."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``lint`` before arguments that begin with neither a command nor a group option."""
        own = ("--help", "-h", "--version", "-V")
        if args and args[0] not in self.commands and args[0] not in own:
            args = ["lint", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=LintByDefault,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
@click.version_option(__version__, "-V", "--version", prog_name="lora-lint")
def main() -> None:
    """Tell what a LoRA fine-tuning config will really do, before the run.

    `lora-lint config.yaml` is short for `lora-lint lint config.yaml`.
    """


def _list(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.strip() for item in value for part in item.split(",") if part.strip())


colour = click.option(
    "--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True
)


def _joined(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> str | None:
    """An option that may be repeated, as if its values had been given in one."""
    return ",".join(values) or None


def judged_against(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a config is judged against, and how the answer looks."""
    options = (
        click.option("--model", metavar="PATH|ID", help="The base model."),
        click.option("--peft-version", metavar="VERSION", help="The PEFT you train with."),
        click.option(
            "--transformers-version", metavar="VERSION", help="The transformers you train with."
        ),
        click.option(
            "--gpu",
            multiple=True,
            callback=_joined,
            metavar="NAME|SIZE[:N]",
            help="Such as rtx4090, 24GB or h100:8.",
        ),
        click.option("--online", is_flag=True, help="Fetch config.json from the hub where needed."),
        click.option(
            "--live", is_flag=True, help="Build models of unknown sizes with transformers."
        ),
        click.option(
            "--trace", is_flag=True, help="Memory of a real step, traced without a GPU (seconds)."
        ),
        click.option("--config", metavar="FILE", help="The pyproject.toml to take settings from."),
        click.option("--isolated", is_flag=True, help="Read no pyproject.toml and no lock file."),
        colour,
    )
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@judged_against
@click.option("--select", multiple=True, callback=_list, metavar="CODES", help="Only these rules.")
@click.option("--ignore", multiple=True, callback=_list, metavar="CODES", help="Not these rules.")
@click.option("--fix", is_flag=True, help="Apply safe fixes.")
@click.option("--unsafe-fixes", is_flag=True, help="With --fix or --diff: unsafe fixes too.")
@click.option("--diff", is_flag=True, help="Show what the fixes would change; change nothing.")
@click.option("--output-format", type=click.Choice(FORMATS), help="[default: text]")
@click.option("--output-file", type=click.Path(dir_okay=False), help="Write the report there.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "info"]),
    help="The mildest finding that fails the run.  [default: error]",
)
@click.option(
    "--require",
    multiple=True,
    callback=_list,
    metavar="model,versions",
    help="Fail if these could not be determined.",
)
@click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever is found.")
@click.option("--stdin-filename", metavar="NAME", help="The name of the file that - stands for.")
@click.option("--since", metavar="REV", help="Compare with a git revision (SC211).")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Lint in N processes.  [default: one; all cores where it takes long]",
)
@click.option("--statistics", is_flag=True, help="Count the findings by rule.")
@click.option("--show-settings", is_flag=True, help="Print the settings and stop.")
@click.option("--show-files", is_flag=True, help="Print the files that would be linted and stop.")
@click.option("--quiet", "-q", is_flag=True, help="Print findings only.")
@click.option("--verbose", "-v", is_flag=True, help="Print every info, whatever was named.")
@click.option("--hook", is_flag=True, help="The files come from a hook; skip those without LoRA.")
def lint(paths: tuple[str, ...], **given: Any) -> None:
    """Lint files and folders; - is standard input.

    Exit status: 0 nothing at or above --fail-on, 1 findings, 2 wrong usage or unreadable paths,
    3 a fault in lora-lint, 130 interrupted.
    """
    from lora_lint import run
    from lora_lint.reports.digest import View

    look = {name: given.pop(name) for name in _LOOK}
    options = _options(given)
    settings = _settle(options)
    if look["show_settings"]:
        _print(run.settings_text(settings), look["color"])
        return
    if look["show_files"]:
        _print("\n".join(run.files(paths)), look["color"])
        return
    view = View(
        output_format=look["output_format"] or run.format_for_surroundings(),
        infos=look["verbose"],
        quiet=look["quiet"],
        style=_style(look["color"], look["output_file"]),
    )
    outcome = _run(paths, options, settings, view, look["stdin_filename"])
    text = run.render(outcome, statistics=look["statistics"])
    if look["output_file"]:
        from pathlib import Path

        Path(look["output_file"]).write_text(text + "\n", encoding="utf-8")
    elif text:
        _print(text, look["color"])
    for line in outcome.missing:
        click.echo(line, err=True)
    sys.exit(run.exit_code(outcome, options, settings))


def _run(paths: tuple[str, ...], *given: Any) -> Any:
    """The run; one that ends too early says so."""
    from lora_lint import run
    from lora_lint.parallel import WorkerDied
    from lora_lint.settings import SettingsError

    try:
        return run.lint(paths, *given)
    except SettingsError as exc:
        raise click.UsageError(str(exc)) from None
    except run.Interrupted as exc:
        click.echo(str(exc), err=True)
        sys.exit(EXIT_INTERRUPTED)
    except WorkerDied as exc:
        click.echo(f"lora-lint: {exc}. Out of memory? --jobs 1 lints file by file.", err=True)
        sys.exit(EXIT_FAULT)


_LOOK = (
    "color",
    "output_format",
    "output_file",
    "stdin_filename",
    "statistics",
    "show_settings",
    "show_files",
    "quiet",
    "verbose",
)


@main.command()
@click.argument("path")
@judged_against
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text")
def show(path: str, color: str, output_format: str, **given: Any) -> None:
    """Show what is written, what LoraConfig receives and what PEFT makes of it."""
    from lora_lint import run

    options = _options(given)
    report = run.report(path, _settle(options))
    if report.unread:
        raise click.ClickException(f"{path}: {report.unread[0].reason}")
    if output_format == "json":
        from lora_lint.reports import show_json

        _print(show_json.render(report), color)
        return
    from lora_lint.reports import show_text

    _print("\n".join(show_text.render(report, _style(color, None))), color)


def _numbers(
    _ctx: click.Context, _param: click.Parameter, values: Sequence[str]
) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in ",".join(values).split(",") if part.strip())
    except ValueError:
        raise click.BadParameter("whole numbers, such as 1,2,4, are expected") from None
    if any(number < 1 for number in numbers):
        raise click.BadParameter("a number from 1 is expected")
    return numbers


tried = partial(click.option, multiple=True, callback=_numbers, metavar="N,N…")


@main.command()
@click.argument("path")
@judged_against
@tried("--batch", help="Try these batch sizes.")
@tried("--length", help="Try these sequence lengths.")
@tried("--r", "rank", help="Try these ranks.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text")
def memory(
    path: str,
    color: str,
    output_format: str,
    batch: tuple[int, ...],
    length: tuple[int, ...],
    rank: tuple[int, ...],
    **given: Any,
) -> None:
    """Draw a run's memory against the GPU, and what would make it fit.

    --gpu takes several, as in rtx4090,a100-80gb; --batch, --length and --r try other values.
    """
    from lora_lint import run
    from lora_lint.reports import memory_report

    gpus = tuple(part.strip() for part in (given["gpu"] or "").split(",") if part.strip())
    options = _options({**given, "gpu": gpus[0] if gpus else None})
    for name in gpus[1:]:
        _settle(options._replace(gpu=name))
    report = run.report(path, _settle(options))
    if report.unread:
        raise click.ClickException(f"{path}: {report.unread[0].reason}")
    what_if = memory_report.WhatIf(gpus, batch, length, rank)
    if output_format == "json":
        _print(memory_report.render_json(report, what_if), color)
        return
    width = _columns()
    _print("\n".join(memory_report.render(report, what_if, _style(color, None), width)), color)


@main.command()
@click.argument("model")
@click.option("--r", type=click.IntRange(min=1), default=16, show_default=True, help="The rank.")
@click.option("--task", metavar="TASK_TYPE", help="PEFT's task type, such as SEQ_CLS.")
@click.option("--cls", metavar="CLASS", help="The class or auto class of transformers.")
@click.option("--peft-version", metavar="VERSION", help="[default: the newest known]")
@click.option("--transformers-version", metavar="VERSION", help="The transformers you train with.")
@click.option("--online", is_flag=True, help="Fetch config.json from the hub where needed.")
@click.option("--live", is_flag=True, help="Build models of unknown sizes with transformers.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text")
@colour
def inspect(model: str, color: str, output_format: str, **given: Any) -> None:
    """Show a model's modules: what there is to target, and what PEFT's presets take.

    MODEL is an id of the hub, a folder, a config.json or a saved module tree.
    """
    found = _inspected(model, **given)
    if output_format == "json":
        from lora_lint.reports import inspect_json

        _print(inspect_json.render(found), color)
        return
    from lora_lint.reports import inspect_text

    width = _columns()
    _print("\n".join(inspect_text.render(found, _style(color, None), width)), color)


def _inspected(
    model: str,
    r: int,
    task: str | None,
    cls: str | None,
    peft_version: str | None,
    transformers_version: str | None,
    online: bool,
    live: bool,
) -> Any:
    """The inspection of a model; one that is not known ends the command with the reason."""
    from lora_lint import inspection
    from lora_lint.facts import newest_peft
    from lora_lint.models import listing
    from lora_lint.models.resolve import Effort, Unresolved, resolve

    peft = peft_version or newest_peft()
    task = _task(task)
    effort = Effort(online, "missing" if live else "no")
    found = resolve(model, transformers=transformers_version, task=task, cls=cls, effort=effort)
    if isinstance(found, Unresolved):
        click.echo("\n".join(listing.why_not(model, found)), err=True)
        sys.exit(EXIT_USAGE)
    return inspection.inspect(found, peft=peft, transformers=transformers_version, r=r, task=task)


def _task(task: str | None) -> str | None:
    """PEFT's task type as PEFT spells it."""
    from lora_lint.facts import newest_peft, task_types

    if task is not None and task.upper() not in task_types(newest_peft()):
        raise click.UsageError(f"--task is one of {', '.join(task_types(newest_peft()))}")
    return task.upper() if task is not None else None


@main.command()
@click.argument("model")
@click.option("-o", "--output-file", type=click.Path(dir_okay=False), help="[default: stdout]")
@click.option("--task", metavar="TASK_TYPE", help="PEFT's task type, such as SEQ_CLS.")
@click.option("--cls", metavar="CLASS", help="The class or auto class of transformers.")
@click.option("--online", is_flag=True, help="Fetch the config.json of a hub's model.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    help="The longest that the build may take.",
)
def snapshot(
    model: str,
    output_file: str | None,
    task: str | None,
    cls: str | None,
    seconds: float,
    online: bool,
) -> None:
    """Build a model with the installed transformers, on no device, and write its module tree.

    `inspect`, --model and the settings take that file. Code of the model's own repository is never
    run.
    """
    from lora_lint.models import listing, live

    task = _task(task)
    try:
        tree = live.tree_of(model, cls=cls, task=task, seconds=seconds, online=online)
    except live.NotBuilt as exc:
        reason = str(exc).replace("; pass --model", "")
        click.echo(f"{reason}\n{listing.OWN_PROCESS}", err=True)
        sys.exit(EXIT_USAGE)
    if output_file is None:
        click.echo(tree.to_json())
        return
    from pathlib import Path

    try:
        Path(output_file).write_text(tree.to_json() + "\n", encoding="utf-8")
    except OSError as exc:
        raise click.UsageError(f"{output_file} can't be written: {exc.strerror}") from None
    count = tree.parameter_count()
    sizes = f", {count:,} parameters" if count is not None else ""
    click.echo(f"{output_file}: {tree.cls}{sizes}, as transformers {tree.transformers} builds it")


@main.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text")
def models(words: tuple[str, ...], output_format: str) -> None:
    """List the models that are known by name; with words, those whose id or class has them all."""
    from lora_lint.models.listing import listed
    from lora_lint.reports import models_list

    found = listed(words)
    if output_format == "json":
        click.echo(models_list.as_json(found))
        return
    click.echo("\n".join(models_list.as_text(found)))


@main.command()
@click.argument("code")
def explain(code: str) -> None:
    """Explain a rule: what, why, an example, the fix, and how it is proven."""
    from lora_lint.checks.names import nearest
    from lora_lint.rulebook import rule_text, rules

    wanted = next(
        (r.code for r in rules().values() if code.upper() == r.code or code == r.name), None
    )
    if wanted is None:
        near = nearest(code.upper(), rules())
        hint = f"; did you mean {near}?" if near else "; `lora-lint rules` lists them"
        raise click.UsageError(f"no rule is called {code!r}{hint}")
    click.echo(rule_text(wanted), nl=False)


@main.command()
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text")
def rules(output_format: str) -> None:
    """List the rules."""
    from lora_lint import rulebook

    listed = rulebook.rules().values()
    if output_format == "json":
        import json

        click.echo(json.dumps([rule._asdict() for rule in listed], indent=2))
        return
    width = max(len(rule.name) for rule in listed)
    for rule in listed:
        click.echo(f"{rule.code}  {rule.severity:<7}  {rule.name:<{width}}  {rule.summary}")


@main.command()
@click.argument("dialect")
def schema(dialect: str) -> None:
    """Print the JSON Schema of a framework's config files, for editors.

    DIALECT is a framework's short name, such as axolotl, llama_factory, trl or peft.
    """
    import json

    from lora_lint import dialects

    wanted, known = dialect.lower().replace("-", "_"), dialects.with_tables()
    if wanted not in known:
        raise click.UsageError(f"no schema for {dialect!r}; there are {', '.join(known)}")
    click.echo(json.dumps(dialects.schema(wanted), indent=2))


def _options(given: dict[str, Any]) -> Options:
    from lora_lint.settings import Options

    return Options(**given)


def _settle(options: Options) -> Any:
    from lora_lint.settings import SettingsError, settle

    try:
        return settle(options)
    except SettingsError as exc:
        raise click.UsageError(str(exc)) from None


def _style(color: str, output_file: str | None) -> Any:
    from lora_lint.reports.text import plain

    return click.style if output_file is None and wants_colour(color) else plain


def _columns() -> int:
    """The terminal's columns, 100 where there is none."""
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def _print(text: str, color: str) -> None:
    click.echo(text, color=wants_colour(color))


def wants_colour(color: str) -> bool:
    """Whether to colour: on a terminal, unless the user, NO_COLOR or FORCE_COLOR say otherwise."""
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def console() -> None:
    """The installed command: a fault in lora-lint is reported as one, with exit status 3."""
    try:
        main(standalone_mode=True)
    except Exception as exc:
        if os.environ.get("LORA_LINT_DEBUG"):
            raise
        click.echo(
            f"lora-lint {__version__} failed: {type(exc).__name__}: {exc}\n"
            "This is a fault in lora-lint. Set LORA_LINT_DEBUG=1 for the traceback, and report it "
            "with the file, please.",
            err=True,
        )
        sys.exit(EXIT_FAULT)
