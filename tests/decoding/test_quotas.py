"""How many are settled now: the published rules on fixed logits, the bounds they promise, and schedules row by row.

`tests/data_files/decode`: decisions of Fast-dLLM, dllm and dInfer on fixed logits, schedules of LLaDA and dllm,
confidences of Dream.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unmask.decoding.propose import Proposal
from unmask.decoding.quotas import (
    QUOTAS,
    Above,
    Certain,
    EntropyBound,
    Evenly,
    Expected,
    Factor,
    Fixed,
    Offer,
    Proportional,
    Quota,
    Stable,
)
from unmask.decoding.select import AfterCuts, Asked, confidence, entropy, uncertainty
from unmask.errors import UserError
from unmask.noise.draws import FromCounters

DATA = Path(__file__).parents[1] / "data_files" / "decode"
RULES = load_file(DATA / "transfer_rules.safetensors")
PRIMITIVES = load_file(DATA / "sampler_primitives.safetensors")


def offered(logp: Tensor, open: Tensor, left: int = 9, steps: int = 9, rank=confidence, **more: object) -> Offer:
    """logp (N, V) at the open positions (B, W), the best token proposed everywhere."""
    position = torch.arange(open.shape[1]).expand(open.shape)
    rng = FromCounters(torch.zeros(len(open), dtype=torch.int64), position).at(open)
    asked = Asked(logp, logp.argmax(-1), position[open], rng, Proposal())
    spread = lambda values: values.new_zeros(open.shape).masked_scatter(open, values)  # noqa: E731
    sure = spread(logp.amax(-1).exp())
    lefts, rows = torch.full((len(open),), left), torch.full((len(open),), steps)
    return Offer(spread(rank(asked)), sure, open, lefts, rows, asked, **more)


def published() -> Offer:
    open = RULES["mask"].bool()
    return offered(RULES["logits"].log_softmax(-1)[open], open)


@pytest.mark.parametrize(
    ("name", "quota"),
    [(f"topk{k}", Fixed(k)) for k in (1, 2, 3)]
    + [(f"threshold{t}_{who}", Above(t)) for t in (0.3, 0.6, 0.9) for who in ("nv", "dllm")]
    + [(f"factor{f}_dllm", Factor(f)) for f in (0.5, 1.0, 1.5)],
)
def test_published_decisions(name: str, quota: Quota) -> None:
    assert torch.equal(quota(published()), RULES[f"select_{name}"].bool())


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_factor_stops_where_it_should_and_not_one_later(factor: float) -> None:
    """dInfer's copy writes one more token than the rule allows when it stops at the last candidate."""
    ours, theirs = Factor(factor)(published()), RULES[f"select_factor{factor}_dinfer"].bool()
    assert not (ours & ~theirs).any()
    assert ((theirs & ~ours).sum(1) <= 1).all()


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.0, 4.0])
def test_factor_is_the_largest_run_that_its_theorem_allows(factor: float) -> None:
    rng = torch.Generator().manual_seed(0)
    logp = (4 * torch.randn(40 * 7, 9, generator=rng)).log_softmax(-1)
    open = torch.ones(40, 7, dtype=torch.bool)
    offer = offered(logp, open)
    for sure, taken in zip(offer.sure, Factor(factor)(offer)):
        best, n = sorted(sure.tolist(), reverse=True), int(taken.sum())
        assert all((i + 1) * (1 - best[i - 1]) < factor for i in range(2, n + 1))
        assert n == 7 or (n + 2) * (1 - best[n]) >= factor
        assert sorted(sure[taken].tolist(), reverse=True) == best[:n]


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.5, 3.0])
@pytest.mark.parametrize("rank", [confidence, entropy])
def test_entropies_without_the_largest_stay_within_the_bound(bound: float, rank) -> None:
    """JetEngine and SDAR count the largest too, and so write less than the bound allows."""
    rng = torch.Generator().manual_seed(1)
    logp = (3 * torch.randn(60 * 6, 8, generator=rng)).log_softmax(-1)
    open = torch.rand(60, 6, generator=rng) < 0.8
    open[:, 0] = True
    offer = offered(logp[: int(open.sum())], open, rank=rank)
    each = offer.spread(uncertainty(offer.asked.logp))
    for row, taken in enumerate(EntropyBound(bound)(offer)):
        some = each[row][taken]
        assert len(some) >= 1
        assert float(some.sum() - some.max()) <= bound + 1e-6 or len(some) == 1
        order = offer.score[row].masked_fill(~open[row], -torch.inf).argsort(descending=True, stable=True)
        more = each[row][order[: len(some) + 1]]
        assert len(some) == open[row].sum() or float(more.sum() - more.max()) > bound
        assert bound > 0 or len(some) == 1, "a bound of 0 is one a step"


def test_certain_is_a_bound_on_each() -> None:
    logp = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.99, 0.01]]).log()
    offer = offered(logp, torch.ones(1, 3, dtype=torch.bool))
    assert Certain(0.4)(offer).tolist() == [[True, False, True]]
    assert Certain(0.01)(offer).tolist() == [[False, False, True]], "the first always"


