"""Block diffusion's, dllm's and Dream's losses token by token, from the uniforms and times that were drawn there.

`objective/weights.safetensors` holds what BD3-LM's and dllm's code gave on small random models: the cross-entropy of
every token, and the weighted losses.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_masked import Given, Replayed, batch_of

from unmask.layout import Blocks
from unmask.methods.dream import Dream
from unmask.methods.masked_lm import MaskedLM
from unmask.methods.method import Symbols
from unmask.noise.draws import seeded
from unmask.noise.schedule import Linear, Polynomial
from unmask.noise.tokens import Masking
from unmask.objectives.context import ContextAdaptive, context_weights
from unmask.objectives.masked import MaskedBound

PUBLISHED = load_file(Path(__file__).parents[1] / "data_files" / "objective" / "weights.safetensors")


def published(case):
    return {name.removeprefix(case + "."): x for name, x in PUBLISHED.items() if name.startswith(case + ".")}


@dataclass(frozen=True)
class At(Blocks):
    """Blocks at given times (B, L), one a block."""

    t: torch.Tensor = None

    def levels(self, places, rng):
        return self.t[:, :: self.size].double()


class Shown(Given):
    """The noisy half of a doubled text is what is asked of."""

    def forward(self, x, t=None, *, places=None, where=None):
        length = self.nll.shape[1]
        assert not where[:, length:].any()
        return super().forward(x[:, :length], t, places=places, where=where[:, :length])


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize(
    ("suffix", "schedule"), [("", Linear()), ("_square", Polynomial(2.0)), ("_square_root", Polynomial(0.5))]
)
def test_bd3lms_loss(size, suffix, schedule):
    case, mask = published(f"bd3lm_bs{size}"), 256
    masked = case["xt" + suffix] == mask
    nll = torch.where(masked, case["token_loss" + suffix] / case["loss_scale" + suffix], 0.0).neg()
    denoiser = Shown(nll)
    denoiser.mask_id = mask
    batch = batch_of(case["x0"], case["attention_mask"].bool())
    objective = MaskedBound(Masking.over(257, mask, schedule), At(size, case["t"]), masks="independent")
    loss = objective(denoiser, batch, Replayed(case["u"]))
    assert torch.equal(denoiser.where, masked & batch.scored)
    torch.testing.assert_close(loss.total / loss.count, case["loss" + suffix], rtol=1e-5, atol=0)
    _, weights = objective.masks_at(case["t"][:, ::size].double(), batch, Replayed(case["u"]))
    torch.testing.assert_close(weights, -case["loss_scale" + suffix], rtol=1e-5, atol=0)
    if not suffix:
        torch.testing.assert_close(nll[masked], case["nll"][masked], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("case", "weighting"),
    [("llada", "scheduler_token"), ("dream", "scheduler_token"), ("dream", "cart_geo_p_0.3_token")],
)
def test_dllms_losses(case, weighting):
    """Its scheduler weight has 1e-6 in the denominator; the cross-entropies of Dream are read one place to the left."""
    name, data = case, published(f"dllm_{case}_sft")
    mask = {"llada": 310, "dream": 315}[name]
    denoiser = Given(data["nll"])
    denoiser.mask_id = mask
    batch = batch_of(data["input_ids"], data["maskable"].bool())
    bound = MaskedBound(Masking.over(320, mask), masks="independent")
    options = {"nearness": 0.3} if "cart" in weighting else None
    objective = ContextAdaptive(**vars(bound), **options) if options else bound
    masked, weights = objective.masks_at(data["t"][:, None].double(), batch, Replayed(data["u_mask"]))
    assert torch.equal(masked, data["noised_input_ids"] == mask)
    expected = data["weighted_token_nll_" + weighting]
    torch.testing.assert_close((weights * data["nll"])[masked], expected[masked], rtol=1e-5, atol=1e-6)
    total = (weights * data["nll"])[masked].sum() / batch.n_scored
    torch.testing.assert_close(total, data["loss_" + weighting], rtol=1e-5, atol=0)


def test_another_documents_tokens_are_no_context():
    masked = torch.rand(2, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    documents = torch.tensor([[0] * 5 + [1] * 7, [0] * 8 + [-1] * 4])
    weights = context_weights(masked, documents, 0.2)
    alone = context_weights(masked[:1, 5:], torch.zeros(1, 7, dtype=torch.int64), 0.2)
    torch.testing.assert_close(weights[:1, 5:], alone)
    alone = context_weights(masked[1:, :8], torch.zeros(1, 8, dtype=torch.int64), 0.2)
    torch.testing.assert_close(weights[1:, :8], alone)


def test_what_is_measured_is_the_honest_bound():
    """The loss of BERT is a mean over the masked tokens of one ratio; its score, like Dream's, is the masked bound."""
    symbols, batch = Symbols(400, 310, 0), batch_of(torch.zeros(4, 40, dtype=torch.int64))
    nll = torch.rand(4, 40)
    for method in (MaskedLM(), Dream(), MaskedLM(ratio=0.5)):
        assert not method.estimator(8).exact
        assert type(method.estimator(8)).__name__ == "FixedCount"
    denoiser = Given(nll)
    loss = MaskedLM(ratio=0.2).objective(symbols)(denoiser, batch, seeded(0))
    assert denoiser.where.sum(1).tolist() == [8] * 4
    torch.testing.assert_close(loss.total / loss.count, nll[denoiser.where].mean())
