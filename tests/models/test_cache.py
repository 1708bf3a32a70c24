"""With a cache the network says what it says without: whoever is fed when, whatever is forgotten in between."""

import random

import pytest
import torch
from small import SWITCHES, network, text

from unmask.denoiser import CleanLogits, Denoiser, NextToken, ShiftedLogits
from unmask.models import attention
from unmask.models import cache as caches
from unmask.models.attention import BlockCausal, Causal, Everything, Places, Visibility

every_switch = pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
every_size = pytest.mark.parametrize("size", [1, 2, 4, 8])


def rule_of(size):
    return Causal() if size == 1 else BlockCausal(size)


def times(model, shape):
    noisy = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    return noisy if model.config.time == "adaln" else None


def stretch(x, start, end):
    """(B, L) bool: positions from start to end, numbers or one a row."""
    at = torch.arange(x.shape[1])
    start, end = (torch.as_tensor(edge).reshape(-1, 1) for edge in (start, end))
    return ((at >= start) & (at < end)).expand(x.shape)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@every_size
@every_switch
@torch.no_grad()
def test_block_by_block_is_a_full_pass(switches, size):
    """Rows in step: the fast path."""
    model, x, rule = network(**switches), text(length=16), rule_of(size)
    t = times(model, x.shape)
    full, cache = model(x, None, rule, t), model.cache(3, 16)
    for start in range(0, 16, size):
        feed = stretch(x, start, start + size)
        close(model(x, None, rule, t, cache=cache, feed=feed), full[feed])
    assert cache.filled.all()


@every_size
@every_switch
@torch.no_grad()
def test_rows_at_different_places_are_a_full_pass(switches, size):
    """Every row starts and goes on in whole blocks of its own; outputs are asked for at some positions."""
    model, x, rule, rng = network(**switches), text(rows=4, length=16), rule_of(size), random.Random(size)
    t = times(model, x.shape)
    full, cache, done = model(x, None, rule, t), model.cache(4, 16), torch.zeros(4, dtype=torch.int64)
    while bool((done < 16).any()):
        ahead = (done + size * torch.tensor([rng.choice([0, 1, 1, 2, 3]) for _ in range(4)])).clamp(max=16)
        feed = stretch(x, done, ahead)
        where = feed & torch.tensor([[rng.random() < 0.6 for _ in range(16)] for _ in range(4)])
        close(model(x, None, rule, t, where, cache=cache, feed=feed), full[where])
        done = ahead


LONG = [(Everything(), 0), (Causal(), 0), (BlockCausal(8), 0), (Causal(), 16), (BlockCausal(8), 16)]


@pytest.mark.parametrize(("rule", "start"), LONG, ids=str)
@torch.no_grad()
def test_a_long_prompt_is_a_full_pass(rule, start):
    """Long enough to be worked off in strips; the second text is shorter, and the first may have begun before."""
    model, x, lengths = network(layers=1), text(rows=2, length=320), torch.tensor([320, 288])
    cache, begun = model.cache(2, 320), torch.tensor([start, 0])
    if start:
        model(x, None, rule, cache=cache, feed=stretch(x, 0, begun))
    feed, padding = stretch(x, begun, lengths), ~stretch(x, 0, lengths)
    close(model(x, None, rule, cache=cache, feed=feed), model(x, Places.of(x, -padding.long()), rule)[feed])


@torch.no_grad()
def test_a_block_written_over_is_as_if_written_once():
    """Noisy first, clean later: slots hold what was fed last."""
    model, x, rule = network(kv_heads=2), text(length=12), BlockCausal(4)
    cache, noisy = model.cache(3, 12), (x + 5) % 36
    model(noisy, None, rule, cache=cache, feed=stretch(x, 0, 8))
    model(x, None, rule, cache=cache, feed=stretch(x, 0, 4))
    both = stretch(x, 4, 12)  # the fused pass: a block that is done and the next
    close(model(x, None, rule, cache=cache, feed=both), model(x, None, rule)[both])


@every_size
@torch.no_grad()
def test_a_rejected_suffix_is_forgotten(size):
    model, x, rule = network(), text(length=16), rule_of(size)
    cache, wrong, kept = model.cache(3, 16), text(length=16, seed=9), torch.tensor([0, 8, 16])
    drafted = torch.where(torch.arange(16) < kept[:, None], x, wrong)
    model(drafted, None, rule, cache=cache)
    cache.truncate(kept)
    assert cache.filled.sum(1).tolist() == kept.tolist()
    rest = ~cache.filled.clone()
    close(model(x, None, rule, cache=cache, feed=rest), model(x, None, rule)[rest])


@torch.no_grad()
def test_what_is_forgotten_or_never_fed_is_not_seen():
    """A bidirectional model on scattered slots sees the text of these slots alone."""
    model, x = network(), text()
    cache, gone = model.cache(3, 12), text(seed=4) % 3 == 0
    model(x, cache=cache)
    cache.forget(gone)
    here = ~gone
    again = model(x, cache=cache, feed=here)
    alone = [model(x[i, here[i]][None], Places(torch.arange(12)[here[i]][None]))[0] for i in range(3)]
    close(again, torch.cat(alone))


