"""Traces a run in a process of its own: the way to memory where the closed form does not reach.

The process imports torch, transformers and peft, this one does not; see ``tracer``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS: Final = 180


class NotTraced(Exception):  # noqa: N818 - an answer, not a fault
    """There is no trace; the message says why, for people."""


class Trace(NamedTuple):
    """What a training step needs, in bytes: see ``tracer.step.Traced``."""

    weights: int
    trainable: int
    states: int
    phases: Mapping[str, tuple[int, str]]
    parameters: int
    kernels: tuple[str, ...]
    layers: tuple[int, ...]
    site: str
    peak: int


def trace(request: Mapping[str, Any], seconds: float = SECONDS) -> Trace:
    """Trace a run; ``request`` has the fields of ``tracer.step.Request``.

    Raises ``NotTraced``.
    """
    from importlib.util import find_spec

    if not all(map(find_spec, ("torch", "transformers", "peft"))):
        raise NotTraced("torch, transformers and peft are needed: pip install 'lora-lint[live]'")
    command = [sys.executable, "-m", "lora_lint.memory.tracer"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotTraced(f"it took longer than {seconds:.0f} s") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise NotTraced(f"the process ended with status {done.returncode}") from None
    if "error" in answer:
        raise NotTraced(answer["error"])
    return Trace(**answer)
