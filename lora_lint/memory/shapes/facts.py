"""What a module tree does not show of a family: the values of its configuration that matter here.

Defaults of transformers 5.23, models/*/configuration_*.py; a tree that was read from a live model
has the model's own (``ModuleTree.facts["config"]["dropouts"]``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from lora_lint.models.module_tree import ModuleTree


class Dropouts(NamedTuple):
    """Where a family's default configuration drops out: attention's scores, blocks' outputs, the
    feed-forward's inner values, embeddings.
    """

    attention: bool = False
    hidden: bool = False
    inner: bool = False
    embeddings: bool = False


_DROPOUTS: Final = {
    **dict.fromkeys(
        ("bert", "roberta", "xlm-roberta", "electra", "camembert", "distilbert", "ernie"),
        Dropouts(attention=True, hidden=True, embeddings=True),
    ),
    **dict.fromkeys(
        ("gpt2", "gpt_bigcode", "gpt-sw3"), Dropouts(attention=True, hidden=True, embeddings=True)
    ),
    **dict.fromkeys(("opt", "bart", "mbart", "marian"), Dropouts(hidden=True, embeddings=True)),
    "pegasus": Dropouts(hidden=True, embeddings=True),
    **dict.fromkeys(
        ("t5", "mt5", "umt5"), Dropouts(attention=True, hidden=True, inner=True, embeddings=True)
    ),
}
# Names of a configuration's probabilities by what they are for.
_NAMES: Final = {
    "attention": (
        "attention_dropout",
        "attn_pdrop",
        "attention_probs_dropout_prob",
        "dropout_rate",
    ),
    "hidden": ("resid_pdrop", "hidden_dropout", "hidden_dropout_prob", "dropout", "dropout_rate"),
    "inner": ("activation_dropout", "dropout_rate"),
    "embeddings": ("embd_pdrop", "hidden_dropout_prob", "dropout", "dropout_rate"),
}


def dropouts(tree: ModuleTree) -> Dropouts:
    """Where a model drops out while it is trained."""
    own = tree.facts.get("config", {}).get("dropouts")
    if not isinstance(own, dict):
        return _DROPOUTS.get(tree.model_type or "", Dropouts())
    return Dropouts(*(any(own.get(name) for name in names) for names in _NAMES.values()))


# The share of each head that is rotated, where it is not the whole.
ROTARY: Final = {
    "gpt_neox": 0.25,
    "gptj": 0.25,
    "phi": 0.5,
    "glm": 0.5,
    "glm4": 0.5,
    "glm4_moe": 0.5,
    "stablelm": 0.25,
    "persimmon": 0.5,
    "nemotron": 0.5,
}
# Layers whose blocks read the same stream although each has a norm of its own.
PARALLEL: Final = frozenset({"gpt_neox"})
# Norms after the sum of a block and its input.
POST_NORM: Final = frozenset({"bart", "marian"})
# Attention that a family takes whatever the settings say: soft-capped scores and sinks cannot go
# through scaled_dot_product_attention.
EAGER: Final = frozenset({"gemma2", "gpt_oss", "vaultgemma"})
CAPPED_SCORES: Final = frozenset({"gemma2", "vaultgemma"})
CAPPED_LOGITS: Final = frozenset({"gemma2", "vaultgemma"})
SCALED_LOGITS: Final = frozenset({"granite", "granitemoe", "cohere", "cohere2"})
# Eager attention that takes its softmax in the scores' own type.
NARROW_SOFTMAX: Final = frozenset(
    {"bert", "roberta", "xlm-roberta", "electra", "camembert", "distilbert", "t5", "mt5", "umt5"}
    | {"bart", "mbart", "marian", "pegasus", "whisper", "gptj", "falcon", "gpt2", "ernie"}
)
# Queries that are scaled before attention.
SCALED_QUERIES: Final = frozenset({"opt", "whisper"})
# Routers in fp32; experts' outputs weighed in fp32.
WIDE_ROUTER: Final = frozenset({"deepseek_v2", "deepseek_v3", "glm4_moe"})
CHOSEN_ROUTER: Final = frozenset({"gpt_oss", "granitemoe"})  # softmax of the chosen alone
WIDE_WEIGHTS: Final = frozenset({"mixtral", *WIDE_ROUTER})
SLIDING: Final = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "gpt_oss": 2}
# Windows of published models whose catalogued config does not tell them (Gemma 3 4b, 12b and 27b).
WINDOWS: Final = {"gemma3": 1024}
