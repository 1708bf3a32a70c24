"""Self-speculation writes what the model writes left to right: token for token, and above temperature 0 by its law."""

import itertools

import pytest
import torch
from stand_ins import MASK, VOCAB, network

from unmask.decoding.branches import Plan
from unmask.decoding.budget import FURTHEST, Thrift
from unmask.decoding.canvas import Row
from unmask.decoding.drafts import Draft
from unmask.decoding.propose import Proposal
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.decoding.speculate import Speculation
from unmask.denoiser import CleanLogits, Denoiser, NextTokenOrBlock
from unmask.errors import UserError
from unmask.models.attention import CausalContext, Places
from unmask.models.transformer import Transformer
from unmask.noise.tokens import Masking

EOS = 3


def joint(seed=5, size=6):
    return Denoiser(network(seed), mask_id=MASK, rule=CausalContext(size), head=NextTokenOrBlock(0))


def left_to_right(denoiser, prompts, new, **settings):
    rows = [Row.after(prompt, n, seed) for seed, (prompt, n) in enumerate(zip(prompts, new))]
    return [d.tokens for d in decode(denoiser, Masking.over(VOCAB, MASK), rows, Decoding(**settings))]


def cases(n, seed=0):
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 9, (n,), generator=rng).tolist()
    prompts = [torch.randint(0, MASK, (length,), generator=rng).tolist() for length in lengths]
    return prompts, [int(x) for x in torch.randint(1, 26, (n,), generator=rng)]


def thrifty(denoiser, proposal, base, slope, size=6):
    """With a machine on which a pass takes so long, and a token in it; without a size guesses are looked up too."""
    speculation = Speculation(denoiser, proposal, size)
    speculation.budget = Thrift(6, base, slope)
    return speculation


WAYS = [(None, 1), (None, 2), (None, 6), (None, 11), ((1.0, 0.0), 6), ((1.0, 0.1), 6), ((0.0, 1.0), 6)]
WAYS += [((1.0, 0.0), None), ((1.0, 0.1), None)]


@pytest.mark.parametrize(("cost", "size"), WAYS)
@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 0.9)])
def test_token_for_token_the_left_to_right_text(cost, size, temperature, top_p):
    """Prompts of unequal lengths in batches of unequal rows, whatever is drafted, at any temperature: the very text
    that left to right writes with these seeds."""
    proposal, n = Proposal(temperature, top_p), 80 if temperature == 0 else 30
    denoiser, (prompts, new) = joint(), cases(n)
    one = Speculation(denoiser, proposal, size) if cost is None else thrifty(denoiser, proposal, *cost, size)
    said = []
    for start in range(0, n, 30):
        part = slice(start, start + 30)
        said += one.write(prompts[part], new[part], range(n)[part])
    assert [one.tokens for one in said] == left_to_right(denoiser, prompts, new, temperature=temperature, top_p=top_p)
    assert any(sum(one.accepted) for one in said) or size == 1 or cost == (0.0, 1.0)
    assert any(sum(one.looked_up) for one in said) == (size is None)
    for one, n in zip(said, new):
        assert n == sum(one.accepted) + len(one.accepted) == len(one.tokens)
        assert all(0 <= a <= d < (size or 1 + FURTHEST) for a, d in zip(one.accepted, one.drafted))
        assert all(0 <= found <= a for found, a in zip(one.looked_up, one.accepted))
        assert len(one.passes) == n


def test_a_text_ends_where_it_would():
    denoiser, (prompts, new) = joint(), cases(60, seed=1)
    said = Speculation(denoiser, eos_id=EOS).write(prompts, new)
    expected = left_to_right(denoiser, prompts, new, eos_id=EOS)
    assert [[token for token in one.tokens if token != EOS] for one in said] == expected
    assert any(one.tokens[-1] == EOS for one in said)


