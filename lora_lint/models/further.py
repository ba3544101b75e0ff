"""Where a model's modules come from when nothing on this disk gives sizes: its config.json on the
hub, or a build with transformers, each from lora-lint's cache if it was had before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lora_lint.models import cache, catalogue
from lora_lint.models.resolve import Resolution, Unresolved

if TYPE_CHECKING:
    from lora_lint.models.config_file import ConfigFile
    from lora_lint.models.module_tree import ModuleTree
    from lora_lint.models.resolve import _Search


def of_the_hub(
    search: _Search, found: Resolution | Unresolved, name: str, revision: str | None
) -> Resolution | Unresolved:
    """What the model's own config.json leads to, or what was found without it."""
    if search.effort.live != "always" and isinstance(found, Unresolved) and _in_catalogue(name):
        return found  # its modules are known: not for this task, or not for this release
    folder = cache.fetched(name, revision)
    if search.effort.online:
        from lora_lint.models import online

        try:
            folder = online.fetch(name, revision)
        except online.NotFetched as exc:
            if folder is None:
                return _noted(found, str(exc))
    if folder is None:
        return _noted(found, "--online asks the hub")
    better = search.by_path(folder, name, f"from {cache.host()}")
    return found if isinstance(better, Unresolved) and isinstance(found, Resolution) else better


def of_a_build(
    search: _Search, found: Resolution | Unresolved, config: ConfigFile, name: str, where: str
) -> Resolution | Unresolved:
    """What transformers builds from a config.json, or what was found without it."""
    if config.model_type is None or config.remote_code:
        return found
    if search.effort.live == "no" and not cache.trees().is_dir():
        return _noted(found, _ASK) if _may_help(found, config) else found
    better = built(search, config, name, where)
    if isinstance(better, Resolution):
        return better
    note = better.reason.removeprefix(f"{name}: ")
    return found if note == _ASK and not _may_help(found, config) else _noted(found, note)


_ASK: Final = "--live builds it"


def _may_help(found: Resolution | Unresolved, config: ConfigFile) -> bool:
    """Whether a build may say more than the templates, which have every class of one release."""
    known = catalogue.architecture(config.model_type or "")
    return isinstance(found, Resolution) or known is None or bool(known.parts)


def built(search: _Search, config: ConfigFile, name: str, where: str) -> Resolution | Unresolved:
    """The tree that transformers builds from a config.json, now or earlier."""
    from lora_lint.models import live

    wanted, effort = search.wanted, search.effort
    try:
        request = live.request(config, wanted.cls, wanted.task)
        differs = None
        afresh = effort.live == "always" and live.installed() is not None
        for tree in () if afresh else live.cached(request):
            differs = live.other_release(tree, wanted.transformers)
            if differs is None:
                return _resolution(tree, config, name, where)
        if effort.live == "no":
            return Unresolved(f"{name}: {differs or _ASK}", name)
        tree = live.build(request, effort.seconds)
    except live.NotBuilt as exc:
        return Unresolved(f"{name}: {exc}", name, config.remote_code)
    differs = live.other_release(tree, wanted.transformers)
    if differs is not None:
        return Unresolved(f"{name}: {differs}", name, config.remote_code)
    return _resolution(tree, config, name, where)


def _resolution(tree: ModuleTree, config: ConfigFile, name: str, where: str) -> Resolution:
    from lora_lint.models.live import with_dtype

    source = f"config.json {where}, built with transformers {tree.transformers}"
    return Resolution(with_dtype(tree, config), name, source, config.remote_code)


def _in_catalogue(name: str) -> bool:
    from lora_lint.models.names import find

    known = find(name)
    if known is None:
        return False
    model_type = known.model_type or catalogue.model_type_of(known.cls or "") or ""
    return known.entry is not None or catalogue.architecture(model_type) is not None


def _noted(found: Resolution | Unresolved, note: str) -> Resolution | Unresolved:
    """What was found, with a note on why it is not more."""
    if isinstance(found, Unresolved) and note in found.reason:
        return found
    if isinstance(found, Resolution):
        return found._replace(source=f"{found.source} ({note})")
    return found._replace(reason=f"{found.reason} ({note})")