def test_beliefs_must_rest_before_klass_trusts_them() -> None:
    """Sure at once, but written only after two passes without a move; meanwhile an even share."""
    open, quota = torch.ones(1, 4, dtype=torch.bool), Stable(threshold=0.6, kl=0.01, passes=2)
    still = torch.tensor([[0.7, 0.3], [0.65, 0.35], [0.62, 0.38], [0.5, 0.5]]).log()
    moving = torch.tensor([[0.7, 0.3], [0.65, 0.35], [0.99, 0.01], [0.5, 0.5]]).log()
    memory: dict[str, Tensor] = {}
    for passed, logp in enumerate([moving, still, still, still]):
        offer = offered(logp, open, memory=memory)
        chosen, memory = quota(offer), quota.keep(offer)
        if passed < 2:
            assert chosen.sum() == 1, "nothing rests yet: an even share"
        if passed == 2:
            assert chosen.tolist() == [[True, True, False, False]], "the third has moved a pass ago"
    assert chosen.tolist() == [[True, True, True, False]], "the last is not sure"


def run(quota: Quota, count: int, steps: int) -> list[int]:
    """How many a quota settles, pass after pass."""
    taken, left = [], steps
    while count:
        open = torch.arange(40)[None] < count
        offer = offered(torch.tensor([[0.6, 0.4]]).log().expand(count, -1), open, left, steps)
        taken.append(int(quota(offer).sum()))
        left, count = left - int(quota.spent(offer)), count - taken[-1]
    return taken


@pytest.mark.parametrize(
    ("table", "quota"),
    [
        ("num_transfer_llada", Evenly()),
        ("num_transfer_dllm_linear", Expected("linear")),
        ("num_transfer_dllm_cosine", Expected("cosine")),
    ],
)
def test_published_schedules(table: str, quota: Quota) -> None:
    """Passes in which nothing would be written, which LLaDA's loop pays for, are not made."""
    for (count, steps), row in zip(PRIMITIVES["num_transfer_args"].tolist(), PRIMITIVES[table].tolist()):
        if count:
            assert run(quota, count, steps) == [k for k in row if k > 0], (count, steps)


def test_dreams_schedule_is_counted_row_by_row() -> None:
    def dream(count: int, steps: int) -> list[int]:
        t, taken = torch.linspace(1, 1e-3, steps + 1), []
        for i in range(steps):
            taken.append(int(count * (1 - t[i + 1] / t[i])) if i < steps - 1 else count)
            count -= taken[-1]
        return [k for k in taken if k]

    for count, steps in [(16, 16), (16, 8), (22, 7), (8, 20), (14, 6), (1, 5), (5, 1)]:
        assert run(Proportional(), count, steps) == dream(count, steps)


@pytest.mark.parametrize("cut", ["", "_k10", "_p0.8", "_p0.9_k12"])
@pytest.mark.parametrize(("of", "alg"), [("confidence", "maskgit_plus"), ("margin", "topk_margin"), ("entropy",) * 2])
def test_dream_reads_its_ranks_after_the_cuts(of, alg: str, cut: str) -> None:
    cuts = {"": {}, "_k10": {"top_k": 10}, "_p0.8": {"top_p": 0.8}, "_p0.9_k12": {"top_p": 0.9, "top_k": 12}}[cut]
    logp, proposal = PRIMITIVES["dream_logits"].log_softmax(-1), Proposal(0.0, **cuts)
    place = torch.arange(len(logp))
    rng = FromCounters(torch.zeros(1, dtype=torch.int64), place[None]).at(place[None] >= 0)
    asked = Asked(logp, proposal.draw(logp, rng), place, rng, proposal)
    assert torch.equal(asked.tokens, PRIMITIVES[f"dream_{alg}{cut}_x0"])
    torch.testing.assert_close(AfterCuts(of)(asked), PRIMITIVES[f"dream_{alg}{cut}_confidence"], atol=6e-6, rtol=0)


def test_a_noisy_order_is_drawn_in_proportion() -> None:
    """Dream's alg_temp: the first to go is drawn from softmax(score / noise)."""
    rows = 20_000
    open = torch.ones(rows, 3, dtype=torch.bool)
    logp = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.5, 0.5]]).log().repeat(rows, 1)
    position = torch.arange(3).expand(rows, 3)
    rng = FromCounters(torch.arange(rows), position).at(open)
    asked = Asked(logp, logp.argmax(-1), position[open], rng, Proposal())
    score = AfterCuts("confidence", noise=0.2)(asked).view(rows, 3)
    share = score.argmax(1).bincount(minlength=3) / rows
    torch.testing.assert_close(share, (torch.tensor([0.9, 0.7, 0.5]) / 0.2).softmax(0), atol=0.015, rtol=0)


@pytest.mark.parametrize("name", QUOTAS)
def test_no_quota_leaves_a_row_without_a_token_or_the_last_step_with_one(name: str) -> None:
    made = {"factor": Factor(1.0)}.get(name) or QUOTAS[name]()
    rng = torch.Generator().manual_seed(2)
    open = torch.rand(30, 7, generator=rng) < 0.5
    open[:, 3] = True
    logp = torch.randn(int(open.sum()), 5, generator=rng).log_softmax(-1)
    middle = made(offered(logp, open, left=4))
    assert middle.any(1).all()
    assert not (middle & ~open).any()
    assert torch.equal(made(offered(logp, open, left=1)), open)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Factor(0.0), "factor=0.0 is not positive"),
        (lambda: EntropyBound(-1.0), "quota.bound=-1.0 is negative"),
        (lambda: Certain(0.0), "quota.entropy=0.0 is not positive"),
        (lambda: Fixed(0), "quota.count=0"),
        (lambda: Above(0.9, least=0), "quota.least=0"),
        (lambda: AfterCuts("entropy", noise=-1.0), "rule.noise=-1.0 is negative"),
    ],
)
def test_bad_options_are_named(make, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()
