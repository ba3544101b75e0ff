"""Of which torchtune runs the memory is known: those of the LoRA recipe for one device as
``memory.torchtune`` describes it.

Read in torchtune 0.6.1: recipes/lora_finetune_single_device.py for the keys and what becomes of
them, recipes/configs for what files of each recipe say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lora_lint.memory.torchtune import CHUNKS, buffers, has_buffers

if TYPE_CHECKING:
    from lora_lint.checks.subject import RecipeSubject
    from lora_lint.documents.tree import Node
    from lora_lint.memory import Profile
    from lora_lint.models import ModuleTree

# What comments and names of files say of the recipe that runs them.
_SINGLE: Final = re.compile(r"single[ _-]device", re.IGNORECASE)
_SEVERAL: Final = re.compile(r"lora\w*_distributed|nproc_per_node", re.IGNORECASE)
# Keys that recipes for several devices alone read.
_DIVIDING: Final = ("custom_sharded_layers", "fsdp_cpu_offload", "tensor_parallel_dim")
_LOSSES: Final = "torchtune.modules.loss."
_CHUNKED: Final = f"{_LOSSES}CEWithChunkedOutputLoss"
# torchtune's since 0.6.1, of which no release has it: what else its step does now is not traced.
_LINEAR: Final = f"{_LOSSES}LinearCrossEntropyLoss"
_LINEAR_ERROR: Final = 0.10
_COLLATOR: Final = "torchtune.data.padded_collate_sft"
# Keys that change what is kept where they are not off, and how.
_SWITCHES: Final = {
    ("compile",): "what torch.compile keeps is not known",
    ("enable_activation_offloading",): "what stays on the GPU beside offloaded activations is not"
    " known",
    ("model", "use_dora"): "how torchtune's DoRA uses memory is not known",
}


def undescribed(subject: RecipeSubject) -> str | None:
    """Why the memory of a torchtune run is not known, None if it is."""
    root = subject.document.parts[subject.recipe.part].node
    if root.style == "command":
        return "what torchtune runs stands in the file that --config names"
    if subject.recipe.objective != "sft":
        return f"what torchtune's {subject.recipe.objective} recipes hold is not described"
    builder = subject.recipe.private["builder"]
    if not has_buffers(builder):
        return f"what torchtune's {builder} builds is not described"
    said = f"{subject.document.path}\n{subject.document.text}"
    if _SEVERAL.search(said) or any(root.get(key) is not None for key in _DIVIDING):
        return "how torchtune's FSDP uses memory is not known"
    if _SINGLE.search(said) is None:
        return "whether torchtune's recipe for a single device runs this file it does not say"
    for path, reason in _SWITCHES.items():
        if _value(root, *path, absent=False) is not False:
            return reason
    if subject.value("packing") is not False:
        return "what flex attention of packed samples keeps is not known"
    if subject.value("dtype") not in ("bfloat16", "float32"):
        return "torchtune's recipe for a single device takes bf16 and fp32"
    if _value(root, "device", absent="cuda") not in ("cuda", "cuda:0"):
        return "the recipe does not run on a GPU of CUDA"
    if _value(root, "collate_fn", absent=_COLLATOR) != _COLLATOR:
        return "what the collator makes of a batch is not known"
    loss = _value(root, "loss", "_component_", absent=None)
    if loss not in (_CHUNKED, _LINEAR):
        return f"what the loss ({loss}) keeps is not described"
    if _value(root, "loss", "num_output_chunks", absent=CHUNKS) != CHUNKS:
        return f"what the loss keeps is described for {CHUNKS} chunks alone"
    return None


def with_file(profile: Profile, subject: RecipeSubject, tree: ModuleTree) -> Profile:
    """torchtune's profile for the builder and the loss that a file names."""
    root = subject.document.parts[subject.recipe.part].node
    profile = profile._replace(buffers=buffers(subject.recipe.private["builder"], tree))
    if _value(root, "loss", "_component_", absent=None) == _LINEAR:
        profile = profile._replace(fused_loss=True, error=_LINEAR_ERROR)
    return profile


def _value(root: Node, *path: str, absent: Any) -> Any:
    """The value at a path; ``absent`` where there is none."""
    node = root.at(path)
    return absent if node is None else node.plain()
