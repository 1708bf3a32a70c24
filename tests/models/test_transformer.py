"""The transformer computes what its plainest reading says: at the positions asked for, packed or alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SWITCHES, network, text

from unmask.models.attention import BlockCausal, Causal, Everything, Places
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer

RULES = {"everything": Everything(), "causal": Causal(), "blocks": BlockCausal(4)}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
every_switch = pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
# two documents and padding in row 0, three documents in row 1, one in row 2
DOCUMENTS = torch.tensor([[0] * 5 + [1] * 4 + [-1] * 3, [0] * 3 + [1] * 3 + [2] * 6, [0] * 12])


def packed_places():
    position = torch.zeros_like(DOCUMENTS)
    for i in range(1, DOCUMENTS.shape[1]):
        position[:, i] = torch.where(DOCUMENTS[:, i] == DOCUMENTS[:, i - 1], position[:, i - 1] + 1, 0)
    return Places(position, DOCUMENTS)


def times(model, shape):
    noisy = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    return noisy if model.config.timed and model.config.time_scope == "position" else None


def ragged_choices():
    rng = torch.Generator().manual_seed(5)
    yield torch.rand(3, 12, generator=rng) < 0.3
    only_last = torch.zeros(3, 12, dtype=torch.bool)
    only_last[:, -1] = True
    yield only_last
    uneven = torch.zeros(3, 12, dtype=torch.bool)
    uneven[1] = True
    uneven[2, 0] = True
    yield uneven
    yield torch.zeros(3, 12, dtype=torch.bool)


@pytest.mark.parametrize("packed", [False, True], ids=["single", "packed"])
@every_rule
@every_switch
@torch.no_grad()
def test_asked_positions_get_what_the_full_pass_gives_them(switches, rule, packed):
    model, x = network(**switches), text()
    places, t = packed_places() if packed else Places.of(x), times(network(**switches), x.shape)
    full = model.head(model(x, places, rule, t))
    for where in ragged_choices():
        asked = model.head(model(x, places, rule, t, where))
        torch.testing.assert_close(asked, full[where], rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=36, max_size=36), st.sampled_from(sorted(RULES)))
@torch.no_grad()
def test_any_choice_of_positions(flags, rule):
    model, x, where = network(kv_heads=2), text(), torch.tensor(flags).view(3, 12)
    full = model(x, packed_places(), RULES[rule])
    torch.testing.assert_close(model(x, packed_places(), RULES[rule], None, where), full[where], rtol=1e-5, atol=1e-5)


@every_rule
@torch.no_grad()
def test_a_document_does_not_see_its_neighbours(rule):
    model, x, places = network(), text(), packed_places()
    before = model(x, places, rule)
    other = x.clone()
    other[DOCUMENTS == 1] = (other[DOCUMENTS == 1] + 1) % 36
    other[DOCUMENTS == -1] = 0
    after, same = model(other, places, rule), (DOCUMENTS == 0) | (DOCUMENTS == 2)
    assert torch.equal(after[same], before[same])
    assert not torch.allclose(after[DOCUMENTS == 1], before[DOCUMENTS == 1])
    assert after.isfinite().all()


@every_rule
@every_switch
@torch.no_grad()
def test_packed_is_as_good_as_alone(switches, rule):
    model, x = network(**switches), text()
    t = times(model, x.shape)
    together = model(x, packed_places(), rule, t)
    for row, document in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]:
        mine = DOCUMENTS[row] == document
        alone = model(x[row, mine][None], None, rule, None if t is None else t[row, mine][None])
        torch.testing.assert_close(together[row, mine], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 4, 12])
@torch.no_grad()
def test_what_comes_in_later_blocks_changes_nothing(size):
    model, x = network(), text()
    rule = Causal() if size == 1 else BlockCausal(size)
    before = model(x, None, rule)
    for cut in range(size, 12, size):
        other = x.clone()
        other[:, cut:] = (other[:, cut:] + 1) % 36
        torch.testing.assert_close(model(other, None, rule)[:, :cut], before[:, :cut], rtol=1e-6, atol=1e-6)
        shortened = model(x[:, :cut], None, rule)
        torch.testing.assert_close(shortened, before[:, :cut], rtol=1e-5, atol=1e-5)
    inside = x.clone()
    inside[:, size - 1] = (inside[:, size - 1] + 1) % 36
    assert not torch.allclose(model(inside, None, rule)[:, 0], before[:, 0]), "the first token sees its whole block"


@torch.no_grad()
def test_causal_is_the_same_with_and_without_a_mask():
    """One document a row takes SDPA's own causal path; an explicit document takes the dense mask."""
    model, x = network(), text()
    zeros = torch.zeros_like(x)
    torch.testing.assert_close(model(x, None, Causal()), model(x, Places.of(x, zeros), Causal()), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_places_matter_only_relative_to_each_other():
    model, x = network(), text()
    moved = Places(Places.of(x).position + 1000)
    torch.testing.assert_close(model(x, moved), model(x), rtol=1e-3, atol=1e-3)
    stretched = Places(Places.of(x).position * 2)
    assert not torch.allclose(model(x, stretched), model(x), atol=1e-2)


@pytest.mark.parametrize("time", ["none", "adaln"])
def test_recomputing_activations_gives_the_same_gradients(time):
    grads = []
    for recompute in (False, True):
        model, x = network(time=time).train(), text()
        model.recompute = recompute
        where = x % 3 == 0
        model.head(model(x, None, Causal(), times(model, x.shape), where)).square().mean().backward()
        grads.append({n: p.grad for n, p in model.named_parameters()})
    assert all(g is not None and g.abs().sum() > 0 for g in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad)


@torch.no_grad()
def test_the_noise_level_acts_on_its_own_position_first():
    model, x = network(time="adaln", layers=1), text()
    t = torch.zeros(x.shape)
    later = t.clone()
    later[:, 5] = 0.9
    a, b = model(x, None, Causal(), t), model(x, None, Causal(), later)
    assert torch.equal(a[:, :5], b[:, :5])
    assert not torch.allclose(a[:, 5], b[:, 5])
    torch.testing.assert_close(model(x, None, Causal()), a), "no time given means all is settled"


@every_switch
def test_a_fresh_network_says_nothing_yet(switches):
    """The head and every residual output start at zero: all symbols alike, or the embedding's own word where tied."""
    model = network(**switches).initialise(torch.Generator().manual_seed(0))
    hidden = model(text())
    if not model.config.tied:
        assert (model.head(hidden) == 0).all()
    again = network(**switches).initialise(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))