def test_a_row_does_not_depend_on_its_batch():
    denoiser, (prompts, new) = joint(), cases(12, seed=2)
    speculation = Speculation(denoiser, Proposal(1.0))
    together = speculation.write(prompts, new, list(range(12)))
    for i, one in enumerate(together):
        assert speculation.write([prompts[i]], [new[i]], [i])[0].tokens == one.tokens


def agreeable(size):
    """Random weights whose two readings agree often but not always: three symbols, and a mask that is one of them."""
    denoiser = joint(7, size)
    with torch.no_grad():
        head = denoiser.network.head.weight
        head[3:] = 0
        head[:3] *= 0.4
    return Denoiser(denoiser.network, mask_id=MASK, rule=denoiser.rule, head=denoiser.head, unused=range(3, MASK))


@pytest.mark.parametrize(("size", "temperature"), [(4, 1.0), (3, 0.7)])
def test_the_law_is_the_left_to_right_law(size, temperature):
    """Chi-square of 3000 texts of four tokens against the probabilities that the model itself gives them."""
    denoiser, n, length = agreeable(size), 3000, 4
    texts = torch.tensor(list(itertools.product(range(3), repeat=length)))
    with torch.no_grad():
        logp = (denoiser(texts).logits() / temperature).log_softmax(-1).view(*texts.shape, -1)
    expected = n * logp.gather(-1, texts[..., None])[..., 0].sum(1).exp()
    speculation = Speculation(denoiser, Proposal(temperature), size)
    said = speculation.write([[]] * n, [length] * n, list(range(n)))
    code = (torch.tensor([one.tokens for one in said]) * 3 ** torch.arange(length - 1, -1, -1)).sum(1)
    seen = code.bincount(minlength=len(texts))
    rare = expected < 5
    seen, expected = (torch.cat([x[~rare].double(), x[rare].sum()[None].double()]) for x in (seen, expected))
    chi2, freedom = ((seen - expected) ** 2 / expected.clamp(min=1e-9)).sum(), len(seen) - 1
    assert float(expected.sum()) == pytest.approx(n, rel=1e-5)
    assert chi2 < freedom + 4.5 * (2 * freedom) ** 0.5
    rate = sum(sum(one.accepted) for one in said) / max(1, sum(sum(one.drafted) for one in said))
    assert 0.05 < rate < 0.99  # both verdicts were tested


def test_where_drafts_agree_every_pass_writes_a_block():
    """Where masks say what the text does: size tokens a pass behind the first, which has no draft to check."""
    denoiser = joint()
    with torch.no_grad():
        denoiser.network.head.weight[5] = 0
        for row in denoiser.network.head.weight[:MASK]:
            row.copy_(denoiser.network.head.weight[5])
    [said] = Speculation(denoiser, size=6).write([[1, 2]], [21])
    assert said.tokens == [0] * 21
    assert said.accepted == said.drafted == [0, 5, 5, 5, 1]
    assert said.passes == [0, *[1] * 6, *[2] * 6, *[3] * 6, 4, 4]
    [quick] = thrifty(denoiser, Proposal(), 1.0, 0.01).write([[1, 2]], [21])
    assert quick.tokens == said.tokens
    assert len(quick.accepted) < 10
    assert quick.queries < said.queries


def test_a_pass_says_what_separate_passes_say():
    """Every output of a pass with branches: the trunk's are those of the text alone, a block's those of the text up to
    it and the block behind."""
    denoiser, text = joint(), [0, 3, 1, 4, 1, 5, 9, 2, 6]
    speculation, known, plan = Speculation(denoiser), 5, Plan(3, (4, 0, 2, 3))
    texts, cache = speculation._opened([text[1:known]], [20], [0], plan.queries)
    draft = Draft(torch.tensor([text[known : known + 3]]), [[0] * 3], [[1.0] * 3])
    with torch.inference_mode():
        speculation._first_look(texts, cache, Plan(0, (5,)), draft)
        said = speculation._look(texts, cache, plan, draft)
        expected = []
        for end in range(known, known + 4):
            expected.append(denoiser.network(torch.tensor([text[:end]]), rule=CausalContext())[0, -1:])
        for end, masks in zip(range(known, known + 4), plan.masks):
            places = Places.of(torch.zeros(1, end + masks, dtype=torch.int64))
            places = Places(places.position, None, places.position < end)
            hidden = denoiser.network(torch.tensor([[*text[:end], *[MASK] * masks]]), places, CausalContext())
            expected.append(hidden[0, end + 1 :])
    torch.testing.assert_close(said[0], torch.cat(expected))


