"""Which token is drawn: cuts, temperature, and the precision of the noise."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from unmask.decoding.propose import Proposal, best, nucleus
from unmask.noise.draws import FromCounters


def draws(n: int) -> FromCounters:
    position = torch.arange(n)[None]
    return FromCounters(torch.tensor([7]), position).at(position >= 0)


LOGP = torch.tensor([0.4, 0.3, 0.2, 0.08, 0.02, 0.0]).log()


PROPOSALS = [
    Proposal(1.0),
    Proposal(0.5),
    Proposal(2.0),
    Proposal(1.0, 0.8),
    Proposal(1.0, 1.0, 2),
    Proposal(0.7, 0.9, 3),
]


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_draws_follow_the_law(proposal: Proposal) -> None:
    tokens = proposal.draw(LOGP.expand(20_000, -1), draws(20_000))
    law = proposal.law(LOGP[None])[0].exp()
    counts = torch.bincount(tokens, minlength=6).double()
    assert counts[law == 0].sum() == 0
    assert stats.chisquare(counts[law > 0], law[law > 0] * 20_000).pvalue > 1e-3


def test_temperature_sharpens_the_law() -> None:
    p = LOGP.double().exp()
    torch.testing.assert_close(Proposal(0.5).law(LOGP[None])[0].exp(), p**2 / (p**2).sum())
    assert Proposal(0.0).law(LOGP[None])[0].exp().tolist() == [1, 0, 0, 0, 0, 0]
    assert Proposal(0.0, 0.1, 1).draw(LOGP[None], draws(1)).tolist() == [0]


def test_a_cold_draw_is_the_best_token() -> None:
    logp = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert (Proposal(1e-4).draw(logp, draws(200)) == logp.argmax(-1)).float().mean() > 0.99


@pytest.mark.parametrize(("mass", "kept"), [(0.05, 1), (0.4, 1), (0.41, 2), (0.7, 2), (0.75, 3), (0.99, 5), (1.0, 5)])
def test_the_nucleus_is_the_fewest_that_hold_the_mass(mass: float, kept: int) -> None:
    shuffled = LOGP.double()[torch.tensor([3, 0, 5, 2, 1, 4])]
    left = nucleus(shuffled[None], mass - 1e-6)[0]
    assert int(left.isfinite().sum()) == kept
    assert left[1] == shuffled[1], "the best token always stays"


def test_top_k_keeps_k() -> None:
    assert best(LOGP[None], 2).isfinite().tolist() == [[True, True, False, False, False, False]]
    assert best(LOGP[None], 99).isfinite().sum() == 5


def test_the_noise_reaches_far_into_the_tail() -> None:
    """P(Gumbel > 10) = 4.54e-5; uniforms of float32 precision would lose what lies beyond 16.6."""
    u = FromCounters(torch.arange(40), torch.arange(50).expand(40, -1)).uniform(torch.zeros(40, 50), symbols=1000)
    assert u.dtype == torch.float64
    gumbel = -(-u.log()).log()
    assert gumbel.max() > 11
    assert gumbel.isfinite().all()
    assert float((gumbel > 10).double().mean()) == pytest.approx(4.54e-5, rel=0.4)


def test_cutting_the_work_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logp = torch.randn(300, 40, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    whole = Proposal(1.0).draw(logp, draws(300))
    monkeypatch.setattr("unmask.decoding.propose.rows_at_a_time", lambda vocab: 7)
    assert (Proposal(1.0).draw(logp, draws(300)) == whole).all()
