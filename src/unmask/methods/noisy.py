"""What all methods share whose noise is text itself, and not, or not only, a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..decoding.settings import Decoding
from ..denoiser import CleanLogits, Denoiser, Head
from ..errors import UserError
from ..evaluation.integral import Integral
from ..evaluation.likelihood import Estimator
from ..layout import Whole
from ..models.config import ModelConfig
from ..models.transformer import Transformer
from ..noise.tokens import TokenNoise
from ..objectives.bound import Bound
from .method import Method, Symbols, level_of

Per = Literal["token", "answer"]


class Noisy(Method):
    """A method is a noise, and how the network's word on it is read.

    A network cannot see how much of its input is noise, as it can where noise is a mask, and the right answer depends
    on it: it is told the level, as in UDLM, Duo and SEDD.
    """

    per: Per

    def noise(self, vocab: int, mask_id: int, barred: Sequence[int]) -> TokenNoise:
        """barred: symbols that are never written, the mask among them."""
        raise NotImplementedError

    def head(self, process: TokenNoise) -> Head:
        return CleanLogits()

    def bound(self, process: TokenNoise, per: Per) -> Bound:
        return Bound(process, per=per)

    def shape(self, config: ModelConfig) -> ModelConfig:
        return config.model_copy(update={"time": "adaln"})

    def process(self, symbols: Symbols, network: Transformer | None = None) -> TokenNoise:
        return self.noise(symbols.vocab, symbols.mask_id, (symbols.mask_id, *symbols.unused))

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        if network.time is None:
            raise UserError(
                "method.kind: the network is not told the noise level, and this noise cannot be seen; train from "
                "nothing, or start from a model of the same kind"
            )
        process = self.process(symbols)
        return Denoiser(
            network,
            mask_id=symbols.mask_id,
            rule=Whole().rule,
            head=self.head(process),
            unused=symbols.unused,
            level=level_of(network, process.schedule),
        )

    def objective(self, symbols: Symbols) -> Bound:
        return self.bound(self.process(symbols), "token")

    def tuning(self, symbols: Symbols) -> Bound:
        return self.bound(self.process(symbols), self.per)

    def estimator(self, draws: int) -> Estimator:
        return Integral(draws=draws, bound=self._bound_of)

    def decoding(self) -> Decoding:
        return Decoding(rule="ancestral", temperature=1.0)

    def _bound_of(self, denoiser: Denoiser) -> Bound:
        return self.bound(self.noise(denoiser.vocab, denoiser.mask_id, denoiser.banned.tolist()), "token")
