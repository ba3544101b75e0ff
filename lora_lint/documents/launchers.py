"""What runs a training program: launchers, environments and interpreters around a command.

Their options are those of their own parsers: accelerate 1.15.0 commands/launch.py, torch 2.13.0
distributed/run.py, deepspeed 0.19.8 launcher/runner.py; those of the other commands stand in their
manuals.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora_lint.documents.variables import Word


class Launcher(NamedTuple):
    """A command that runs another.

    ``flags`` are its options without a value; every other option takes one, unless ``values`` names
    those that do. ``script``: what it runs is a Python script, or a module behind one of
    ``module``. ``positional``: how many words of its own stand before the command. ``names`` gives
    short options their long names, ``follow`` are the words that belong to its name.
    """

    note: str
    flags: frozenset[str] = frozenset()
    values: frozenset[str] | None = None
    script: bool = False
    module: frozenset[str] = frozenset()
    positional: int = 0
    follow: tuple[str, ...] = ()
    names: dict[str, str] = {}  # noqa: RUF012 - never changed


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NONE: Final[frozenset[str]] = frozenset()
_TORCHRUN: Final = Launcher(
    "torchrun",
    _set("h help standalone m module no_python run_path virtual_local_rank use_env"),
    script=True,
    module=_set("m module"),
    names={"r": "redirects", "t": "tee", "m": "module"},
)
_ACCELERATE: Final = Launcher(
    "accelerate launch",
    _set(
        "h help quiet q cpu multi_gpu tpu enable_cpu_affinity dynamo_use_fullgraph "
        "dynamo_use_dynamic dynamo_use_regional_compilation use_deepspeed use_fsdp "
        "use_parallelism_config use_megatron_lm same_network m module no_python tpu_cluster "
        "no_tpu_cluster tpu_use_sudo downcast_bf16 fp8_use_autocast_during_eval debug "
        "use_xpu use_mps_device"
    ),
    script=True,
    module=_set("m module"),
    follow=("launch",),
    names={"m": "module", "q": "quiet", "t": "tee"},
)
_DEEPSPEED: Final = Launcher(
    "deepspeed",
    _set(
        "h help module no_python no_local_rank no_ssh no_ssh_check force_multi save_pid q quiet "
        "bind_cores_to_rank elastic_training"
    ),
    script=True,
    module=_set("module"),
    names={"H": "hostfile", "i": "include", "e": "exclude", "q": "quiet",
           "num_accelerators": "num_gpus"},
)  # fmt: skip
_UV: Final = _set(
    "with with_requirements with_editable extra group only_group no_group p python index_url "
    "extra_index_url index default_index directory project env_file config_file package f "
    "find_links resolution prerelease color cache_dir link_mode python_platform no_extra w "
    "refresh_package upgrade_package reinstall_package config_setting"
)
_LAUNCHERS: Final[dict[str, tuple[Launcher, ...]]] = {
    "accelerate": (_ACCELERATE,),
    "accelerate-launch": (_ACCELERATE._replace(follow=()),),
    "torchrun": (_TORCHRUN,),
    "deepspeed": (_DEEPSPEED,),
    "tune": (_TORCHRUN._replace(follow=("run",), script=False, module=_NONE),),
    "oumi": (
        _TORCHRUN._replace(follow=("distributed", "torchrun")),
        _ACCELERATE._replace(follow=("distributed", "accelerate", "launch")),
    ),
    "colossalai": (
        Launcher(
            "colossalai run", _set("force_multi m"), script=True, module=_set("m"), follow=("run",)
        ),
    ),
    "composer": (
        Launcher(
            "composer",
            _set("h help v verbose m module_mode c command_mode"),
            script=True,
            module=_set("m module_mode"),
        ),
    ),
    "env": (Launcher("env", values=_set("u unset C chdir S")),),
    "sudo": (Launcher("sudo", values=_set("u user g group h host p prompt C D R T r t U")),),
    "nohup": (Launcher("nohup", values=_NONE),),
    "setsid": (Launcher("setsid", values=_NONE),),
    "time": (Launcher("time", values=_set("f format o output")),),
    "exec": (Launcher("exec", values=_set("a")),),
    "command": (Launcher("command", values=_NONE),),
    "eval": (Launcher("eval", values=_NONE),),
    "builtin": (Launcher("builtin", values=_NONE),),
    "nice": (Launcher("nice", values=_set("n adjustment")),),
    "ionice": (Launcher("ionice", values=_set("c class n classdata p pid")),),
    "timeout": (Launcher("timeout", values=_set("k kill_after s signal"), positional=1),),
    "stdbuf": (Launcher("stdbuf", values=_set("i input o output e error")),),
    "taskset": (Launcher("taskset", values=_NONE, positional=1),),
    "numactl": (
        Launcher("numactl", values=_set("N m C p i cpunodebind membind physcpubind interleave")),
    ),
    "caffeinate": (Launcher("caffeinate", values=_set("t w")),),
    "srun": (
        Launcher(
            "srun",
            _set(
                "E preserve_env exclusive H hold l label O overcommit s oversubscribe Q quiet u "
                "unbuffered v verbose X disable_status Z no_allocate contiguous multi_prog pty "
                "spread_job use_min_nodes k no_kill S K kill_on_bad_exit overlap "
                "container_mount_home no_container_mount_home container_remap_root "
                "no_container_remap_root"
            ),
        ),
    ),
    "mpirun": (
        Launcher(
            "mpirun",
            values=_set(
                "n np c N npernode npersocket H host hostfile machinefile x mca map_by bind_to "
                "rank_by wdir genv env ppn rf rankfile"
            ),
        ),
    ),
    "uv": (Launcher("uv run", values=_UV, follow=("run",)),),
    "uvx": (Launcher("uvx", values=_UV | {"from"}),),
    "poetry": (Launcher("poetry run", values=_set("C directory P project"), follow=("run",)),),
    "pdm": (Launcher("pdm run", values=_set("p project"), follow=("run",)),),
    "rye": (Launcher("rye run", values=_set("pyproject"), follow=("run",)),),
    "pipenv": (Launcher("pipenv run", values=_NONE, follow=("run",)),),
    "hatch": (Launcher("hatch run", values=_NONE, follow=("run",)),),
    "pixi": (
        Launcher("pixi run", values=_set("e environment manifest_path"), follow=("run",)),
    ),
    "conda": (Launcher("conda run", values=_set("n name p prefix cwd"), follow=("run",)),),
    "mamba": (Launcher("mamba run", values=_set("n name p prefix cwd"), follow=("run",)),),
    "micromamba": (
        Launcher(
            "micromamba run", values=_set("n name p prefix cwd r root_prefix e"), follow=("run",)
        ),
    ),
    "ray": (
        Launcher(
            "ray job submit",
            _set("no_wait verbose delete v"),
            follow=("job", "submit"),
        ),
    ),
    "nsys": (Launcher("nsys profile", follow=("profile",)),),
}  # fmt: skip
_LAUNCHERS["mpiexec"] = _LAUNCHERS["mpirun"]
_MODULES: Final = {
    "torch.distributed.run": _TORCHRUN,
    "torch.distributed.launch": _TORCHRUN,
    "accelerate.commands.launch": _ACCELERATE._replace(follow=()),
    "deepspeed.launcher.runner": _DEEPSPEED,
}
_PYTHON: Final = re.compile(r"(?:python|pypy)[\d.]*(?:\.exe)?|ipython3?")
_PYTHON_VALUES: Final = frozenset("XW")
# Commands whose first words say what they do, as their subcommands.
_ENTRIES: Final = frozenset(
    {"autotrain", "axolotl", "litgpt", "llamafactory", "llamafactory-cli", "llamafactory.cli",
     "lmf", "megatron", "mlx_lm", "oumi", "swift", "trl", "tune", "xtuner"}
)  # fmt: skip
# Subcommands of two words: `litgpt finetune lora` in releases before 0.4.
_DEEPER: Final = {"litgpt finetune": frozenset({"lora", "full", "adapter", "adapter_v2"})}
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=")
_SUBCOMMAND: Final = re.compile(r"[A-Za-z][\w-]*")


class Around(NamedTuple):
    """A launcher of a command with its own words, and the long names of its short options."""

    note: str
    words: tuple[Word, ...]
    launcher: Launcher


class Program(NamedTuple):
    """What a command runs: its name, its arguments, and what runs it from the outside in."""

    note: str
    arguments: tuple[Word, ...]
    around: tuple[Around, ...] = ()


def unwrap(words: Sequence[Word]) -> Program | None:
    """The program that a command runs in the end, None where that isn't known."""
    around: list[Around] = []
    at = 0
    while at < len(words):
        text = words[at].text
        if text is None:
            return _behind_unknown(words, at, around)
        start = at
        while at < len(words) and _ASSIGNMENT.match(words[at].known):
            at += 1
        if at > start:
            around.append(Around("env", tuple(words[start:at]), Launcher("env")))
            continue
        name = _base(text)
        if _PYTHON.fullmatch(name):
            return _python(words, at, around)
        launcher = _launcher(name, words, at)
        if launcher is None:
            return _program(words, at, text, around)
        at, module = _options(words, at + 1 + len(launcher.follow), launcher, around)
        if name == "tune":
            return Program("tune run", tuple(words[at:]), tuple(around))
        if module or (launcher.script and at < len(words)):
            return _script(words, at, around, module=module)
    return None


