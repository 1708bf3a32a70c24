"""A denoiser that says what it is, and what the network it came from says in its own words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .decoding.settings import Decoding
from .denoiser import Denoiser
from .errors import UserError
from .models.attention import Places, Rule
from .models.families import Facts
from .noise.process import Process
from .scores import LogScore


class LoadedDenoiser(Denoiser):
    """family, config: what it is and its config.json as published; facts: what the family knows of it; process: the
    noise that it undoes; decoding: how it is written with unless the user says otherwise."""

    def __init__(
        self,
        base: Denoiser,
        process: Process,
        decoding: Decoding,
        family: str,
        config: Mapping[str, Any],
        facts: Facts,
    ) -> None:
        super().__init__(
            base.network,
            mask_id=base.mask_id,
            rule=base.rule,
            head=base.head,
            level=base.level,
        )
        self.banned = base.banned
        self.process, self.decoding = process, decoding
        self.family, self.config, self.facts = family, config, facts

    def raw_logits(
        self,
        tokens: Tensor,
        *,
        attention_mask: Tensor | None = None,
        sigma: Tensor | float | None = None,
        t: Tensor | float | None = None,
    ) -> Tensor:
        """What the published network says, (B, L, V) float32: before any shift, carry-over or ban.

        tokens (B, L) ids, or logits (B, L, V) whose softmax mixes embeddings. attention_mask: (B, L) 1 for text and 0
        for padding, or who sees whom, (L, L), (B, L, L) or (B, 1, L, L), bool or added to the scores. sigma, or the
        time t that it follows from: (B,), (B, 1), (B, L) or a number, for a network that is told its noise level.
        """
        device = self.network.embed.weight.device
        tokens = tokens.to(device)
        batch, length = tokens.shape[:2]
        places, rule = self._seen(tokens, None if attention_mask is None else attention_mask.to(device))
        x = tokens.float().softmax(-1) @ self.network.embed.weight.float() if tokens.is_floating_point() else tokens
        level = self._level(batch, length, sigma, t)
        hidden = self.network(x, places, rule, level)
        if places.clean is not None:
            hidden = hidden[:, : length // 2]
        logits = self.network.head(hidden).float()
        if isinstance(self.head, LogScore):
            assert level is not None, "scores depend on the noise level"
            logits = _as_scores(logits, tokens, level, self.head.scaled)
        if places.document is not None and not isinstance(rule, Given):
            logits = logits.masked_fill((places.document < 0)[..., None], 0.0)  # no text, no meaning
        return logits

    def _seen(self, tokens: Tensor, mask: Tensor | None) -> tuple[Places, Rule]:
        """Where the tokens stand and who sees whom in the published network."""
        places = Places.of(tokens)
        if mask is None:
            return (_twice(places) if self._doubled(places) else places), self.rule
        if mask.shape == tokens.shape[:2]:
            if self.facts.pads == "uncounted":
                position = (mask.long().cumsum(1) - 1).clamp(min=0)
                return Places(position, mask.long() - 1), self.rule
            seen = (mask != 0)[:, None, :]
        else:
            seen = _allowed(mask)
        try:
            seen = seen.expand(len(tokens), tokens.shape[1], tokens.shape[1])
        except RuntimeError as error:
            shape = tuple(mask.shape)
            raise UserError(f"attention_mask: has shape {shape} for tokens of {tuple(tokens.shape)}") from error
        if mask.shape == tokens.shape[:2] and (own := self.rule(*_pairs(places))) is not None:
            seen = seen & own
        row = torch.arange(len(tokens), device=tokens.device)[:, None].expand_as(places.position)
        return Places(places.position, row), Given(seen)

    def _doubled(self, places: Places) -> bool:
        return self.facts.twice and places.position.shape[1] == 2 * self.network.config.context

    def _level(self, batch: int, length: int, sigma: Tensor | float | None, t: Tensor | float | None) -> Tensor | None:
        """The noise levels (B, L) that the network is told, if it listens."""
        if not self.network.config.timed:
            return None
        level = sigma
        if level is None and t is not None:
            time = self._spread(t, batch, length)
            level = time if self.level is None else self.level(time)
        if level is None:
            raise UserError("sigma: this network is told how noisy its text is; give sigma or t")
        return self._spread(level, batch, length)

    def _spread(self, level: Tensor | float, batch: int, length: int) -> Tensor:
        level = torch.as_tensor(level, device=self.network.embed.weight.device)
        return (level[:, None] if level.dim() == 1 else level).expand(batch, length)


def _as_scores(said: Tensor, tokens: Tensor, sigma: Tensor, scaled: bool) -> Tensor:
    """What SEDD's own network ends with: the known factor of a score taken off, and 0 at the token that is there."""
    if scaled:
        said = said - (sigma.expm1().log() + math.log(said.shape[-1] - 1))[..., None]
    return said.scatter(-1, tokens[..., None], 0.0)


@dataclass(frozen=True, eq=False)
class Given:
    """Who sees whom, said outright: seen (B, L, L) bool. A place's document is its row here."""

    seen: Tensor

    def __call__(self, q: Places, k: Places) -> Tensor | None:
        assert q.document is not None
        return self.seen[q.document, q.position, k.position]


def _allowed(mask: Tensor) -> Tensor:
    """(B or 1, L, L) bool from a mask in any of the usual forms."""
    mask = mask[:, 0] if mask.dim() == 4 else mask
    mask = mask[None] if mask.dim() == 2 else mask
    if mask.dtype == torch.bool or not mask.is_floating_point():
        return mask != 0
    return mask >= 0  # added to the scores: 0 where seen, very negative where not


def _pairs(places: Places) -> tuple[Places, Places]:
    return places.map(lambda x: x[:, :, None]), places.map(lambda x: x[:, None, :])


def _twice(places: Places) -> Places:
    """A noisy text and the clean one behind it, both from position 0."""
    half = places.position.shape[1] // 2
    return Places(places.position % half, clean=places.position >= half)
