"""Objectives on given predictions: published losses token by token, prompts, packing, and what a loss is divided by.

`tests/data_files/published_losses.safetensors`: from LLaDA's GUIDELINES.md and MDLM's code run on small models,
the cross-entropy of every token, the uniforms and times that were drawn, and the losses that came out.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unmask.data.packing import Batch
from unmask.layout import Whole
from unmask.noise.draws import seeded
from unmask.noise.schedule import Linear, LogLinear
from unmask.noise.tokens import Masking
from unmask.objectives.masked import MaskedBound
from unmask.objectives.next_token import NextToken
from unmask.objectives.objective import places_of, shared_out

MASK = 310
PUBLISHED = load_file(Path(__file__).parents[1] / "data_files" / "published_losses.safetensors")


@dataclass
class Costs:
    nll: torch.Tensor

    def cross_entropy(self, targets, weights):
        return (weights * self.nll).sum(), self.nll


class Given(nn.Module):
    """A denoiser whose cross-entropy is known beforehand (B, L); it keeps what it was shown."""

    mask_id, echo = MASK, None

    def __init__(self, nll):
        super().__init__()
        self.nll = nll

    def forward(self, x, t=None, *, places=None, where=None):
        self.shown, self.where = x, where
        return Costs(self.nll[:, : x.shape[1]][where])


class Replayed:
    """The uniforms of a published run, which masks where u < p; ours where u >= alpha."""

    def __init__(self, u):
        self.u, self.generator = u.double(), torch.Generator()

    def uniform(self, like, symbols=None):
        return 1 - self.u


@dataclass(frozen=True)
class At(Whole):
    t: torch.Tensor = None

    def levels(self, places, rng):
        return self.t[:, :1].double()


def batch_of(tokens, scored=None, documents=None):
    documents = torch.zeros_like(tokens) if documents is None else documents
    scored = documents >= 0 if scored is None else scored
    return Batch(tokens, documents, torch.arange(tokens.shape[1]).expand(tokens.shape), scored)


def published(case):
    return {name.removeprefix(case + "."): t for name, t in PUBLISHED.items() if name.startswith(case + ".")}


def replay(case, schedule, t, scored, **options):
    process = Masking.over(400, MASK, schedule)
    denoiser = Given(case["nll"])
    batch = batch_of(case["input_ids"], scored)
    loss = MaskedBound(process, At(t=t), masks="independent", **options)(denoiser, batch, Replayed(case["u"]))
    assert torch.equal(denoiser.where, case["masked"] & scored)
    assert torch.equal(denoiser.shown == MASK, case["masked"] & scored)
    weights = MaskedBound(process, masks="independent").masks_at(t[:, :1].double(), batch, Replayed(case["u"]))[1]
    torch.testing.assert_close(
        (weights * case["nll"])[denoiser.where], case["token_loss"][denoiser.where], rtol=1e-5, atol=0
    )
    return loss


def test_lladas_pretraining_loss():
    case = published("llada_pretrain")
    loss = replay(case, Linear(), case["p_mask"], torch.ones(3, 32, dtype=torch.bool))
    torch.testing.assert_close(loss.total / loss.count, case["loss"])


def test_lladas_tuning_loss():
    """Prompts stay, every answer counts alike: eq. 5 as GUIDELINES.md has it."""
    case = published("llada_sft")
    scored = torch.arange(32) >= case["prompt_lengths"][:, None]
    loss = replay(case, Linear(), case["p_mask"], scored, per="answer")
    assert loss.count == 3
    torch.testing.assert_close(loss.total / loss.count, case["loss"])


def test_mdlms_loss():
    case = published("mdlm")
    loss = replay(case, LogLinear(1e-3), case["t"][:, None].expand(3, 32), case["scored"])
    torch.testing.assert_close(loss.total / loss.count, case["loss"])


@pytest.mark.parametrize("masks", ["independent", "counted"])
def test_prompts_and_padding_are_shown_and_cost_nothing(masks):
    tokens = torch.arange(40).view(4, 10)
    documents = torch.zeros_like(tokens)
    documents[:, 8:] = -1
    scored = (torch.arange(10) >= 3) & (documents == 0)
    nll = torch.where(scored, 1.0, torch.nan)
    objective = MaskedBound(Masking.over(400, MASK), masks=masks)
    for seed in range(20):
        denoiser = Given(nll)
        loss = objective(denoiser, batch_of(tokens, scored, documents), seeded(seed))
        assert loss.total.isfinite()
        assert loss.count == 20
        assert torch.equal(denoiser.shown[~scored], tokens[~scored])
        assert not denoiser.where[~scored].any()


@pytest.mark.parametrize("masks", ["independent", "counted"])
def test_a_batch_with_nothing_to_score(masks):
    batch = batch_of(torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.bool))
    loss = MaskedBound(Masking.over(400, MASK), masks=masks)(Given(torch.ones(2, 5)), batch, seeded(0))
    assert (float(loss.total), loss.count) == (0.0, 0)


def test_with_one_token_scored_the_bound_is_exact():
    """n = 1 leaves one count, k = 1, weighing 1: nothing is left to chance."""
    scored = torch.zeros(3, 6, dtype=torch.bool)
    scored[:, 4] = True
    nll = torch.rand(3, 6)
    batch = batch_of(torch.zeros(3, 6, dtype=torch.int64), scored)
    loss = MaskedBound(Masking.over(400, MASK), masks="counted")(Given(nll), batch, seeded(0))
    torch.testing.assert_close(loss.total, nll[:, 4].sum())


@pytest.mark.parametrize("masks", ["independent", "counted"])
def test_every_answer_has_the_same_say(masks):
    """Two documents a row, of other lengths: with cost 1 a token the mean loss of each document is 1."""
    documents = torch.tensor([[0] * 2 + [1] * 6 + [-1] * 2]).expand(64, -1)
    batch = batch_of(torch.zeros(64, 10, dtype=torch.int64), documents=documents)
    objective = MaskedBound(Masking.over(400, MASK), masks=masks, per="answer")
    assert shared_out(torch.ones(64, 10), batch, "answer")[0, 1:3].tolist() == [1 / 2, torch.tensor(1 / 6).item()]
    assert objective.count(batch) == 128
    for document in (0, 1):
        nll = (documents == document).float()
        means = torch.stack([objective(Given(nll), batch, seeded(s)).total / 64 for s in range(80)])
        assert abs(means.mean() - 1) < 4 * means.std() / 80**0.5 + 1e-3


def test_short_batches_are_cut_as_often_as_asked_and_count_for_the_whole():
    batch = batch_of(torch.zeros(4, 50, dtype=torch.int64))
    widths = []
    for seed in range(400):
        denoiser = Given(torch.ones(4, 50))
        loss = MaskedBound(Masking.over(400, MASK), masks="counted", short=0.25)(denoiser, batch, seeded(seed))
        assert loss.count == 200
        torch.testing.assert_close(loss.total, torch.tensor(200.0))  # n / k times k tokens of cost 1, scaled up
        widths.append(denoiser.shown.shape[1])
    cut = torch.tensor(widths) < 50
    assert abs(cut.float().mean() - 0.25) < 4.5 * (0.1875 / 400) ** 0.5
    assert len(set(widths)) > 30


def test_next_token_asks_for_what_is_scored():
    batch = batch_of(torch.zeros(2, 6, dtype=torch.int64), torch.tensor([[False, True, True, False, True, False]] * 2))
    nll = torch.rand(2, 6)
    loss = NextToken()(Given(nll), batch, seeded(0))
    torch.testing.assert_close(loss.total, nll[batch.scored].sum())
    assert loss.count == NextToken().count(batch) == 6


def test_documents_are_dropped_only_where_a_row_is_one():
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    assert places_of(batch_of(tokens)).document is None
    for documents in ([[0, 0, 1, 1]], [[0, 0, 0, -1]]):
        assert places_of(batch_of(tokens, documents=torch.tensor(documents))).document is not None