def _base(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[2]


def _launcher(name: str, words: Sequence[Word], at: int) -> Launcher | None:
    for launcher in _LAUNCHERS.get(name, ()):
        follow = tuple(word.text for word in words[at + 1 : at + 1 + len(launcher.follow)])
        if follow == launcher.follow:
            return launcher
    return None


def _options(
    words: Sequence[Word], at: int, launcher: Launcher, around: list[Around]
) -> tuple[int, bool]:
    """Step over a launcher's own options; where they end, and whether a module follows."""
    start, module = at, False
    positional = launcher.positional
    while at < len(words):
        known = words[at].known
        if known == "--":
            around.append(Around(launcher.note, tuple(words[start:at]), launcher))
            return at + 1, module
        if not known.startswith("-") or known == "-":
            if words[at].text is None and words[at].many and launcher.script:
                at += 1  # `$ARGS`: options, since a script would end in .py
                continue
            if positional == 0:
                break
            positional -= 1
            at += 1
            continue
        name = known.lstrip("-").partition("=")[0].replace("-", "_")
        at += 1
        if name in launcher.module:
            module = True
        if "=" not in known and _takes_value(launcher, known, name):
            at += 1
    around.append(Around(launcher.note, tuple(words[start:at]), launcher))
    return at, module


def _takes_value(launcher: Launcher, written: str, name: str) -> bool:
    if launcher.values is None:
        return name not in launcher.flags
    if not written.startswith("--") and len(name) > 1 and name not in launcher.values:
        return name[-1] in launcher.values and name[0] not in launcher.values
    return name in launcher.values


def _script(
    words: Sequence[Word], at: int, around: list[Around], *, module: bool
) -> Program | None:
    """What a launcher runs: a script, or a module and perhaps its subcommand."""
    if at >= len(words):
        return None
    text = words[at].text
    if text is None:
        return Program(_tail(words[at]), tuple(words[at + 1 :]), tuple(around))
    if module and (inner := _MODULES.get(text)) is not None:
        behind, deeper = _options(words, at + 1, inner, around)
        return _script(words, behind, around, module=deeper)
    if _PYTHON.fullmatch(_base(text)):
        return _python(words, at, around)
    if module and text not in _ENTRIES:
        return Program(text, tuple(words[at + 1 :]), tuple(around))
    return _program(words, at, text, around)


def _python(words: Sequence[Word], at: int, around: list[Around]) -> Program | None:
    start = at + 1
    at = start
    while at < len(words):
        text = words[at].text or ""
        if not text.startswith("-") or text == "-":
            break
        at += 1
        if text.startswith("--"):
            continue
        letters = text[1:]
        if "c" in letters and not set("XWm") & set(letters[: letters.index("c")]):
            return None
        if letters[-1] == "m":
            around.append(Around("python", tuple(words[start : at - 1]), _INTERPRETER))
            return _script(words, at, around, module=True)
        if letters in _PYTHON_VALUES:
            at += 1
    around.append(Around("python", tuple(words[start:at]), _INTERPRETER))
    return _script(words, at, around, module=False)


_INTERPRETER: Final = Launcher("python", values=_PYTHON_VALUES)


def _program(words: Sequence[Word], at: int, text: str, around: list[Around]) -> Program:
    """A program, with its subcommand where it is an entry point that has them."""
    name = _base(text)
    at += 1
    if name not in _ENTRIES:
        note = name if re.fullmatch(r"mlx_lm\.\w+", name) else text
        return Program(note, tuple(words[at:]), tuple(around))
    following = words[at].text if at < len(words) else None
    if following is not None and _SUBCOMMAND.fullmatch(following):
        name, at = f"{name} {following}", at + 1
        deeper = words[at].text if at < len(words) else None
        if deeper is not None and deeper in _DEEPER.get(name, ()):
            name, at = f"{name} {deeper}", at + 1
    return Program(name, tuple(words[at:]), tuple(around))


def _tail(word: Word) -> str:
    """The known end of a script's path: `train.py` of `$ROOT/train.py`; empty where it has none."""
    last = next((p.text for p in reversed(word.pieces) if p.text != ""), None)
    return last.partition("/")[2] if last is not None and last.endswith(".py") else ""


def _behind_unknown(words: Sequence[Word], at: int, around: list[Around]) -> Program | None:
    """A command whose first word isn't known, such as `$PYTHON` or `$LAUNCHER`: the script that it
    names, or the module.
    """
    own = _tail(words[at])
    if own:
        return Program(own, tuple(words[at + 1 :]), tuple(around))
    for number in range(at + 1, len(words)):
        text = words[number].text or _tail(words[number])
        if text in ("-m", "--module") and number + 1 < len(words):
            return _script(words, number + 1, around, module=True)
        if text.endswith(".py"):
            return _program(words, number, text, around)
        if _PYTHON.fullmatch(_base(text)) or _base(text) in _LAUNCHERS:
            return unwrap(words[number:])
        if text.startswith("-") and re.search(r"lora|peft", text):
            return Program("", tuple(words[at + 1 :]), tuple(around))
    return None
