"""`unmask bench`: what is counted is right, writers take turns, wrong input is one sentence."""

import json

import pytest
import torch

from command import unmask
from unmask import bench
from unmask.bench import PEER, BenchOptions, of_shape, run, tables
from unmask.decoding.settings import Decoding
from unmask.errors import UserError
from unmask.evaluation.peer import Peer
from unmask.evaluation.speed import Diffusion, Work, race
from unmask.models.config import ModelConfig

CPU = torch.device("cpu")
TINY = ModelConfig(vocab=61, width=32, layers=2, heads=2, hidden=48, qk_norm=False)
PROMPTS = [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(bench.SHAPES, "small", TINY)
    monkeypatch.setattr(bench, "matmul_peak", lambda *_: 1e12)


def cases(**options):
    small = {"prompt": 4, "tokens": 8, "batches": 2, "dtypes": "fp32", "block": 4}
    return {(case.way, case.cache): case for case in run(BenchOptions.of(small | options))}


def writer(**said):
    return Diffusion(*of_shape(TINY, CPU, torch.float32), Decoding(rule="confidence", **said))


def test_passes_queries_and_tokens_are_those_of_the_algorithm():
    found = cases(ways="llada,left_to_right", caches="none,dual")
    none, dual, peer = found["llada", "none"], found["llada", "dual"], found[PEER, "exact"]
    assert (none.speed.tokens, none.speed.work.forwards, none.speed.work.queries) == (16, 8, 2 * 8 * 12)
    assert dual.speed.work.queries == 2 * (2 * 12 + 6 * 4)  # two blocks: a whole pass, then the block alone
    assert (peer.speed.tokens, peer.speed.work.forwards, peer.speed.work.queries) == (16, 8, 2 * (4 + 7))
    assert {case.speed.tokens_per_pass for case in found.values()} == {1.0}
    assert peer.speedup == 1
    assert none.exact
    assert not dual.exact
    assert set(found) == {(PEER, "exact")} | {(w, c) for w in ("llada", "left_to_right") for c in ("none", "dual")}


def test_useful_work_is_counted_where_an_output_is_wanted():
    """One pass over 2 rows of 12 tokens, all 8 open positions asked for: counted by hand."""
    mine = writer(steps=1)
    _, work = mine.write(PROMPTS, 8)
    keys, rest, mlp = 2 * 32 * 32, 2 * 32 * 32, 3 * 32 * 48
    full, last = keys + rest + mlp, 8 / 12 * (rest + mlp)
    pairs = 2 * 12 * 32 * (1 + 8 / 12)
    each = 2 * (full + keys + last + 8 / 12 * 61 * 32) + 2 * pairs
    assert work == Work(1, 24, pytest.approx(24 * each, rel=1e-4))


def test_what_stands_behind_the_end_of_text_is_not_counted():
    texts, _ = writer().write(PROMPTS, 8)
    end = texts[0][3]
    cut, _ = writer(eos_id=end).write(PROMPTS[:1], 8)
    (speed,) = race([writer(eos_id=end)], PROMPTS[:1], 8, CPU)
    assert len(cut[0]) < 8
    assert speed.tokens == len(cut[0])


def test_writers_take_turns():
    seen = []

    class Clock:
        n_bytes = 5

        def __init__(self, name):
            self.name = name

        def write(self, prompts, length):
            seen.append((self.name, length))
            return [[0] * length for _ in prompts], Work(length, length, 0.0)

    speeds = race([Clock("a"), Clock("b")], PROMPTS, 6, CPU, rounds=2)
    assert seen == [("a", 2), ("b", 2), *[("a", 6), ("b", 6)] * 2]
    assert [speed.tokens for speed in speeds] == [12, 12]
    assert speeds[0].tokens_per_pass == 1


def test_the_peer_has_our_shape_and_writes_to_the_end():
    denoiser, _ = of_shape(TINY.model_copy(update={"context": 16}), CPU, torch.float32)
    peer = Peer(denoiser.network, CPU, torch.float32)
    texts, work = peer.write(PROMPTS, 8)
    assert [len(text) for text in texts] == [8, 8]
    assert work.forwards == 8
    assert peer.n_bytes == sum(p.nbytes for p in denoiser.network.parameters())


def test_blocks_that_are_not_looked_beyond_have_an_exact_cache():
    found = cases(ways="confidence", block_causal=4, peer=False)
    assert found["confidence", "exact"].exact
    assert set(found) == {("confidence", "none"), ("confidence", "exact")}
    assert found["confidence", "exact"].speed.work.queries == 2 * (8 + 3 * 4 + 8 + 3 * 4)
    assert found["confidence", "exact"].speedup is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ways": "lada"}, "ways: 'lada' is neither a preset nor a rule"),
        ({"caches": "none,duel"}, "caches: 'duel' is unknown"),
        ({"caches": "exact"}, "cache: exact needs a model that never looks ahead"),
        ({"batches": "1,0"}, "batches"),
        ({"dtypes": "fp8"}, "dtype: 'fp8' is unknown"),
        ({"block": -1}, "block=-1 is not positive"),
        ({"bach": 3}, "bach: no such key"),
        ({"text": "words.txt"}, "random weights read no words"),
        ({"judge": "runs/ar"}, "random weights write no words"),
        ({"model": "nowhere", "block_causal": 4}, "block_causal=4"),
    ],
)
def test_wrong_input_is_one_sentence(options, sentence):
    with pytest.raises(UserError) as caught:
        cases(**options)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_holds_every_case():
    found = list(cases(ways="llada", caches="none").values())
    (table,) = tables(found)
    assert table.row_count == 2
    assert table.title == "float32, batch 2"
    assert json.dumps([case.as_dict() for case in found])


def test_the_command_prints_cases():
    said = ("bench", "prompt=4", "tokens=4", "batches=1", "block=4", "ways=llada", "caches=none")
    done = unmask(*said, "--dtype", "fp32", "--json")
    assert [case["way"] for case in json.loads(done.out)["cases"]] == [PEER, "llada"]
    assert "llada" in unmask(*said, "peer=false").out
    wrong = unmask(*said, "ways=lada")
    assert wrong.code == 2
    assert len(wrong.err.splitlines()) == 1
