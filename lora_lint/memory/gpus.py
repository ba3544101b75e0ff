"""GPUs by name or size: how much memory a process can really have there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from lora_lint.facts import DATA

GIB: Final = 2**30
MIB: Final = 2**20
# The smallest share of its nominal size that any product in data/gpus.json reports (T4 with ECC:
# 14.56 of 16 GiB). Of a bare size no more is certain.
LEAST_SHARE: Final = 0.91

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(gib|gb|g|mib|mb)", re.IGNORECASE)
# Words of a product's full name that do not tell products apart.
_NOISE = re.compile(
    r"nvidia|geforce|tesla|amd|instinct|gpu|pcie|hbm\d?e?|sxm\d?|generation|max-q|server|workstation|edition"
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU, ``count`` of them.

    ``nominal_bytes`` is the size it is sold with; no card has more, so a claim that cannot be
    disputed compares with this. ``usable_bytes`` is the most that CUDA or ROCm reports as its
    memory and ``least_bytes`` the least, by driver and error correction: what needs more than the
    first runs out, what needs less than the second can fit. A bare size has ``usable_bytes`` equal
    to its nominal size, since nothing smaller is certain to be all there is. ``capability`` is what
    torch.cuda.get_device_capability() gives: CUDA's compute capability, or the version of an AMD
    GPU's gfx target, which is 9.0 (gfx90a) or more for the products known here, all of which
    compute in bfloat16; it and ``architecture`` are None for a bare size.
    """

    name: str
    nominal_bytes: int
    usable_bytes: int
    least_bytes: int
    count: int = 1
    architecture: str | None = None
    capability: tuple[int, int] | None = None
    source: str | None = None

    @property
    def has_bf16(self) -> bool | None:
        """Whether it computes in bfloat16 (capability 8.0, Ampere); None for a bare size."""
        return None if self.capability is None else self.capability >= (8, 0)

    @property
    def has_flash_attention(self) -> bool | None:
        """Whether FlashAttention 2 runs on it (capability 8.0, or AMD's MI200 and MI300 series:
        its README); None for a bare size.
        """
        return self.has_bf16

    def to_dict(self) -> dict[str, object]:
        """The GPU as in the JSON of ``lora-lint show``."""
        return {
            "name": self.name,
            "nominal_bytes": self.nominal_bytes,
            "usable_bytes": self.usable_bytes,
            "count": self.count,
        }


def parse_gpu(text: str) -> Gpu:
    """The GPU of ``NAME|SIZE[:COUNT]``: ``rtx4090``, ``RTX 4090``, ``a100-80gb:8``, ``24GB``.

    A size is one card's; GB and GiB both mean 2**30 bytes, as on the box.
    Raises ``ValueError`` for an unknown name, one that stands for several sizes, or a bad count.
    """
    name, count = _split_count(text.strip())
    size = _SIZE.fullmatch(name)
    if size:
        unit = GIB if size[2].lower().startswith("g") else MIB
        nominal = int(float(size[1]) * unit)
        if not nominal:
            msg = f"a GPU of no memory: {text!r}"
            raise ValueError(msg)
        return Gpu(name, nominal, nominal, int(nominal * LEAST_SHARE), count)
    return _product(name, count)


def _split_count(text: str) -> tuple[str, int]:
    name, colon, number = text.rpartition(":")
    if not colon:
        return text, 1
    if not number.strip().isdecimal() or int(number) < 1:
        msg = f"the number of GPUs after the colon must be 1 or more: {text!r}"
        raise ValueError(msg)
    return name.strip(), int(number)


def _product(name: str, count: int) -> Gpu:
    facts = gpu_facts()
    key = _key(name)
    if key in facts["several"]:
        choices = " or ".join(facts["several"][key])
        msg = f"{name!r} comes in several sizes: say {choices}"
        raise ValueError(msg)
    product = facts["names"].get(key)
    if product is None:
        msg = f"unknown GPU {name!r}{_hint(key)}; a size such as 24GB works for any"
        raise ValueError(msg)
    data = facts["gpus"][product]
    nominal = int(data["nominal_gib"] * GIB)
    seen = data["total_memory_mib"]
    major, _, minor = data["capability"].partition(".")
    return Gpu(
        name=data["name"],
        nominal_bytes=nominal,
        usable_bytes=seen[1] * MIB if seen else nominal,
        least_bytes=seen[0] * MIB if seen else int(nominal * LEAST_SHARE),
        count=count,
        architecture=data["architecture"],
        capability=(int(major), int(minor)),
        source=data["source"],
    )


@lru_cache(maxsize=1)
def gpu_facts() -> dict[str, Any]:
    """The products of data/gpus.json, with ``names``: every spelling's key to its product."""
    facts: dict[str, Any] = json.loads((DATA / "gpus.json").read_text(encoding="utf-8"))
    facts["several"] = {_key(name): choices for name, choices in facts["several"].items()}
    facts["names"] = {
        _key(spelling): product
        for product, data in facts["gpus"].items()
        for spelling in (product, data["name"], *data["aliases"])
    }
    return facts


def _key(name: str) -> str:
    """A name without case, spaces, hyphens and the words that all products share."""
    return re.sub(r"[^a-z0-9]", "", _NOISE.sub("", name.lower()))


def _hint(key: str) -> str:
    if "laptop" in key:
        return " (a laptop's GPU has another size than the desktop card of its name)"
    from difflib import get_close_matches

    facts = gpu_facts()
    close = get_close_matches(key, [*facts["names"], *facts["several"]], n=1, cutoff=0.6)
    if not close:
        return ""
    choices = facts["several"].get(close[0]) or [facts["names"][close[0]]]
    return f" (did you mean {' or '.join(choices)}?)"
