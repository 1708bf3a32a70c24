"""The judge's nats are the chain rule's, whoever wrote the text and however it is batched."""

import math

import pytest
import torch
from untrained import reader

from unmask.data.tokenizer import train_bpe
from unmask.denoiser import Denoiser, NextToken
from unmask.errors import UserError
from unmask.evaluation.judge import Judge, Verdict
from unmask.evaluation.likelihood import Exact, FixedCount, Score
from unmask.models.attention import Causal

TEXT = "the cat sat on the mat, and the dog sat on the cat"


@pytest.fixture(scope="module")
def judge() -> Judge:
    net, spelling = reader(context=24)
    denoiser = Denoiser(net, mask_id=spelling.mask_id, rule=Causal(), head=NextToken(spelling.eos_id))
    return Judge("small", denoiser, spelling, Exact(), batch=2)


@pytest.fixture(scope="module")
def spelling(judge):
    return judge.tokenizer


def by_hand(judge: Judge, given: list[int], text: list[int]) -> float:
    mu = judge.denoiser(torch.tensor([[*given, *text]])).mu().detach()
    return -sum(float(mu[len(given) + i, token]) for i, token in enumerate(text))


def test_nats_are_the_chain_rule_after_what_is_given(judge, spelling):
    ids = spelling.encode_plain(TEXT)
    pairs = [(ids[:5], ids[5:9]), ([], ids[:3]), (ids[:2], ids[2:20])]
    for (given, text), score in zip(pairs, judge(pairs, spelling)):
        assert score.nats == pytest.approx(by_hand(judge, given, text), rel=1e-5)
        assert (score.tokens, score.bytes, score.exact) == (len(text), len(text), True)


def test_what_is_given_loses_its_beginning_where_it_is_too_long(judge, spelling):
    ids = spelling.encode_plain(TEXT)
    [score] = judge([(ids[:30], ids[30:40])], spelling)
    assert score.nats == pytest.approx(by_hand(judge, ids[16:30], ids[30:40]), rel=1e-5)


def test_a_text_longer_than_the_context_is_refused(judge, spelling):
    with pytest.raises(UserError, match="25 tokens exceeds its context of 24"):
        judge([([], spelling.encode_plain(TEXT)[:25])], spelling)


def test_another_vocabulary_is_read_as_text(judge, spelling):
    """A writer of whole words: the same letters, in the judge's own tokens."""
    writer = train_bpe([TEXT] * 3, vocab_size=300)
    given, text = writer.encode_plain("the cat"), writer.encode_plain(" sat on")
    assert len(text) < len(" sat on")
    [score] = judge([(given, text)], writer)
    [own] = judge([(spelling.encode_plain("the cat"), spelling.encode_plain(" sat on"))], spelling)
    assert score == own


def test_nothing_costs_nothing(judge, spelling):
    assert [s.nats for s in judge([([65], []), ([], [])], spelling)] == [0.0, 0.0]


def test_a_bound_cannot_judge(judge):
    with pytest.raises(UserError, match="only a bound"):
        Judge("masked", judge.denoiser, judge.tokenizer, FixedCount())


def test_a_verdict_is_a_ratio_of_sums():
    scores = [Score(nats, 0.0, tokens, tokens, True) for nats, tokens in ((2.0, 1), (3.0, 3), (7.0, 2))]
    found = Verdict.over(scores)
    assert found.nats == pytest.approx(2.0)
    assert found.perplexity == pytest.approx(math.e**2)
    assert found.bits_per_byte == pytest.approx(2 / math.log(2))
    rest = [2 - 2 * 1, 3 - 2 * 3, 7 - 2 * 2]
    assert found.stderr == pytest.approx(math.sqrt(sum(r * r for r in rest) * 3 / 2) / 6)


def test_its_error_is_the_spread_over_repeated_samples():
    """Of 400 sets of 60 texts: the mean error said is the spread seen."""
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        tokens = torch.randint(1, 30, (60,), generator=rng)
        nats = tokens * 2 + 3 * torch.randn(60, generator=rng) * tokens.sqrt()
        found.append(Verdict.over([Score(float(n), 0.0, int(k), int(k), True) for n, k in zip(nats, tokens)]))
    spread = torch.tensor([v.nats for v in found]).std()
    assert float(torch.tensor([v.stderr for v in found]).mean() / spread) == pytest.approx(1, abs=0.12)


def test_no_text_has_no_verdict():
    assert math.isnan(Verdict.over([Score(0.0, 0.0, 0, 0, True)]).nats)
