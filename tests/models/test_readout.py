"""The chunked cross-entropy is torch's own, in value and gradient, and never holds all logits."""

import pytest
import torch
import torch.nn.functional as F

from unmask.models import readout

D, V = 16, 50


@pytest.fixture
def small_chunks(monkeypatch):
    """Seven rows at a time, so that few rows already make several chunks, the last one short."""
    monkeypatch.setattr(readout, "rows_at_a_time", lambda vocab: 7)


def case(n, dtype=torch.float32):
    rng = torch.Generator().manual_seed(n)
    hidden, weight = torch.randn(n, D, generator=rng, dtype=dtype), torch.randn(V, D, generator=rng, dtype=dtype)
    targets = torch.randint(0, V - 2, (n,), generator=rng)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, torch.rand(n, generator=rng)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("n", [1, 6, 7, 8, 14, 30])
@pytest.mark.parametrize("banned", [None, [V - 1], [V - 2, V - 1]], ids=["none", "one", "two"])
def test_value_and_gradients_are_torchs(n, banned):
    banned = None if banned is None else torch.tensor(banned)
    hidden, weight, targets, weights = case(n)
    total, nll = readout.weighted_cross_entropy(hidden, weight, targets, weights, banned)
    (3 * total).backward()
    mine = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    logits = hidden @ weight.T
    logits = logits if banned is None else logits.index_fill(1, banned, -torch.inf)
    each = F.cross_entropy(logits, targets, reduction="none")
    (3 * (weights * each).sum()).backward()
    torch.testing.assert_close(total, (weights * each).sum(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nll, each, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine[0], hidden.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine[1], weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("frozen", ["hidden", "weight", "both"])
def test_only_the_gradients_that_are_wanted(frozen):
    hidden, weight, targets, weights = case(9)
    hidden.requires_grad_(frozen == "weight")
    weight.requires_grad_(frozen == "hidden")
    total, nll = readout.weighted_cross_entropy(hidden, weight, targets, weights)
    assert not nll.requires_grad
    assert total.requires_grad == (frozen != "both")
    if frozen != "both":
        total.backward()
    assert (hidden.grad is not None) == (frozen == "weight")
    assert (weight.grad is not None) == (frozen == "hidden")


def test_no_rows_cost_nothing():
    hidden, weight, targets, weights = case(0)
    total, nll = readout.weighted_cross_entropy(hidden, weight, targets, weights)
    total.backward()
    assert total == 0
    assert len(nll) == 0
    assert (weight.grad == 0).all()


def test_low_precision_gradients_stay_close():
    hidden, weight, targets, weights = case(40)
    low = hidden.detach().bfloat16().requires_grad_()
    readout.weighted_cross_entropy(low, weight, targets, weights)[0].backward()
    got, weight.grad = weight.grad, None
    readout.weighted_cross_entropy(hidden, weight, targets, weights)[0].backward()
    assert low.grad.dtype == torch.bfloat16
    assert got.dtype == torch.float32
    assert (got - weight.grad).norm() < 0.02 * weight.grad.norm()


def test_a_banned_target_costs_infinity_and_a_banned_symbol_is_never_likely():
    hidden, weight, _, weights = case(3)
    _, nll = readout.weighted_cross_entropy(hidden, weight, torch.tensor([1, 9, 2]), weights, torch.tensor([9]))
    assert nll.isinf().tolist() == [False, True, False]
    assert (readout.logits(hidden, weight, torch.tensor([9]))[:, 9] == -torch.inf).all()


def test_logits_are_held_a_chunk_at_a_time(monkeypatch):
    """The widest product anywhere in forward and backward has rows_at_a_time rows."""
    monkeypatch.setattr(readout, "CHUNK", 100 * V)
    seen, product = [], readout.product
    monkeypatch.setattr(readout, "product", lambda x, w: seen.append(len(x)) or product(x, w))
    hidden, weight, targets, weights = case(1050)
    total, _ = readout.weighted_cross_entropy(hidden, weight, targets, weights)
    saved = sum(t.numel() for t in total.grad_fn.saved_tensors if t is not None)
    assert (max(seen), len(seen)) == (100, 11)
    assert saved == hidden.numel() + weight.numel()
    assert readout.rows_at_a_time(10**9) == 64


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("cost", ["entropy", "square"])
def test_any_cost_of_the_logits_has_torchs_value_and_gradients(cost):
    costs = {
        "entropy": lambda scores, rows: torch.special.entr(scores.softmax(-1)).sum(-1),
        "square": lambda scores, rows: (scores.log_softmax(-1) * true[rows]).square().sum(-1),
    }
    true = torch.rand(30, V, generator=torch.Generator().manual_seed(1))
    hidden, weight, _, weights = case(30)
    bias = torch.randn(V, requires_grad=True)
    found = []
    for chunked in (True, False):
        if chunked:
            slopes = readout.differentiated(costs[cost], weights)
            total, each = readout.weighted_cost(hidden, weight, weights, slopes, bias=bias)
            assert not each.requires_grad
        else:
            total = (weights * costs[cost](hidden @ weight.T + bias, slice(None))).sum()
        found.append([total.detach(), *torch.autograd.grad(2 * total, (hidden, weight, bias))])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        assert readout.weighted_cost(hidden, weight, weights, slopes, bias=bias)[0] == pytest.approx(float(total), 1e-5)


def test_a_bias_is_part_of_the_logits():
    hidden, weight, targets, weights = case(9)
    bias = torch.randn(V)
    total, _ = readout.weighted_cross_entropy(hidden, weight, targets, weights, bias=bias)
    each = F.cross_entropy(hidden @ weight.T + bias, targets, reduction="none")
    torch.testing.assert_close(total, (weights * each).sum())
