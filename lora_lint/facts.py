"""Facts about PEFT and transformers by version, read from ``lora_lint/data``."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

DATA: Final = Path(__file__).parent / "data"
# The first release whose behaviour ``inject`` reproduces.
EXACT_SINCE: Final = "0.4.0"
# Names with a meaning of their own (peft 0.21.2 utils/constants.py).
EMBEDDING_LAYER_NAMES: Final = ("embed_tokens", "lm_head")
SEQ_CLS_HEAD_NAMES: Final = ("score", "classifier")
ALL_LINEAR: Final = "all-linear"
# The first transformers without ``_prepare_encoder_decoder_kwargs_for_generation``.
ENCODES_BEFORE: Final = (5, 18)


@lru_cache(maxsize=1)
def peft_facts() -> dict[str, Any]:
    """What each PEFT release knows; made by tools/peft_facts.py."""
    facts: dict[str, Any] = json.loads((DATA / "peft.json").read_text(encoding="utf-8"))
    return facts


@lru_cache(maxsize=1)
def transformers_facts() -> dict[str, Any]:
    """What transformers releases build; made by tools/catalogue.py."""
    path = DATA / "transformers.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


@lru_cache(maxsize=1024)
def version_key(version: str) -> tuple[int, ...]:
    """A version as numbers, for comparing; what follows them (``.dev0``, ``rc1``) is left out."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def newest_peft() -> str:
    """The newest release the facts know."""
    versions: list[str] = peft_facts()["versions"]
    return versions[-1]


def known_releases() -> dict[str, list[str]]:
    """The known releases of PEFT and transformers, oldest first."""
    return {
        "peft": peft_facts()["versions"],
        "transformers": compatibility_facts()["transformers"],
    }


@lru_cache(maxsize=1)
def compatibility_facts() -> dict[str, Any]:
    """Which releases of transformers each PEFT release imports with; made by
    tools/compatible_versions.py.
    """
    path = DATA / "compatibility.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def compatible_transformers(peft: str) -> tuple[str, str]:
    """The oldest and the newest transformers that a PEFT release imports with, of those tried.

    A release that was not tried counts as the one before it.
    """
    tried = compatibility_facts()["peft"]
    key = version_key(peft)
    older = [release for release in tried if version_key(release) <= key]
    oldest, newest = tried[older[-1] if older else next(iter(tried))]
    return oldest, newest


def known_release(version: str) -> str:
    """The known release that a version of PEFT is, or that comes before it."""
    releases: list[str] = peft_facts()["versions"]
    key = version_key(version)
    same = [release for release in releases if _padded(release) == _padded(version)]
    older = [release for release in releases if version_key(release) <= key]
    return version if version in releases else [releases[0], *older, *same][-1]


def _padded(version: str) -> tuple[int, ...]:
    return (*version_key(version), 0, 0, 0)[: max(3, len(version_key(version)))]


def unpredicted(version: str) -> str | None:
    """Why ``inject`` does not know what a PEFT version does, None if it does."""
    if _padded(version) < _padded(EXACT_SINCE):
        return f"peft {version} is older than {EXACT_SINCE}, the first that is predicted"
    final = re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", version)
    if not final or _padded(known_release(version)) != _padded(version):
        return f"peft {version} is not a release that this version of lora-lint knows"
    return None


def at_version(changes: list[dict[str, Any]], version: str) -> Any:
    """The value that holds at a version, of a list of changes; None before the first."""
    value = None
    for change in changes:
        if version_key(change["since"]) <= version_key(version):
            value = change["value"]
    return value


@lru_cache(maxsize=64)
def known_fields(version: str) -> frozenset[str]:
    """The keywords that LoraConfig takes at a version."""
    return frozenset(
        name
        for name, life in peft_facts()["fields"].items()
        if version_key(life["since"]) <= version_key(version)
        and not (life["removed"] and version_key(life["removed"]) <= version_key(version))
    )


def field_defaults(version: str) -> dict[str, Any]:
    """The defaults of LoraConfig's fields at a version."""
    given = _defaults(version)
    return {name: {} if isinstance(value, dict) else value for name, value in given.items()}


@lru_cache(maxsize=64)
def _defaults(version: str) -> dict[str, Any]:
    fields = peft_facts()["fields"]
    names = known_fields(version)
    return {name: at_version(fields[name]["changes"], version)["default"] for name in names}


def task_types(version: str) -> list[str]:
    """The values of TaskType at a version."""
    values: list[str] = at_version(peft_facts()["task_types"], version)
    return values


def init_methods(version: str) -> frozenset[str]:
    """The names that init_lora_weights may have at a version."""
    values: list[str] = at_version(peft_facts()["init_lora_weights"], version)
    return frozenset(values or ())


# Initialisations that PEFT compares without regard to case (tuners/lora/layer.py).
_ANY_CASE: Final = ("gaussian", "olora", "mica")


def init_word(value: object) -> str:
    """The initialisation that a value of init_lora_weights means: ``pissa_niter_4`` is pissa."""
    text = str(value)
    if re.fullmatch(r"pissa_niter_\d+", text):
        return "pissa"
    return text.lower() if text.lower() in _ANY_CASE else text


def default_targets(model_type: str | None, version: str) -> list[str] | str | None:
    """PEFT's default target modules for a model type at a version, None where it has none."""
    life = peft_facts()["default_targets"].get(model_type)
    if life is None or (life["removed"] and version_key(life["removed"]) <= version_key(version)):
        return None
    value: list[str] | str | None = at_version(life["changes"], version)
    return value


def expert_tables(
    model_type: str | None, peft: str, transformers: str | None
) -> tuple[dict[str, str], dict[str, list[str]]] | None:
    """How PEFT rewrites a mixture's targets for transformers 5: renamed and fused names, or None.

    Source: peft 0.21.2 utils/transformers_weight_conversion.py and transformers'
    conversion_mapping.
    """
    if transformers is None or version_key(transformers) < (5,):
        return None
    tables = at_version(peft_facts()["experts"], peft)
    kind = transformers_facts()["expert_kinds"].get(model_type)
    if not tables or kind is None:
        return None
    return tables["targets"][kind], tables["fused"][kind]
