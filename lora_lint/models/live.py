"""Builds a model that the catalogue does not know: from its config.json, on the meta device.

transformers does that in a process of its own (``building.py``), with limits, without the network
and without code from the model's repository. The tree is kept in lora-lint's cache under a digest
of what decides it, so that it is built once.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lora_lint.models import cache
from lora_lint.models.module_tree import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lora_lint.models.config_file import ConfigFile

INSTALL: Final = "pip install 'lora-lint[live]'"
SECONDS: Final = 120
# Of main memory. A real model's modules take some hundred MiB beside torch's own.
MEMORY: Final = 8 * 2**30
# Keys of a config that decide no module: where it came from, how it is loaded, how it generates.
# Those of attention and experts may name kernels of the hub, which would be fetched and run.
_VOLATILE: Final = frozenset(
    (
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "quantization_config",
        "compression_config",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "do_sample",
        "temperature",
        "top_p",
        "num_beams",
        "num_return_sequences",
        "length_penalty",
        "repetition_penalty",
        "early_stopping",
        "use_cache",
    )
)
# The build sees nothing of the user's models and reaches no network.
_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "USE_TF": "0",
    "USE_FLAX": "0",
}
_SECRETS: Final = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
# Not ``-m``: that would put the current folder, which may be a stranger's, before the library.
_CODE: Final = (
    "import sys; sys.path[:] = {path!r}; from lora_lint.models.building import main; main()"
)


class NotBuilt(Exception):  # noqa: N818 - an answer, not a fault
    """There is no tree; the message says why, for people."""


class Request(NamedTuple):
    """What is built: a config without what decides nothing, and the class or PEFT's task type."""

    values: Mapping[str, Any]
    cls: str | None
    task: str | None

    @property
    def digest(self) -> str:
        """What the request is known by in the cache."""
        import hashlib

        text = json.dumps(self._asdict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def what(self) -> str:
        """The model for people: the class of the config, else its type."""
        named = self.values.get("architectures")
        first = named[0] if isinstance(named, list) and named else None
        return self.cls or str(first or self.values.get("model_type"))[:80]


def tree_of(
    name: str,
    *,
    cls: str | None = None,
    task: str | None = None,
    seconds: float = SECONDS,
    online: bool = False,
) -> ModuleTree:
    """The module tree of a model as the installed transformers builds it.

    ``name`` is a directory, a config.json, or the id of a model whose config.json is in a cache on
    this disk or, with ``online``, on the hub; an adapter leads to its base model. ``cls`` is a
    class or auto class of transformers, ``task`` PEFT's task type; else the config's own class is
    built. Raises ``NotBuilt``.
    """
    from lora_lint.models.resolve import Effort, Unresolved, resolve

    effort = Effort(online=online, live="always", seconds=seconds)
    found = resolve(name, cls=cls, task=task, effort=effort)
    if isinstance(found, Unresolved):
        raise NotBuilt(found.reason)
    return found.tree


def request(config: ConfigFile, cls: str | None, task: str | None) -> Request:
    """What to build for a config.

    Raises ``NotBuilt`` for one that brings its own code.
    """
    if _has_auto_map(config.values):
        raise NotBuilt("it brings its own code, which is not run here; make a snapshot")
    return Request(_without_volatile(config.values), cls, task)


def _has_auto_map(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("auto_map")) or any(map(_has_auto_map, value.values()))
    return isinstance(value, list) and any(map(_has_auto_map, value))


def _without_volatile(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_volatile(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if key not in _VOLATILE
    }


def build(wanted: Request, seconds: float = SECONDS) -> ModuleTree:
    """The tree of a model as the installed transformers builds it, from the cache if it is there.

    Raises ``NotBuilt``.
    """
    version = installed()
    if version is None:
        raise NotBuilt(f"transformers and torch are not installed beside lora-lint ({INSTALL})")
    key = f"{wanted.digest}-{version}"
    if key not in _BUILT:
        try:
            _BUILT[key] = _read(cache.trees() / f"{key}.json") or _built(wanted, key, seconds)
        except NotBuilt as exc:
            _BUILT[key] = exc
    answer = _BUILT[key]
    if isinstance(answer, NotBuilt):
        raise NotBuilt(str(answer))
    return answer


# A run asks for the same model for each line of versions and each fix.
_BUILT: Final[dict[str, ModuleTree | NotBuilt]] = {}


def cached(wanted: Request) -> Iterator[ModuleTree]:
    """The trees of earlier builds, by whichever releases of transformers."""
    for path in sorted(cache.trees().glob(f"{wanted.digest}-*.json")):
        tree = _read(path)
        if tree is not None:
            yield tree


def _read(path: Path) -> ModuleTree | None:
    """A tree of the cache; None where there is none or it is damaged."""
    from lora_lint.models.config_file import UnreadableError, read_text

    try:
        tree = ModuleTree.from_json(read_text(path))
    except (OSError, ValueError, UnreadableError):
        return None
    return tree if tree.sized and tree.grade == "live" else None


def installed() -> str | None:
    """The transformers release in lora-lint's own environment, None without it or torch."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    try:
        return version("transformers") if find_spec("torch") is not None else None
    except PackageNotFoundError:
        return None


def other_release(tree: ModuleTree, transformers: str | None) -> str | None:
    """Why a built tree does not hold for the user's transformers release, None if it does."""
    from lora_lint.facts import version_key
    from lora_lint.models import catalogue
    from lora_lint.models.renamed import not_the_same

    built = tree.transformers
    if transformers is None or built is None:
        return None
    if version_key(built)[:2] == version_key(transformers)[:2]:
        return None
    known = catalogue.architecture(tree.model_type or "")
    older = min(version_key(built), version_key(transformers)) < (5,)
    # What is known of a class whose parts may be of any architecture holds for the usual ones.
    if known is None or tree.cls not in known.classes or (known.parts and older):
        return (
            f"transformers {built} built it; whether {transformers} has the same module names "
            "is not known"
        )
    for release in (transformers, built):
        reason = not_the_same(tree.model_type, tree.cls, release)
        if reason is not None:
            return reason
    return None


def with_dtype(tree: ModuleTree, config: ConfigFile) -> ModuleTree:
    """A built tree with the dtype and quantization of the published weights, which a request leaves
    out.
    """
    facts = dict(tree.facts)
    if config.dtype:
        facts["checkpoint_dtype"] = config.dtype
    if config.quantization:
        facts["checkpoint_quantization"] = config.quantization
    return replace(tree, facts=facts, dtype=config.dtype or "float32")


# The process ------------------------------------------------------------------------------------


def _built(wanted: Request, key: str, seconds: float) -> ModuleTree:
    from lora_lint.progress import saying

    with saying(f"building {wanted.what} on the meta device ..."):
        answer = _ask(wanted, seconds)
    if "reason" in answer:
        raise NotBuilt(answer["reason"])
    try:
        tree = ModuleTree.from_json(answer["tree"])
    except (KeyError, TypeError, ValueError) as exc:
        raise NotBuilt(f"the build gave no module tree ({exc})") from exc
    cache.write(cache.trees() / f"{key}.json", answer["tree"])
    return tree


def _ask(wanted: Request, seconds: float) -> dict[str, Any]:
    """What the process answers."""
    import os
    import subprocess
    import sys
    import tempfile

    code = _CODE.format(path=[entry for entry in sys.path if entry])
    text = json.dumps({**wanted._asdict(), "memory": MEMORY})
    with tempfile.TemporaryDirectory(prefix="lora-lint-", ignore_cleanup_errors=True) as empty:
        environment = {k: v for k, v in os.environ.items() if k not in _SECRETS}
        environment |= {**_ENVIRONMENT, "HF_HOME": empty, "HF_HUB_CACHE": empty}
        try:
            done = subprocess.run(
                [sys.executable, "-c", code],
                input=text.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=empty,
                env=environment,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotBuilt(f"it takes more than {seconds:g} s to build") from None
        except OSError as exc:
            raise NotBuilt(f"the build can't be started: {exc.strerror or exc}") from exc
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return {"reason": f"the build ended without an answer (status {done.returncode})"}
    return answer
