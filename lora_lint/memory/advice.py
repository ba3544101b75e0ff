"""What a change would save, computed and not guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lora_lint.facts import newest_peft
from lora_lint.injection import inject
from lora_lint.memory.weights import optimizer, optimizer_bytes, read_trained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora_lint.injection.result import Injection
    from lora_lint.models.module_tree import ModuleTree


class State(NamedTuple):
    """Bytes that trained parameters cost: themselves, their gradients, the optimizer's states."""

    parameters: int
    bytes: int


class SavedShare(NamedTuple):
    """What modules_to_save costs beside the adapters; ``ratio`` is of trained parameters, and None
    where there are no adapters.
    """

    saved: State
    adapters: State
    ratio: float | None


def rank_saving(
    tree: ModuleTree,
    config: Mapping[str, Any],
    r: int,
    *,
    optim: str | None = None,
    injection: Injection | None = None,
    peft: str | None = None,
) -> int | None:
    """Bytes of state that another rank saves: adapters in fp32, gradients, optimizer states.

    Activations hardly depend on the rank. Negative for a higher rank; None where PEFT refuses one
    of the two configs or what it does is not known.
    """
    before = injection or inject(tree, config, peft=peft or newest_peft())
    after = inject(tree, {**config, "r": r}, peft=peft or newest_peft())
    old, new = (adapter_state(tree, each, optim=optim) for each in (before, after))
    return None if old is None or new is None else old.bytes - new.bytes


def adapter_state(
    tree: ModuleTree, injection: Injection, *, optim: str | None = None
) -> State | None:
    """What the adapters cost: fp32 parameters (PEFT's autocast_adapter_dtype), fp32 gradients, and
    the optimizer's states; None where it is not known.
    """
    share = _share(tree, injection, optim, saved_bytes=4)
    return share.adapters if share else None


def saved_modules_share(
    tree: ModuleTree,
    injection: Injection,
    *,
    optim: str | None = None,
    saved_bytes: int = 2,
) -> SavedShare | None:
    """What modules_to_save costs beside the adapters.

    ``saved_bytes`` per parameter of the copies, which have the base model's dtype (fp32 after
    prepare_model_for_kbit_training). None where it is not known.
    """
    return _share(tree, injection, optim, saved_bytes=saved_bytes)


def _share(
    tree: ModuleTree, injection: Injection, optim: str | None, *, saved_bytes: int
) -> SavedShare | None:
    if not tree.sized or injection.error or injection.undecided:
        return None
    kind = optimizer(optim)
    if kind is None:
        return None
    trained = read_trained(tree, injection)
    own, copies = trained.adapters, trained.saved
    adapters = State(
        own.parameters,
        4 * (2 * own.parameters + trained.frozen) + optimizer_bytes(kind, own, 4),
    )
    saved = State(
        copies.parameters,
        2 * saved_bytes * copies.parameters + optimizer_bytes(kind, copies, saved_bytes),
    )
    ratio = copies.parameters / own.parameters if own.parameters else None
    return SavedShare(saved, adapters, ratio)
