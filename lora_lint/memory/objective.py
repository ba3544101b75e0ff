"""What a step holds that trains for something else than the next token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lora_lint.memory.profile import Profile

_NEXT_TOKEN: Final = frozenset({"sft", "pt"})
# The policy runs over the chosen and the rejected answers at once (trl 1.16.0
# trainer/dpo_trainer.py ``_compute_loss``, experimental/orpo and experimental/cpo
# ``concatenated_forward``; llamafactory 0.9.5 data/collator.py
# ``PairwiseDataCollatorWithPadding``).
_PAIRS: Final = frozenset({"dpo", "ipo", "orpo", "cpo", "simpo"})
# Over one answer; that to another prompt runs without gradients before (trl 1.16.0
# trainer/kto_trainer.py ``_compute_loss``).
_SINGLE: Final = frozenset({"kto"})
# The reference is the model without its adapter. Its pass has no gradients and comes after the
# policy's: what that keeps and the logits of both are less than what a loss of fp32 logits needs.
# Whether logits are whole at all depends on the release (trl since 1.15: they are not).
_ERROR: Final = 0.15


def for_objective(profile: Profile, objective: str | None) -> Profile:
    """A framework's profile where it trains for an objective; None: as for the next token.

    ``Profile.undescribed`` says why there is no peak: rewards, generation and teachers need memory
    of their own.
    """
    if objective is None or objective in _NEXT_TOKEN:
        return profile
    if objective in _PAIRS or objective in _SINGLE:
        return profile._replace(
            sequences=2 if objective in _PAIRS else 1,
            fused_loss=None,
            error=max(_ERROR, profile.error or 0),
        )
    return profile._replace(undescribed=f"what a step of {objective} holds is not described")
