"""How to write, as the user says it: checked values, and the stepper they name. Knows no canvas.

A rule is a name of the table below, or `package.module:Class` for one of the user's own, with its options, if it has
any, as `{kind: name, option: value}`. A rank (a function of `Asked`) says which positions come first and is put into
the usual steppers; a stepper is a dataclass of its own, whose fields `proposal`, `quota` and `timeless` are filled in
from the settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from ..components import Spec, build, maker_of
from ..denoiser import Denoiser
from ..errors import UserError
from ..models.attention import Places, block_size
from .context import CACHES, Policy
from .propose import Proposal
from .select import BLIND, RANKS, Above, Evenly, Quota, Rank
from .steppers import Ancestral, Commit, InOrder, Stepper

FORWARD = "left_to_right"
RULES: dict[str, Rank | type[Stepper]] = {**RANKS, "ancestral": Ancestral}


@dataclass(frozen=True)
class Decoding:
    """steps: of a row, shared out over its blocks; default one a token. block: tokens written together before the next
    begin, default all. rule: which positions first, default the model's own. threshold: write every token at least
    this sure, instead of an even share a step. eos_id ends a text written after a prompt; suppress_eos: never write
    it, default only inside gaps. cache: what the network is not fed again, one of `context.CACHES`; default exact for
    a model that never looks ahead, none for others, where all but none are approximate."""

    steps: int | None = None
    block: int | None = None
    rule: str | Spec | None = None
    threshold: float | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    eos_id: int | None = None
    suppress_eos: bool | None = None
    cache: str | Spec | None = None

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
        if self.rule is not None:
            self._check_rule()
        if self.cache is not None:
            self._policy(size=1)
        if self.suppress_eos and self.eos_id is None:
            raise UserError("suppress_eos: there is no end-of-text token to suppress; set eos_id too")

    @property
    def kind(self) -> str | None:
        """The rule's name, without its options."""
        return self.rule["kind"] if isinstance(self.rule, Mapping) else self.rule

    def stepper(self, denoiser: Denoiser) -> Stepper:
        """The settings as a stepper; `for_model` must have chosen the rule."""
        proposal = Proposal(self.temperature, self.top_p, self.top_k)
        quota: Quota = Evenly() if self.threshold is None else Above(self.threshold)
        found = self._rule(proposal=proposal, quota=quota, timeless=denoiser.network.time is None)
        if isinstance(found, Stepper):
            return found
        if found in BLIND.values() and self.threshold is None:
            return InOrder(found, quota, proposal)
        return Commit(found, quota, proposal)

    def _rule(self, **given: Any) -> Rank | Stepper:
        assert self.rule is not None, "for_model chooses the rule"
        spec = self.rule if isinstance(self.rule, Mapping) else {"kind": self.rule}
        made: Rank | Stepper = build(RULES, spec, "rule", given=given)
        return made

    def _check_rule(self) -> None:
        """Names and options now, not after the model is loaded."""
        self._rule(proposal=Proposal(), quota=Evenly(), timeless=True)
        maker = maker_of(RULES, self.kind, "rule", imports=True, functions=True)
        if self.threshold is not None and is_dataclass(maker) and "quota" not in {f.name for f in fields(maker)}:
            raise UserError(f"threshold: the {self.kind} rule says itself how many to write; drop one of the two")

    def for_model(self, denoiser: Denoiser, most_open: int) -> Decoding:
        """With the model's own rule where none is set; UserError where the model cannot follow the settings.

        most_open: open positions of the row that has the most.
        """
        chosen = replace(
            self,
            rule=self.rule or default_settings(denoiser).rule,
            block=self._block(denoiser),
            cache=self.cache or ("none" if block_size(denoiser.rule) is None else "exact"),
        )
        chosen.policy(denoiser)
        if one_sided(denoiser):
            chosen._only_forward(most_open)
        if self.eos_id is not None and not 0 <= self.eos_id < denoiser.vocab:
            raise UserError(f"eos_id={self.eos_id} is not in the model's vocabulary of {denoiser.vocab}")
        return chosen

    def policy(self, denoiser: Denoiser) -> Policy:
        """What a pass is fed; `for_model` must have chosen the cache."""
        return self._policy(block_size(denoiser.rule))

    def _policy(self, size: int | None) -> Policy:
        assert self.cache is not None, "for_model chooses the cache"
        spec = self.cache if isinstance(self.cache, Mapping) else {"kind": self.cache}
        made: Policy = build(CACHES, spec, "cache", given={"size": size})
        return made

    def _block(self, denoiser: Denoiser) -> int | None:
        """A model that sees its text in blocks writes it in these."""
        size = block_size(denoiser.rule)
        if size is not None and self.block is not None and self.block % size:
            raise UserError(f"block={self.block}: this model sees its text in blocks of {size}; use a multiple of it")
        return self.block or size

    def _only_forward(self, most_open: int) -> None:
        if self.kind != FORWARD:
            raise UserError(f"rule={self.rule!r}: an autoregressive model writes {FORWARD} only; leave rule out")
        if self.threshold is not None:
            raise UserError("threshold: an autoregressive model writes one token a step; leave threshold out")
        if self.steps is not None and self.steps < most_open:
            raise UserError(
                f"steps={self.steps}: an autoregressive model needs a step a token, {most_open} here; leave steps out"
            )


def one_sided(denoiser: Denoiser) -> bool:
    """Whether a position sees only what stands before it: the rule itself says, of two neighbours."""
    here, ahead = (Places(torch.tensor([[i]])) for i in (0, 1))
    seen = denoiser.rule(here, ahead)
    return seen is not None and not bool(seen.any())


def default_settings(denoiser: Denoiser) -> Decoding:
    """What suits a model when nobody says anything: the surest first, or from left to right if it reads that way."""
    return Decoding(rule=FORWARD if one_sided(denoiser) else "confidence")
