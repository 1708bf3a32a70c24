"""No token is lost, repeated or moved across a border, and a saved place leads to the same sequel."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.data.packing import Loader, StreamLoader, TokenStore, windows
from unmask.data.rows import fit
from unmask.errors import UserError

PAD = 9_999_999
few = settings(max_examples=40, deadline=None)
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=25).filter(any)


def numbered(lengths):
    """Documents whose tokens are 0, 1, 2 ... over the whole corpus, so that each token tells its place."""
    start = np.concatenate([[0], np.cumsum(lengths)])
    return [list(range(a, b)) for a, b in itertools.pairwise(start.tolist())]


def store_of(lengths):
    return TokenStore.from_documents(numbered(lengths))


def make(store, **changes):
    return Loader(store, **{"length": 8, "batch": 3, "seed": 5, "pad_id": PAD, **changes})


def take(loader, n):
    return torch.cat([next(loader).tokens for _ in range(n)])


def pieces(batch):
    """(tokens, positions) of each piece of each row, in order."""
    for tokens, documents, positions in zip(batch.tokens, batch.documents, batch.positions):
        for piece in range(int(documents.max()) + 1):
            inside = documents == piece
            yield tokens[inside].tolist(), positions[inside].tolist()


@few
@given(sizes, st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_every_token_of_an_epoch_comes_once(lengths, length, seed, pack):
    store = store_of(lengths)
    loader = make(store, length=length, seed=seed, batch=1, pack=pack)
    for _ in range(2):
        tokens = take(loader, loader.rows_per_epoch).flatten()
        assert sorted(tokens[tokens != PAD].tolist()) == list(range(store.n_tokens))
        loader.epoch, loader._row, loader._part = loader.epoch + 1, 0, None


@few
@given(sizes, st.integers(1, 12), st.integers(0, 3))
def test_rows_are_stretches_of_documents_with_padding_at_the_end_only(lengths, length, seed):
    store = store_of(lengths)
    loader = make(store, length=length, seed=seed, batch=1)
    for _ in range(loader.rows_per_epoch):
        batch = next(loader)
        assert batch.tokens.shape == (1, length)
        padding = batch.documents[0] == -1
        assert torch.equal(padding, batch.tokens[0] == PAD)
        assert torch.equal(padding.int(), padding.int().sort().values)
        assert torch.equal(batch.scored[0], ~padding)
        assert batch.n_scored == int((~padding).sum())
        for tokens, positions in pieces(batch):
            assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
            assert positions == list(range(len(tokens)))
            owner = np.searchsorted(store.offsets, [tokens[0], tokens[-1]], side="right")
            assert owner[0] == owner[1]


@few
@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 30))
def test_fit_never_overfills_and_never_leaves_two_rows_that_would_fit_in_one(lengths, capacity):
    rows = fit(np.array(lengths, dtype=np.int64), capacity)
    load = np.bincount(rows, weights=lengths) if lengths else np.zeros(0)
    assert (load > 0).all()
    assert (load <= capacity).all()
    assert len(load) < 2 or np.sort(load)[:2].sum() > capacity


def test_packing_wastes_almost_nothing_and_is_fast_on_many_documents():
    lengths = np.random.default_rng(0).integers(20, 180, 20_000)
    store = TokenStore(np.zeros(lengths.sum(), np.int32), np.concatenate([[0], np.cumsum(lengths)]))
    assert make(store, length=1024).rows_per_epoch < 1.01 * store.n_tokens / 1024


def test_one_long_document_gives_other_windows_each_epoch():
    loader = make(store_of([1000]), length=64, batch=1)
    starts = []
    for epoch in range(4):
        loader.epoch, loader._row, loader._part = epoch, 0, None
        rows = [next(loader) for _ in range(loader.rows_per_epoch)]
        full = [row.tokens[0, 0].item() for row in rows if row.n_scored == 64 and row.documents.max() == 0]
        starts.append(full[0] % 64)
    assert len(set(starts)) > 1


def test_order_depends_on_seed_and_epoch_and_on_nothing_else():
    store = store_of([30, 3, 7, 50, 1, 8])
    torch.manual_seed(0)
    np.random.seed(0)
    first = take(make(store), 10)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(first, take(make(store), 10))
    assert not torch.equal(first, take(make(store, seed=6), 10))
    n = make(store).rows_per_epoch
    rows = take(make(store, batch=1), 2 * n)
    assert not torch.equal(rows[:n], rows[n:])


def stream_of(lengths, **changes):
    return StreamLoader(
        lambda: iter(numbered(lengths)), **{"length": 8, "batch": 3, "seed": 5, "pad_id": PAD, "buffer": 4, **changes}
    )


LENGTHS = [30, 3, 7, 50, 1, 8, 2, 2, 19]
KINDS = {
    "store": lambda **changes: make(store_of(LENGTHS), **changes),
    "stream": lambda **changes: stream_of(LENGTHS, **changes),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_before", [0, 1, 4, 5, 6, 7, 13, 29])
def test_resuming_gives_the_undisturbed_sequel(kind, n_before):
    loader = KINDS[kind]()
    take(loader, n_before) if n_before else None
    state = json.loads(json.dumps(loader.state_dict()))
    other = KINDS[kind]()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert torch.equal(take(loader, 20), take(other, 20))
    assert loader.epoch > 0
    assert loader.state_dict() == other.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_used_loader_can_go_back(kind):
    loader = KINDS[kind]()
    state = loader.state_dict()
    first = take(loader, 9)
    loader.load_state_dict(state)
    assert torch.equal(first, take(loader, 9))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_together_see_the_order_of_one_process(kind, world):
    single = take(KINDS[kind](batch=2 * world), 12)
    ranks = [KINDS[kind](batch=2, rank=rank, world=world) for rank in range(world)]
    shards = [take(loader, 12) for loader in ranks]
    assert torch.equal(torch.stack(shards, dim=1).flatten(0, 1), single)
    assert len({json.dumps(loader.state_dict()) for loader in ranks}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_batches_across_the_epoch_border_are_full_and_lose_nothing(kind):
    rows = take(KINDS[kind](batch=1), 120)
    assert torch.equal(rows, take(KINDS[kind](batch=5), 24))
    seen = np.bincount(rows[rows != PAD].numpy())
    assert len(seen) == sum(LENGTHS)
    assert seen.max() - seen.min() <= 1


def test_a_corpus_smaller_than_a_batch_repeats():
    batch = next(make(store_of([3]), batch=4))
    assert batch.tokens[:, :3].tolist() == [[0, 1, 2]] * 4


def test_documents_can_stay_whole():
    store = store_of([5, 5, 8, 2, 3])
    loader = make(store, keep_whole=True, batch=1)
    found = [tokens for _ in range(loader.rows_per_epoch) for tokens, _ in pieces(next(loader))]
    assert sorted(found) == numbered([5, 5, 8, 2, 3])


def test_a_document_too_long_to_stay_whole_is_an_error_that_names_options_that_exist():
    with pytest.raises(UserError, match=r"length: 8 is shorter than 1 of 2 documents.*9 or more.*data\.whole=false"):
        make(store_of([5, 9]), keep_whole=True)


def test_a_sample_of_windows_is_spread_over_the_whole_store():
    store = store_of([1000])
    every = [row for batch in windows(store, 10) for row in batch.tokens.tolist()]
    some = [row for batch in windows(store, 10, batch=3, most=7) for row in batch.tokens.tolist()]
    assert [every.index(row) for row in some] == [7, 21, 35, 50, 64, 78, 92]
    assert [row for batch in windows(store, 10, most=500) for row in batch.tokens.tolist()] == every


def test_without_packing_each_row_is_one_piece():
    loader = make(store_of([2, 3, 4]), pack=False)
    assert next(loader).documents.max() == 0
    assert loader.rows_per_epoch == 3


def test_scored_flags_travel_with_their_tokens():
    documents = [(ids, [i % 3 == 0 for i in ids]) for ids in numbered([5, 20, 3])]
    loader = make(TokenStore.from_documents(documents), batch=4)
    batch = next(loader)
    assert torch.equal(batch.scored, (batch.tokens % 3 == 0) & (batch.documents >= 0))
    assert batch.n_scored == int(batch.scored.sum())


def test_store_counts_and_refuses_a_mixture(tmp_path):
    store = TokenStore.from_documents([([1, 2], [True, False]), ([], []), ([3], [True])])
    assert (store.n_tokens, store.n_documents, store.tokens.dtype) == (3, 2, np.int32)
    store.save(tmp_path / "corpus.npz")
    again = TokenStore.load(tmp_path / "corpus.npz")
    assert again.tokens.tolist() == [1, 2, 3]
    assert again.offsets.tolist() == [0, 2, 3]
    assert again.scored.tolist() == [True, False, True]
    store_of([2]).save(tmp_path / "plain.npz")
    assert TokenStore.load(tmp_path / "plain.npz").scored is None
    with pytest.raises(ValueError, match="all documents or none"):
        TokenStore.from_documents([([1, 2], [True, False]), [3]])
    with pytest.raises(ValueError, match="one for each token"):
        TokenStore.from_documents([([1, 2], [True])])


def test_a_pair_of_ids_is_a_document_and_not_a_pair_of_lists():
    assert TokenStore.from_documents([(1, 2), np.array([3, 4])]).tokens.tolist() == [1, 2, 3, 4]


@few
@given(sizes, st.integers(1, 12), st.integers(1, 4))
def test_windows_are_the_corpus_in_order(lengths, length, n_rows):
    store = store_of(lengths)
    batches = list(windows(store, length, batch=n_rows, pad_id=PAD))
    tokens = torch.cat([batch.tokens for batch in batches]).flatten()
    assert tokens[: store.n_tokens].tolist() == list(range(store.n_tokens))
    assert (tokens[store.n_tokens :] == PAD).all()
    assert len(tokens) - store.n_tokens < length
    assert sum(batch.n_scored for batch in batches) == store.n_tokens
    plain = torch.cat([batch.tokens for batch in windows(range(store.n_tokens), length, pad_id=PAD)]).flatten()
    assert torch.equal(plain, tokens)


def test_windows_tell_documents_apart():
    batch = next(windows(store_of([3, 6]), 5, batch=2, pad_id=PAD))
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, -1]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 0]]


def test_moving_a_batch_keeps_its_parts():
    batch = next(make(store_of([9, 4])))
    moved = batch.to("cpu")
    assert torch.equal(moved.tokens, batch.tokens)
    assert (batch.tokens.dtype, batch.documents.dtype, batch.positions.dtype) == (torch.int64,) * 3
    assert batch.scored.dtype == torch.bool


def test_a_finite_stream_starts_again_in_another_order():
    rows = take(stream_of([8] * 6, batch=1), 12)
    assert sorted(rows[:6].tolist()) == sorted(rows[6:].tolist())
    assert rows[:6].tolist() != rows[6:].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length: 0 is not possible"),
        ({"batch": 0}, "batch: 0 is not possible"),
        ({"rank": 2, "world": 2}, "rank: 2 is outside 0 to 1"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_impossible_settings_are_named(kind, changes, message):
    with pytest.raises(UserError, match=message):
        KINDS[kind](**changes)


def test_an_empty_corpus_and_an_empty_stream_are_errors():
    with pytest.raises(UserError, match="holds no tokens"):
        make(TokenStore.from_documents([]))
    for lengths in ([], [0, 0, 0, 0, 0]):
        with pytest.raises(UserError, match="the stream holds no tokens"):
            next(stream_of(lengths))


def test_a_state_of_other_data_is_refused():
    state = make(store_of(LENGTHS)).state_dict()
    with pytest.raises(UserError, match="seed: the saved data state has 5 but this run has 6"):
        make(store_of(LENGTHS), seed=6).load_state_dict(state)
    with pytest.raises(UserError, match="n_tokens"):
        make(store_of([40])).load_state_dict(state)