@every_switch
def test_no_part_of_a_fresh_network_is_dead(switches):
    """After a few steps of plain gradient descent every weight has moved: nothing that starts at zero stands behind
    something else that does. Gates once started shut, beside outputs that start at zero: no block ever learnt."""
    model = network(**switches).initialise(torch.Generator().manual_seed(0)).train()
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in learnt.items()}
    x, t = text(rows=8), torch.rand(8, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(6):
        said = model.head(model(x, t=t if model.config.timed else None))
        loss = torch.nn.functional.cross_entropy(said.flatten(0, 1), x.roll(1, 1).flatten())
        slopes = torch.autograd.grad(loss, list(learnt.values()), allow_unused=True)
        with torch.no_grad():
            for p, slope in zip(learnt.values(), slopes):
                if slope is not None:  # at whatever size a slope arrives, it is to be seen
                    p -= 0.1 * slope / slope.norm().clamp(min=1e-12)
    assert [name for name, p in learnt.items() if torch.equal(p, before[name])] == []


def test_dropout_acts_only_in_training():
    model, x = network(dropout=0.5), text()
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_flops_count_matrices_once():
    model = Transformer(ModelConfig(vocab=10, width=8, layers=1, heads=2, hidden=16))
    per_layer = 3 * 8 * 8 + 8 * 8 + 3 * 8 * 16
    assert model.matmul_flops(length=5) == 2 * (per_layer + 10 * 8) + 4 * 5 * 8
    tied = Transformer(ModelConfig(vocab=10, width=8, layers=1, heads=2, hidden=16, tied=True))
    assert tied.matmul_flops(length=5) == model.matmul_flops(length=5)


def test_flops_of_positions_nobody_asks_for_are_keys_and_values_in_the_last_block():
    model = Transformer(ModelConfig(vocab=10, width=8, layers=2, heads=2, hidden=16))
    q_out_mlp, kv = 2 * 8 * 8 + 3 * 8 * 16, 2 * 8 * 8
    first, last = q_out_mlp + kv, q_out_mlp + 10 * 8
    assert model.matmul_flops(length=5, asked=0.0) == 2 * (first + kv) + 4 * 5 * 8
    assert model.matmul_flops(length=5, asked=0.25) == 2 * (first + kv) + 4 * 5 * 8 + (2 * last + 4 * 5 * 8) // 4
