"""Counts the bytes of the storages that operations make, while they live."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable

# CUDA's caching allocator rounds every request up to this (c10/cuda/CUDACachingAllocator.h
# ``kMinBlockSize``).
BLOCK = 512


def rounded(size: int) -> int:
    """The bytes that the allocator gives for a request."""
    return -(-size // BLOCK) * BLOCK


class Storages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage on a device from the operation that makes it until it is freed.

    ``live`` are bytes beside the tensors known at the start, ``peaks`` the most of them in each
    phase (set by the caller), with the operation that was running then.
    """

    def __init__(self, device: str, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        # Held, since the address of one that is freed (bitsandbytes casts biases) is used again.
        storages = [tensor.untyped_storage() for tensor in known]
        self.known = {storage._cdata: storage for storage in storages}  # noqa: SLF001
        self.sizes: dict[int, int] = {}
        self.live = 0
        self.phase = ""
        self.peaks: dict[str, tuple[int, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note the storages it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type == self.device:
                self._meet(leaf.untyped_storage(), func)
        return result

    def _meet(self, storage: torch.UntypedStorage, func: Any) -> None:
        key, size = storage._cdata, rounded(storage.nbytes())  # noqa: SLF001
        if key in self.known or key in self.sizes or not size:
            return
        self.sizes[key] = size
        self.live += size
        weakref.finalize(storage, self._leave, key)
        if self.live > self.peaks.get(self.phase, (0, ""))[0]:
            self.peaks[self.phase] = self.live, str(func)

    def _leave(self, key: int) -> None:
        self.live -= self.sizes.pop(key)
