"""How to write, as the user says it: checked values, and the stepper they name. Knows no canvas.

A rule is a name of the table below, or `package.module:Class` for one of the user's own, with its options, if it has
any, as `{kind: name, option: value}`. A rank (a function of `Asked`) says which positions come first and is put into
the usual steppers; a stepper is a dataclass of its own, whose fields `proposal`, `quota` and `timeless` are filled in
from the settings. Quotas, revisers and caches are named in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch

from ..components import Spec, build, maker_of
from ..denoiser import Denoiser
from ..errors import UserError, nearest
from ..models.attention import Places, block_size
from .ancestral import Ancestral, Capped, FirstHitting, Looped, Psi, Rescaled, Unsure
from .canvas import Row
from .constrain.constrained import kept
from .constrain.constraint import Constraint
from .constrain.keeper import Keeper
from .constrain.tokens import Vocabulary
from .context import CACHES, Policy
from .gaussian import DDIM, Gaussian
from .growth import GROWTHS, Growth, check_growth, check_model
from .guidance import UNGUIDED, Guidance, Tokens
from .guide import Guide
from .posterior import GUIDANCES
from .presets import PRESETS
from .propose import Proposal
from .quotas import QUOTAS, Quota
from .renoise import EntropyRenoise
from .revise import REVISERS, Reviser, Revising
from .scores import Analytic, Euler
from .select import BLIND, RANKS, Rank
from .steppers import Commit, InOrder, Stepper

FORWARD = "left_to_right"
SPECULATING = "self_speculation"  # writes what left to right would, by drafting and checking: `speculate`
RULES: dict[str, Rank | type[Rank] | type[Stepper]] = {
    **RANKS,
    "ancestral": Ancestral,
    "first_hitting": FirstHitting,
    "psi": Psi,
    "remdm_cap": Capped,
    "remdm_rescale": Rescaled,
    "remdm_conf": Unsure,
    "remdm_loop": Looped,
    "entropy_renoise": EntropyRenoise,
    "euler": Euler,
    "analytic": Analytic,
    "ddpm": Gaussian,
    "ddim": DDIM,
}


@dataclass(frozen=True)
class Decoding:
    """The five parts of a way of writing, free to combine.

    Layout. block: tokens written together before the next begin, default all. steps: of a row, shared out over its
    blocks; default one a token. block_steps: of each block, instead.
    Proposal. temperature (0: the best token), top_p, top_k. ban: tokens never written.
    Selector. rule: which positions first, default the model's own. quota: how many, default an even share a step;
    threshold: every token at least this sure; factor: Fast-dLLM's; late: tokens written last of all.
    Reviser. revise: what may be changed or taken back before a block is final; default nothing.
    End. eos_id ends a text written after a prompt; suppress_eos: never write it, default only inside gaps. grow: how a
    text that is not as long as it may be comes to be longer, one of `growth.GROWTHS`; default: it is as long at once.
    Language. regex (as `re.fullmatch` reads it) or json_schema: every text is of it, for certain; matches: "new", each
    run of what is written by itself, or "whole", the given text too. vocabulary: how the tokens are spelled.

    cache: what the network is not fed again, one of `context.CACHES`; default exact for a model that never looks ahead,
    none for others, where all but none are approximate. guidance: how much more than it does by itself the given text
    counts (classifier-free; twice the work); a number, or one of `posterior.GUIDANCES` and its scale. guide: a
    classifier that pulls at the vectors of a continuous model.
    """

    steps: int | None = None
    block: int | None = None
    block_steps: int | None = None
    rule: str | Spec | None = None
    quota: str | Spec | None = None
    threshold: float | None = None
    factor: float | None = None
    late: Sequence[int] = ()
    revise: str | Spec | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    ban: Sequence[int] = ()
    eos_id: int | None = None
    suppress_eos: bool | None = None
    grow: str | Spec | None = None
    cache: str | Spec | None = None
    guidance: float | Spec = 0.0
    guide: Guide | None = None
    regex: str | None = None
    json_schema: str | Mapping[str, Any] | bool | None = None
    matches: Literal["new", "whole"] = "new"
    vocabulary: Vocabulary | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("steps", "block", "block_steps", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} is not positive; use 1 or more, or leave it out")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature={self.temperature} is not a number from 0 up; 0 is greedy, 1 samples")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} is outside (0, 1]; 1 keeps every token")
        if self.steps is not None and self.block_steps is not None:
            raise UserError(f"steps={self.steps}, block_steps={self.block_steps}: of a row or of each block; drop one")
        if self.threshold is not None and self.factor is not None:
            raise UserError(f"threshold={self.threshold}, factor={self.factor}: two rules of how many; drop one")
        self._quota()
        self._check_guidance(self.guiding)
        self._check_language(self._reviser())
        if self.rule is not None:
            self._check_rule()
        if self.cache is not None:
            self._policy(size=1)
        if self.suppress_eos and self.eos_id is None:
            raise UserError("suppress_eos: there is no end-of-text token to suppress; set eos_id too")
        if self.growth is not None:
            check_growth(self.growth, self)

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> Decoding:
        """A published way of writing, with what is said on top."""
        return cls().saying({"preset": name, **overrides})

    def saying(self, said: Mapping[str, Any]) -> Decoding:
        """These settings with what is said on top; `preset` names a published way of writing to go in between."""
        own = {name: value for name, value in said.items() if name != "preset"}
        name = said.get("preset")
        if name is not None and name not in PRESETS:
            raise UserError(f"preset={name!r} is unknown; {nearest(name, PRESETS)}")
        return replace(self, **(dict(PRESETS[name]) if name is not None else {}) | own)

    @property
    def kind(self) -> str | None:
        """The rule's name, without its options."""
        return self.rule["kind"] if isinstance(self.rule, Mapping) else self.rule

    @property
    def shadows(self) -> bool:
        """Whether what is written but not final is read from shadows."""
        reviser = self._reviser()
        return reviser is not None and reviser.shadows

    def stepper(self, denoiser: Denoiser) -> Stepper:
        """The settings as a stepper; `for_model` must have chosen the rule."""
        proposal, quota, reviser = Proposal(self.temperature, self.top_p, self.top_k), self._quota(), self._reviser()
        timeless = denoiser.network.time is None and denoiser.echo is None
        found = self._rule(proposal=proposal, quota=quota, timeless=timeless, guide=self.guide, guidance=self.guiding)
        keeper = self._keeper(denoiser)
        if isinstance(found, Stepper):
            return kept(found, proposal, keeper)
        if reviser is not None:
            return Revising(kept(Commit(found, quota, proposal, tuple(self.late)), proposal, keeper), reviser, proposal)
        if found in BLIND.values() and not (quota.looks or self.late):
            return kept(InOrder(found, quota, proposal), proposal, keeper)
        return kept(Commit(found, quota, proposal, tuple(self.late)), proposal, keeper)

    @cached_property
    def guiding(self) -> Guidance:
        """How the given text counts for more; of scale 0 not at all."""
        if not isinstance(self.guidance, Mapping):
            return Tokens(self.guidance)
        made: Guidance = build(GUIDANCES, self.guidance, "guidance")
        return made if made.scale else UNGUIDED

    @cached_property
    def constraint(self) -> Constraint | None:
        return Constraint.of(self.regex, self.json_schema, self.matches)

    def check_rows(self, denoiser: Denoiser, rows: Sequence[Row]) -> None:
        """UserError where one cannot be written in the language that is asked for, whatever the model says."""
        keeper = self._keeper(denoiser)
        if self.constraint is None or keeper is None:
            return
        for row in rows:
            self.constraint.check(keeper, row.tokens, row.open, row.infill)

    def _keeper(self, denoiser: Denoiser) -> Keeper | None:
        if self.constraint is None:
            return None
        end = None if self.suppress_eos else self.eos_id
        banned = torch.cat([denoiser.banned, denoiser.banned.new_tensor(self.ban)])
        return self.constraint.keeper(self.vocabulary, end, banned, denoiser.vocab)

    def _rule(self, **given: Any) -> Rank | Stepper:
        assert self.rule is not None, "for_model chooses the rule"
        made: Rank | Stepper = build(RULES, _spec(self.rule), "rule", given=given)
        return made

    @property
    def _maker(self) -> Any:
        """What the rule's name stands for."""
        return maker_of(RULES, self.kind, "rule", imports=True, functions=True)

    def _quota(self) -> Quota:
        short = {"threshold": self.threshold, "factor": self.factor}
        said = {name: value for name, value in short.items() if value is not None}
        usual = {"threshold": "above", "factor": "factor"}.get(next(iter(said), ""), "evenly")
        made: Quota = build(QUOTAS, _spec(self.quota or usual) | said, "quota")
        return made

    def _reviser(self) -> Reviser | None:
        made: Reviser | None = build(REVISERS, _spec(self.revise), "revise") if self.revise is not None else None
        return made

    def _check_guidance(self, guidance: Guidance) -> None:
        if not guidance.in_steps:
            return
        for name in ("regex", "json_schema", "grow"):
            if getattr(self, name) is not None:
                raise UserError(f"guidance: of steps, it does not go with {name}; use a number, or kind=tokens")
        if self.rule is not None and (self.kind == SPECULATING or not _declares(self._maker, "guidance")):
            raise UserError(
                f"guidance: the {self.kind} rule takes no steps that could be guided; use rule=ancestral, or a number"
            )

    def _check_language(self, reviser: Reviser | None) -> None:
        if self.constraint is None:
            return
        if self.kind == SPECULATING:
            raise self.constraint.refusal("self_speculation drafts without it; use left_to_right")
        if reviser is not None and reviser.rewrites:
            raise self.constraint.refusal("a reviser that changes one token at a time would break it; use take_back")

    def _check_rule(self) -> None:
        """Names and options now, not after the model is loaded."""
        if self.rule == SPECULATING:
            return
        found = self._rule(
            proposal=Proposal(), quota=self._quota(), timeless=True, guide=self.guide, guidance=self.guiding
        )
        if self.constraint is not None and isinstance(found, Stepper) and found.proposing(Proposal()) is None:
            raise self.constraint.refusal(f"the {self.kind} rule moves without proposed tokens; use confidence")
        maker = self._maker
        if self.guide is not None and not _declares(maker, "guide"):
            raise UserError(f"guide: it pulls at vectors, which the {self.kind} rule has none of; use ddpm or ddim")
        if not (isinstance(maker, type) and issubclass(maker, Stepper)):
            return
        counts = _declares(maker, "quota")
        for name in ("threshold", "factor", "quota"):
            if getattr(self, name) is not None and not counts:
                raise UserError(f"{name}: the {self.kind} rule says itself how many to write; drop one of the two")
        for name in ("revise", "late"):
            if getattr(self, name):
                raise UserError(f"{name}: the {self.kind} rule says itself what is written when; drop one of the two")

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
        chosen._check_guidance(chosen.guiding)
        if chosen.growth is not None:
            check_model(chosen.growth, chosen, denoiser)
        if one_sided(denoiser):
            chosen._only_forward(most_open)
        if self.eos_id is not None and not 0 <= self.eos_id < denoiser.vocab:
            raise UserError(f"eos_id={self.eos_id} is not in the model's vocabulary of {denoiser.vocab}")
        for name in ("ban", "late"):
            for token in getattr(self, name):
                if not 0 <= token < denoiser.vocab:
                    raise UserError(f"{name}: {token} is not in the model's vocabulary of {denoiser.vocab}")
        return chosen

    def policy(self, denoiser: Denoiser) -> Policy:
        """What a pass is fed; `for_model` must have chosen the cache."""
        return self._policy(block_size(denoiser.rule))

    @cached_property
    def growth(self) -> Growth | None:
        """How texts become longer; `for_model` must have chosen the block."""
        if self.grow is None:
            return None
        made: Growth = build(GROWTHS, _spec(self.grow), "grow", given={"block": self.block or 1})
        return made

    def _policy(self, size: int | None) -> Policy:
        assert self.cache is not None, "for_model chooses the cache"
        made: Policy = build(CACHES, _spec(self.cache), "cache", given={"size": size})
        return made

    def _block(self, denoiser: Denoiser) -> int | None:
        """A model that sees its text in blocks writes it in these. What is drafted is no part of this: `speculate`."""
        if self.kind == SPECULATING:
            return self.block
        size = block_size(denoiser.rule)
        if size is not None and self.block is not None and self.block % size:
            raise UserError(f"block={self.block}: this model sees its text in blocks of {size}; use a multiple of it")
        return self.block or size

    def _only_forward(self, most_open: int) -> None:
        if self.kind not in (FORWARD, SPECULATING):
            raise UserError(f"rule={self.rule!r}: an autoregressive model writes {FORWARD} only; leave rule out")
        for name in ("threshold", "factor", "quota", "revise"):
            if getattr(self, name) is not None:
                raise UserError(f"{name}: an autoregressive model writes one token a step; leave {name} out")
        if self.steps is not None and self.steps < most_open:
            raise UserError(
                f"steps={self.steps}: an autoregressive model needs a step a token, {most_open} here; leave steps out"
            )


def _declares(maker: Any, name: str) -> bool:
    """Whether a rule has a field that is filled in from the settings."""
    return is_dataclass(maker) and any(f.name == name for f in fields(maker))


def _spec(named: str | Spec) -> dict[str, Any]:
    return dict(named) if isinstance(named, Mapping) else {"kind": named}


def one_sided(denoiser: Denoiser) -> bool:
    """Whether a position sees only what stands before it: the rule itself says, of two neighbours."""
    here, ahead = (Places(torch.tensor([[i]])) for i in (0, 1))
    seen = denoiser.rule(here, ahead)
    return seen is not None and not bool(seen.any())


def default_settings(denoiser: Denoiser) -> Decoding:
    """What suits a model when nobody says anything: the surest first, or from left to right if it reads that way."""
    return Decoding(rule=FORWARD if one_sided(denoiser) else "confidence")
