"""How to write, as the user says it: checked values, and the stepper they name. Knows no canvas."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .. import denoiser as networks
from ..denoiser import Denoiser
from ..errors import UserError, nearest
from .propose import Proposal
from .select import BLIND, RULES, Above, Evenly, Quota
from .steppers import Ancestral, Commit, InOrder, Stepper

FORWARD = "left_to_right"
ANCESTRAL = "ancestral"
NAMES = (*RULES, ANCESTRAL)


@dataclass(frozen=True)
class Decoding:
    """steps: of a row, shared out over its blocks; default one a token. block: tokens written together before the next
    begin, default all. rule: one of NAMES, default the model's own. threshold: write every token at least this sure,
    instead of an even share a step. eos_id ends a text written after a prompt; suppress_eos: never write it, default
    only inside gaps."""

    steps: int | None = None
    block: int | None = None
    rule: str | None = None
    threshold: float | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    eos_id: int | None = None
    suppress_eos: bool | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "block", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} is not positive; use 1 or more, or leave it out")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature={self.temperature} is not a number from 0 up; 0 is greedy, 1 samples")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} is outside (0, 1]; 1 keeps every token")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(f"threshold={self.threshold} is outside (0, 1); 0.9 is usual")
        if self.rule is not None and self.rule not in NAMES:
            raise UserError(f"rule={self.rule!r} is unknown; {nearest(self.rule, NAMES)}")
        if self.rule == ANCESTRAL and self.threshold is not None:
            raise UserError("threshold: the ancestral rule follows the noise, not a threshold; drop one of the two")
        if self.suppress_eos and self.eos_id is None:
            raise UserError("suppress_eos: there is no end-of-text token to suppress; set eos_id too")

    def stepper(self, denoiser: Denoiser) -> Stepper:
        """The settings as a stepper; `for_model` must have chosen the rule."""
        proposal = Proposal(self.temperature, self.top_p, self.top_k)
        if self.rule == ANCESTRAL:
            return Ancestral(proposal, timeless=denoiser.network.time is None)
        assert self.rule is not None, "for_model chooses the rule"
        if self.rule in BLIND and self.threshold is None:
            return InOrder(BLIND[self.rule], Evenly(), proposal)
        quota: Quota = Evenly() if self.threshold is None else Above(self.threshold)
        return Commit(RULES[self.rule], quota, proposal)

    def for_model(self, denoiser: Denoiser, most_open: int) -> Decoding:
        """With the model's own rule where none is set; UserError where the model cannot follow the settings.

        most_open: open positions of the row that has the most.
        """
        chosen = replace(self, rule=self.rule or default_settings(denoiser).rule)
        if autoregressive(denoiser):
            chosen._only_forward(most_open)
        if self.eos_id is not None and not 0 <= self.eos_id < denoiser.vocab:
            raise UserError(f"eos_id={self.eos_id} is not in the model's vocabulary of {denoiser.vocab}")
        return chosen

    def _only_forward(self, most_open: int) -> None:
        if self.rule != FORWARD:
            raise UserError(f"rule={self.rule!r}: an autoregressive model writes {FORWARD} only; leave rule out")
        if self.threshold is not None:
            raise UserError("threshold: an autoregressive model writes one token a step; leave threshold out")
        if self.steps is not None and self.steps < most_open:
            raise UserError(
                f"steps={self.steps}: an autoregressive model needs a step a token, {most_open} here; leave steps out"
            )


def autoregressive(denoiser: Denoiser) -> bool:
    return isinstance(denoiser.head, networks.NextToken)


def default_settings(denoiser: Denoiser) -> Decoding:
    """What suits a model when the user says nothing: the surest first, or from left to right if it reads that way."""
    return Decoding(rule=FORWARD if autoregressive(denoiser) else "confidence")
