"""The transformer of `stand_ins` as denoisers, made once."""

import pytest
from stand_ins import MASK, VOCAB, network

from unmask.denoiser import Denoiser, NextToken
from unmask.layout import Whole
from unmask.models.attention import Causal
from unmask.noise.tokens import Masking


@pytest.fixture(scope="session")
def masked() -> Denoiser:
    return Denoiser(network(), mask_id=MASK, rule=Whole().rule)


@pytest.fixture(scope="session")
def forward() -> Denoiser:
    return Denoiser(network(1), mask_id=MASK, rule=Causal(), head=NextToken(0))


@pytest.fixture(scope="session")
def masking() -> Masking:
    return Masking.over(VOCAB, MASK)