@torch.no_grad()
def test_rows_leave_and_change_places():
    model, x, rule = network(kv_heads=1), text(rows=4), Causal()
    cache, index = model.cache(4, 12), torch.tensor([2, 0])
    model(x, None, rule, cache=cache, feed=stretch(x, 0, torch.tensor([3, 6, 5, 9])))
    cache.only(index)
    rest = stretch(x[index], torch.tensor([5, 3]), 12)
    close(model(x[index], None, rule, cache=cache, feed=rest), model(x[index], None, rule)[rest])


@torch.no_grad()
def test_places_are_absolute():
    """A part of a text may be handed over alone, with the positions it stands at."""
    model, x, rule = network(), text(), BlockCausal(4)
    cache = model.cache(3, 12)
    model(x[:, :8], None, rule, cache=cache)
    rest = Places(torch.arange(8, 12).expand(3, 4))
    close(model(x[:, 8:], rest, rule, cache=cache), model(x, None, rule)[:, 8:].flatten(0, 1))


@torch.no_grad()
def test_padding_is_not_fed():
    model, x, document = network(), text(), torch.tensor([[0] * 12, [0] * 7 + [-1] * 5, [0] * 3 + [-1] * 9])
    cache, places = model.cache(3, 12), Places.of(x, document)
    close(model(x, places, Causal(), cache=cache), model(x, places, Causal())[places.real])
    assert torch.equal(cache.filled, places.real)


HEADS = {"own": CleanLogits(), "next": NextToken(0), "shifted": ShiftedLogits()}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@every_size
@torch.no_grad()
def test_heads_read_the_right_output(head, size):
    """One position after the other is asked for, feeding what its output needs and is not kept yet."""
    if isinstance(head, NextToken) and size > 1:
        pytest.skip("reads left to right")
    denoiser = Denoiser(network(), mask_id=36, rule=rule_of(size), head=head)
    x, cache, done = text(), denoiser.network.cache(3, 12), 0
    full = denoiser(x).mu().view(3, 12, -1)
    for position in range(12):
        where = stretch(x, position, position + 1)
        sought = denoiser.sought(where, Places.of(x))
        end = (int(sought.nonzero()[:, 1].max()) // size + 1) * size
        feed = stretch(x, done, max(done, end)) | sought
        close(denoiser(x, where=where, cache=cache, feed=feed).mu(), full[where])
        done = max(done, end)


@torch.no_grad()
def test_no_mask_where_nothing_is_hidden(monkeypatch):
    """A mask costs SDPA its fast kernels: only a block fused with the next one, or unequal rows, need one."""
    seen = []

    def spy(q, k, v, mask, attend=attention.attend_where):
        seen.append((tuple(q.shape[::2]), k.shape[2], mask is not None))
        assert k.untyped_storage().data_ptr() in stored, "attention reads the cache itself, not a copy"
        return attend(q, k, v, mask)

    for module in (attention, caches):
        monkeypatch.setattr(module, "attend_where", spy)
    model, x, rule = network(layers=1), text(length=16), BlockCausal(4)
    cache = model.cache(3, 16)
    stored = {layer.keys.untyped_storage().data_ptr() for layer in cache.layers}
    for feed in (stretch(x, 0, 4), stretch(x, 4, 8), stretch(x, 4, 12), stretch(x, 8, torch.tensor([12, 16, 16]))):
        model(x, None, rule, cache=cache, feed=feed)
    assert seen == [
        ((3, 4), 4, False),
        ((3, 4), 8, False),
        ((3, 8), 12, True),
        ((1, 4), 12, False),
        ((2, 8), 16, True),
    ]


def test_a_cache_keeps_no_gradients():
    model, x = network(), text()
    with pytest.raises(AssertionError, match="no gradients"):
        model(x, cache=model.cache(3, 12))


@torch.no_grad()
def test_wrong_use_is_told_with_numbers():
    model, x = network(), text()
    with pytest.raises(AssertionError, match="position 11 in a cache of 10"):
        model(x, cache=model.cache(3, 10))
    with pytest.raises(AssertionError, match="3 rows, a cache of 2"):
        model(x, cache=model.cache(2, 12))
    with pytest.raises(AssertionError, match="not fed"):
        model(x, where=stretch(x, 0, 3), cache=model.cache(3, 12), feed=stretch(x, 0, 2))


def test_memory_is_linear_in_the_slots():
    model = network(kv_heads=2)
    c = model.config
    for rows, slots in [(1, 10), (3, 10), (3, 4000)]:
        assert model.cache(rows, slots).n_bytes == 2 * c.layers * rows * 2 * slots * c.head_dim * 4


@torch.no_grad()
def test_queries_and_keys_need_not_be_the_same_tokens():
    places = Places.of(text())
    q, k = (Places(places.position[:, part], torch.zeros(3, 4).long()) for part in (slice(4, 8), slice(0, 4)))
    assert Visibility(Everything(), q, Places(k.position), same=False).dense is None
    assert Visibility(BlockCausal(4), q, k, same=False).dense.all()
    assert not Visibility(BlockCausal(4), k, q, same=False).dense.any()
