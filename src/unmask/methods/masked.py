"""Masked diffusion (LLaDA, MDLM): tokens fade to [MASK], a bidirectional network restores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..decoding.settings import Decoding
from ..denoiser import CleanLogits, Denoiser, ShiftedLogits
from ..echo import Echo, SoftMask, believed
from ..errors import UserError
from ..evaluation.likelihood import Estimator, FixedCount
from ..layout import Blocks, Whole
from ..models.config import ModelConfig
from ..models.transformer import Transformer
from ..noise.schedule import Linear, Schedule
from ..noise.tokens import Masking
from ..objectives.masked import MaskedBound
from ..objectives.objective import Objective
from .method import Method, Symbols, level_of

INPUTS: dict[str, Literal["none", "added", "soft"]] = {"none": "none", "beliefs": "added", "soft": "soft"}


@dataclass(frozen=True)
class Masked(Method):
    """schedule: how tokens fade. masks: counted ones train every schedule alike, with less variance; so they are the
    default for the linear schedule alone, and any other is followed, token by token (independent).

    shifted: the output at i - 1 speaks of token i, as in what autoregressive models were tuned to (Dream).

    feedback: what the network is told of its last word on a token that is still open. beliefs: the mean embedding under
    it (self-conditioning); soft: in place of the mask, a learnt share of the way there (soft masks).
    """

    schedule: Schedule = Linear()
    masks: Literal["independent", "counted"] | None = None
    per: Literal["token", "answer"] = "answer"
    short: float = 0.0
    shifted: bool = False
    feedback: Literal["none", "beliefs", "soft"] = "none"

    def __post_init__(self) -> None:
        if self.masks == "counted" and self.schedule != Linear():
            raise UserError("method.masks=counted: trains every method.schedule alike, so it does nothing; drop one")

    @property
    def drawn(self) -> Literal["independent", "counted"]:
        """How masks are drawn in training."""
        return self.masks or ("counted" if self.schedule == Linear() else "independent")

    def shape(self, config: ModelConfig) -> ModelConfig:
        return config.model_copy(update={"feedback": INPUTS[self.feedback]})

    def process(self, symbols: Symbols, network: Transformer | None = None) -> Masking:
        return Masking.over(symbols.vocab, symbols.mask_id, self.schedule)

    @property
    def layout(self) -> Blocks:
        return Whole()

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        return Denoiser(
            network,
            mask_id=symbols.mask_id,
            rule=self.layout.rule,
            head=ShiftedLogits() if self.shifted else CleanLogits(),
            unused=symbols.unused,
            level=level_of(network, self.schedule),
            echo=self._echo(network, symbols.mask_id),
        )

    def objective(self, symbols: Symbols) -> Objective:
        return self._trained(MaskedBound(self.process(symbols), self.layout, masks=self.drawn, short=self.short))

    def tuning(self, symbols: Symbols) -> Objective:
        return self._trained(MaskedBound(self.process(symbols), self.layout, masks=self.drawn, per=self.per))

    def _trained(self, bound: MaskedBound) -> Objective:
        """What training minimises, if not the bound itself."""
        return bound

    def estimator(self, draws: int) -> Estimator:
        return FixedCount(draws=draws, layout=self.layout)

    def decoding(self) -> Decoding:
        return Decoding(rule="confidence")

    def _echo(self, network: Transformer, mask_id: int) -> Echo | None:
        if network.config.feedback != INPUTS[self.feedback]:
            raise UserError(
                f"method.feedback={self.feedback}: the network was made for feedback={network.config.feedback}; train "
                "from nothing, or keep the feedback of the base"
            )
        echoes: dict[str, Echo | None] = {"none": None, "beliefs": believed, "soft": SoftMask(mask_id)}
        return echoes[self.feedback]