def test_only_joint_models_speculate(masked):
    assert isinstance(masked.network, Transformer)
    with pytest.raises(UserError, match="method=joint"):
        Speculation(masked)


def test_it_is_a_rule_that_one_names():
    """Through the sampler: the same text, confidence and end as left to right, in fewer passes; drafts are told."""
    denoiser, (prompts, new) = joint(7), cases(30, seed=4)
    rows = [Row.after(prompt, n) for prompt, n in zip(prompts, new)]
    process = Masking.over(VOCAB, MASK)
    plain = decode(denoiser, process, rows, Decoding(eos_id=EOS))
    quick = decode(denoiser, process, rows, Decoding(rule="self_speculation", eos_id=EOS, block=4))
    for a, b in zip(plain, quick):
        assert (a.tokens, a.canvas, a.finish_reason) == (b.tokens, b.canvas, b.finish_reason)
        assert b.confidence == pytest.approx(a.confidence, abs=1e-5)
        assert [s >= 0 for s in a.settled_at] == [s >= 0 for s in b.settled_at]
        assert b.counts.forwards == len(b.drafts)
    assert sum(b.counts.forwards for b in quick) < sum(a.counts.forwards for a in plain)


def test_what_speculation_cannot_do_is_said():
    process, row = Masking.over(VOCAB, MASK), Row.after([1], 4)
    for settings, word in ((Decoding(rule="self_speculation", steps=9), "steps"),):
        with pytest.raises(UserError, match=word):
            decode(joint(), process, [row], settings)
    with pytest.raises(UserError, match="has a gap"):
        decode(joint(), process, [Row.gaps([1, None, 2])], Decoding(rule="self_speculation"))


def test_a_joint_model_writes_by_blocks_too():
    """The surest token of each block first, every pass as if nothing were known of the one before."""
    size, prompt, new = 4, [1, 2, 5], 7
    denoiser = joint(5, size)
    [done] = decode(denoiser, Masking.over(VOCAB, MASK), [Row.after(prompt, new)], Decoding(rule="confidence"))
    x = [*prompt, *[MASK] * new]
    plain = Denoiser(denoiser.network, mask_id=MASK, rule=CausalContext(), head=CleanLogits())
    for start, end in ((0, 4), (4, 8), (8, 10)):
        while MASK in x[start:end]:
            fed = torch.tensor([[0, *x[:end]]])  # a start token, the text, the block as it stands
            places = Places.of(fed)
            places = Places(places.position, None, places.position <= start)
            with torch.no_grad():
                sure = plain(fed, places=places, where=~places.clean).logits().softmax(-1)
            sure[torch.tensor([token != MASK for token in x[start:end]])] = 0
            best = int(sure.amax(-1).argmax())
            x[start + best] = int(sure[best].argmax())
    assert done.canvas == x
    assert done.counts.forwards == new


def test_a_joint_models_blocks_keep_nothing():
    with pytest.raises(UserError, match="leave cache out"):
        decode(joint(), Masking.over(VOCAB, MASK), [Row.after([1], 4)], Decoding(rule="confidence", cache="exact"))


def test_drafts_are_what_one_gets_without_asking():
    """No block is named: neither the one that a left-to-right model writes in, nor any other, is put in its place."""
    denoiser, process = joint(), Masking.over(VOCAB, MASK)
    [done] = decode(denoiser, process, [Row.after([1, 2, 1, 2], 40, 0)], Decoding(rule="self_speculation"))
    assert sum(guesses for guesses, _, _ in done.drafts) > 0
