"""Counter-based uniforms are uniform and keyed by what they say alone; drawing never picks the impossible."""

import pytest
import torch
from scipy import stats

from unmask.noise.draws import FromCounters, FromGenerator, categorical, seeded


def counters(seeds, length):
    seeds = torch.as_tensor(seeds)
    return FromCounters(seeds, torch.arange(length).expand(len(seeds), length))


def like(rows, length):
    return torch.zeros(rows, length, dtype=torch.int64)


def looks_uniform(u, bins=50):
    assert ((u > 0) & (u < 1)).all()
    counts = torch.histc(u.flatten().float(), bins, 0, 1)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("seeds", [range(64), range(1 << 40, (1 << 40) + 64), [7 * 2**55 + i for i in range(64)]])
def test_counters_are_uniform_and_uncorrelated(seeds):
    draws = counters(list(seeds), 200)
    first, second = draws.uniform(like(64, 200)), draws.uniform(like(64, 200))
    draws.begin(1)
    third = draws.uniform(like(64, 200))
    for u in (first, second, third):
        looks_uniform(u)
    pairs = [(first, second), (first, third), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])]
    for a, b in pairs:  # calls, steps, neighbouring seeds, neighbouring positions
        r = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(r) < 4.5 / a.numel() ** 0.5


def test_counters_over_symbols_are_uniform():
    u = counters(range(8), 20).uniform(like(8, 20), 300)
    assert u.shape == (8, 20, 300)
    assert u.dtype == torch.float64
    looks_uniform(u)
    assert u.unique().numel() == u.numel()


def test_a_row_gets_its_numbers_whatever_the_batch():
    together, alone = counters([3, 4, 5], 10), counters([4], 10)
    together.begin(7), alone.begin(7)
    for _ in range(2):
        assert torch.equal(together.uniform(like(3, 10))[1:2], alone.uniform(like(1, 10)))
        assert torch.equal(together.uniform(like(3, 10), 6)[1:2], alone.uniform(like(1, 10), 6))


def test_a_position_gets_its_numbers_wherever_its_column():
    whole = counters([9], 10).uniform(like(1, 10))
    part = FromCounters(torch.tensor([9]), torch.arange(4, 8)[None]).uniform(like(1, 4))
    assert torch.equal(whole[:, 4:8], part)


def test_begin_opens_a_step_again_and_takes_one_step_a_row():
    draws = counters([1, 2], 5)
    draws.begin(3)
    once = draws.uniform(like(2, 5))
    draws.uniform(like(2, 5))
    draws.begin(3)
    assert torch.equal(draws.uniform(like(2, 5)), once)
    draws.begin(torch.tensor([3, 4]))
    mixed = draws.uniform(like(2, 5))
    assert torch.equal(mixed[0], once[0])
    assert not torch.equal(mixed[1], once[1])


def test_counters_refuse_another_shape():
    with pytest.raises(AssertionError, match="keyed"):
        counters([1], 5).uniform(like(1, 4))


def test_a_generator_is_keyed_by_all_its_integers():
    first = [seeded(*key).uniform(like(1, 4)) for key in [(1, 2), (2, 1), (1, 2, 0), (1,), (0, 1, 2)]]
    assert torch.equal(seeded(1, 2).uniform(like(1, 4)), first[0])
    assert len({tuple(u.flatten().tolist()) for u in first}) == len(first)


def test_a_generator_gives_open_uniforms_of_the_asked_shape():
    u = FromGenerator(torch.Generator().manual_seed(0)).uniform(like(50, 80), 7)
    assert u.shape == (50, 80, 7)
    looks_uniform(u)


@pytest.mark.parametrize("u", [2.0**-54, 0.5, 1 - 2.0**-53])
def test_what_is_impossible_is_never_drawn(u):
    probs = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [2.0, 0.0, 0.0, 0.0, 0.0]])
    drawn = categorical(probs, torch.full((3,), u, dtype=torch.float64))
    assert (probs.gather(1, drawn[:, None]) > 0).all()


def test_impossible_symbols_survive_a_random_search():
    rng = torch.Generator().manual_seed(0)
    probs = torch.rand(20_000, 30, generator=rng) * (torch.rand(20_000, 30, generator=rng) < 0.2)
    probs[:, 7] += 1e-12  # so that none is empty
    ends = torch.tensor([2.0**-54, 1 - 2.0**-53], dtype=torch.float64)
    for u in (ends[0].expand(20_000), ends[1].expand(20_000), FromGenerator(rng).uniform(like(20_000, 1))[:, 0]):
        assert (probs.gather(1, categorical(probs, u)[:, None]) > 0).all()


def test_categorical_draws_in_proportion():
    weights = torch.tensor([1.0, 0.0, 3.0, 6.0])
    u = FromGenerator(torch.Generator().manual_seed(1)).uniform(like(20_000, 1))[:, 0]
    counts = torch.bincount(categorical(weights.expand(20_000, 4), u), minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]].numpy(), [2000, 6000, 12000]).pvalue > 1e-4
