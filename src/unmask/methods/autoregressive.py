"""The autoregressive baseline: the same transformer, reading left to right, predicting the next token."""

from __future__ import annotations

from dataclasses import dataclass

from ..decoding.settings import FORWARD, Decoding
from ..denoiser import Denoiser
from ..denoiser import NextToken as ReadsNext
from ..evaluation.likelihood import Estimator, Exact
from ..models.attention import Causal
from ..models.transformer import Transformer
from ..noise.tokens import Masking
from ..objectives.next_token import NextToken
from .method import Method, Symbols


@dataclass(frozen=True)
class Autoregressive(Method):
    def process(self, symbols: Symbols, network: Transformer | None = None) -> Masking:
        """Text not yet written is masked; the rule hides it from what is written."""
        return Masking.over(symbols.vocab, symbols.mask_id)

    def denoiser(self, network: Transformer, symbols: Symbols) -> Denoiser:
        head = ReadsNext(symbols.start_id)
        return Denoiser(network, mask_id=symbols.mask_id, rule=Causal(), head=head, unused=symbols.unused)

    def objective(self, symbols: Symbols) -> NextToken:
        return NextToken()

    def tuning(self, symbols: Symbols) -> NextToken:
        return NextToken()

    def estimator(self, draws: int) -> Estimator:
        return Exact()

    def decoding(self) -> Decoding:
        return Decoding(rule=FORWARD)
