"""What is written with a drafter is what the autoregressive model writes without one, whoever drafts."""

import pytest
import torch
from stand_ins import MASK, VOCAB, network

from unmask.decoding.drafting import Drafting, drafters
from unmask.decoding.propose import Proposal
from unmask.decoding.speculate import GREEDY
from unmask.denoiser import Denoiser, NextToken, NextTokenOrBlock, ShiftedLogits
from unmask.draft import Read
from unmask.errors import UserError
from unmask.models.attention import BlockCausal, Causal, CausalContext, Places

PROMPTS = [[1], [4, 2, 7], list(range(11))]
DRAFTERS = {
    "joint": Denoiser(network(5), mask_id=MASK, rule=CausalContext(6), head=NextTokenOrBlock(0)),
    "block": Denoiser(network(6), mask_id=MASK, rule=BlockCausal(4)),
    "shifted block": Denoiser(network(6), mask_id=MASK, rule=BlockCausal(4), head=ShiftedLogits()),
    "masked": Denoiser(network(7), mask_id=MASK),
}


@pytest.fixture(scope="module")
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB - 1, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.6, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def drafting(llama, drafter, proposal=GREEDY, **options):
    return Drafting(lambda: Read(llama), drafter, VOCAB - 1, proposal, **options)


class Alone:
    """Drafts what is never right: the model writes a token a pass."""

    def guess(self, text, most):
        return torch.full((1, VOCAB - 1), -torch.inf).index_fill(1, torch.tensor([0]), 0.0)


@pytest.mark.parametrize("name", DRAFTERS)
def test_greedy_text_is_that_of_generate(llama, name):
    for prompt in PROMPTS:
        said = drafting(llama, drafters(DRAFTERS[name])).write(prompt, 30)
        ids = torch.tensor([prompt])
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 30, "pad_token_id": 0}
        expected = llama.generate(ids, **options)[0, len(prompt) :]
        assert said.tokens == expected.tolist()
        assert sum(said.accepted) + len(said.accepted) == 30 == len(said.sure) == len(said.passes)


@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize("proposal", [Proposal(1.0), Proposal(0.7, top_p=0.9)])
def test_samples_do_not_depend_on_the_drafter(llama, name, proposal):
    for seed, prompt in enumerate(PROMPTS):
        said = drafting(llama, drafters(DRAFTERS[name]), proposal).write(prompt, 30, seed)
        alone = drafting(llama, lambda room: Alone(), proposal).write(prompt, 30, seed)
        assert said.tokens == alone.tokens
        assert said.sure == pytest.approx(alone.sure, abs=1e-5)
        assert said.drafted


def test_a_sample_has_the_models_law(llama):
    """Chi-square of the second token behind a prompt against the model's own probabilities."""
    with torch.no_grad():
        first = llama(torch.tensor([[3]])).logits[0, -1].softmax(-1)
        pairs = llama(torch.tensor([[3, i] for i in range(VOCAB - 1)])).logits[:, -1].softmax(-1)
    law, n = (first[:, None] * pairs).sum(0).double(), 600
    written = drafting(llama, drafters(DRAFTERS["joint"]), Proposal(1.0))
    seen = torch.tensor([written.write([3], 2, seed).tokens[1] for seed in range(n)]).bincount(minlength=VOCAB - 1)
    likely = law * n >= 5
    seen, law = (torch.cat([x[likely].double(), x[~likely].sum()[None].double()]) for x in (seen, law * n))
    freedom = len(law) - 1
    assert ((seen - law) ** 2 / law.clamp(min=1e-9)).sum() < freedom + 4.5 * (2 * freedom) ** 0.5


def test_a_model_that_drafts_for_itself_is_always_right(llama):
    class Itself:
        def guess(self, text, most):
            text = list(text)
            for _ in range(min(most, 5)):
                text.append(int(llama(torch.tensor([text])).logits[0, -1].argmax()))
            return llama(torch.tensor([text])).logits[0, -1 - min(most, 5) : -1].log_softmax(-1)

    said = drafting(llama, lambda room: Itself()).write([1, 2], 24)
    assert said.accepted == said.drafted == [5, 5, 5, 5]


def test_a_text_ends_where_the_model_ends_it(llama):
    whole = drafting(llama, drafters(DRAFTERS["joint"]), Proposal(1.0)).write([1], 40, 3).tokens
    end = whole[17]
    cut = drafting(llama, drafters(DRAFTERS["joint"]), Proposal(1.0), ends=frozenset([end])).write([1], 40, 3)
    assert cut.tokens == whole[: whole.index(end) + 1]


@pytest.mark.parametrize("name", DRAFTERS)
def test_what_is_kept_changes_no_guess(name):
    """A drafter that met the text piece by piece says what one says that meets it now."""
    text = torch.randint(0, MASK, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    begin = drafters(DRAFTERS[name])
    with torch.inference_mode():
        along = begin(48)
        for length in (1, 2, 5, 9, 11, 12, 19, 20, 33):
            said = along.guess(text[:length], 7)
            torch.testing.assert_close(said, begin(48).guess(text[:length], 7))
            assert 1 <= len(said) <= 7


def test_the_joint_drafters_first_guess_is_its_next_token():
    model, text = DRAFTERS["joint"], [3, 1, 4, 1, 5]
    with torch.inference_mode():
        said = drafters(model)(20).guess(text, 6)
        plain = model(torch.tensor([[*text, 0]]), places=Places.of(torch.zeros(1, 6))).mu()[-1]
    torch.testing.assert_close(said[0], plain)


def test_autoregressive_models_do_not_draft():
    with pytest.raises(UserError, match="a token a pass"):
        drafters(Denoiser(network(), mask_id=MASK, rule=Causal(), head=NextToken(0)))
