"""BD3-LM: the loss of text in blocks under every schedule, clipped times, and the law of its sampler."""

from __future__ import annotations

import torch
from references import Recorded, Reference, batch_of, close, network, same
from replay_mdlm import finite, law, strata
from torch import Tensor

from unmask.decoding.propose import Proposal
from unmask.layout import Blocks
from unmask.models.attention import Places
from unmask.noise.schedule import Cosine, Linear, Logarithmic, LogLinear, Polynomial, Schedule, Within
from unmask.noise.tokens import Masking, TokenNoise
from unmask.objectives.masked import MaskedBound
from unmask.published import LoadedDenoiser

EPS = 1e-3
SCHEDULES: dict[str, Schedule] = {
    "": Linear(),
    "_log": Logarithmic(),
    "_square": Polynomial(2.0),
    "_square_root": Polynomial(0.5),
    "_cosine": Within(Cosine(), first=1 - EPS, last=0.0),
}


def bound(case: Reference, schedule: Schedule, **options: tuple[float, float]) -> MaskedBound:
    mask = case.said["mask_id"]
    return MaskedBound(Masking.over(mask + 1, mask, schedule), Blocks(case.said["block_size"]), **options)


def everything(case: Reference) -> None:
    for suffix, schedule in SCHEDULES.items():
        loss(case, suffix, schedule)
    variants(case)
    clipped_times(case)
    redrawn_masks(case)
    steps(case)


def told(denoiser: LoadedDenoiser, rate: Tensor) -> Tensor:
    """The time (...) at which our network is told the noise level of a mask rate."""
    return denoiser.process.schedule.time(1 - rate.double()).clamp(max=1).float()


def said(case: Reference, x0: Tensor, xt: Tensor, rate: Tensor) -> Tensor:
    """log p(x0 | noisy block, clean blocks before it), (B, L, V), the text shown twice. The network is told one level a
    row: there that of the first block, whatever the others have."""
    denoiser, size = network(case.said["model"].removeprefix("models/")), case.said["block_size"]
    t = told(denoiser, rate[:, :1]).expand(x0.shape)
    view = Blocks(size).view(x0, xt, t, Places.of(x0), torch.ones_like(x0, dtype=torch.bool))
    mu = denoiser(view.x, view.t, places=view.places, where=view.where).mu().unflatten(0, x0.shape)
    return denoiser.process.beliefs(xt, mu, t)


def loss(case: Reference, suffix: str, schedule: Schedule) -> None:
    x0, t, scored = case["x0"], case["t"], case["attention_mask"]
    objective, batch = bound(case, schedule), batch_of(x0)
    process, size = objective.process, case.said["block_size"]
    rate = 1 - schedule.alpha(t.double())
    close(rate, case["p" + suffix], atol=2e-7)
    masked, weights = objective.masks_at(t[:, ::size].double(), batch, Recorded(case["u"]))
    same(x0.masked_fill(masked, process.mask_id), case["xt" + suffix])
    # the cosine's weight has its epsilon once more, below the line
    weights = weights * (rate / (rate + EPS)).float() if suffix == "_cosine" else weights
    close(-weights, case["loss_scale" + suffix])
    mu = said(case, x0, case["xt" + suffix], case["p" + suffix])
    costs = weights * Masking.over(process.vocab, process.mask_id).nelbo(
        mu, x0, case["xt" + suffix], torch.ones_like(t)
    )
    close(costs, case["token_loss" + suffix])
    close((costs * scored).sum() / scored.sum(), case["loss" + suffix])
    if not suffix:
        close(mu, finite(case["log_p_theta"]), atol=1e-5)
        denoiser = network(case.said["model"].removeprefix("models/"))
        assert (denoiser.network.time is not None) == case.said["time_conditioning"]
        close(-denoiser.process.schedule.alpha(told(denoiser, case["p"][:, :1])).log(), case["sigma"])


def variants(case: Reference) -> None:
    """Every token alike where only rates above one half are trained at (no bound); a first token that stays; MDLM's
    weights, where the network is told the mean of a row's levels."""
    x0, t, u, scored = (case[name] for name in ("x0", "t", "u", "attention_mask"))
    size, plain, ones = case.said["block_size"], bound(case, Linear()), torch.ones_like(t)
    levels = t[:, ::size].double()

    def costs(masked: Tensor, weights: Tensor, rate: Tensor) -> Tensor:
        xt = x0.masked_fill(masked, plain.process.mask_id)
        return weights * plain.process.nelbo(said(case, x0, xt, rate), x0, xt, ones)

    masked, weights = plain.masks_at(levels, batch_of(x0), Recorded(u))
    found = costs(masked, ones, case["p"])
    close(found, case["token_loss_epsmin0.6"])
    close((found * scored).sum() / scored.sum(), case["loss_epsmin0.6"])
    after_first = torch.arange(x0.shape[1]).expand(x0.shape) > 0
    masked, weights = plain.masks_at(levels, batch_of(x0, after_first), Recorded(u))
    close(costs(masked, weights, case["p"]), case["token_loss_ignore_bos"])
    stops_short = LogLinear(EPS)
    masked, weights = bound(case, stops_short).masks_at(levels, batch_of(x0), Recorded(u))
    mean = stops_short.alpha(t.double()).log().mean(1, keepdim=True).exp()
    close(costs(masked, weights, 1 - mean), case["token_loss_mdlm_loss_scale"])


def clipped_times(case: Reference) -> None:
    """Spread over all blocks of a batch, then squeezed into the interval."""
    u, places = case["sample_t_u"].double(), Places.of(case["x0"])
    for antithetic, levels in ((0, u), (1, strata(u.flatten()).view_as(u))):
        for low, high in ((0.001, 1), (0.3, 0.8), (0.5, 1), (1, 1)):
            objective = bound(case, Linear(), clip=(low, high))
            t = objective.clipped(levels).gather(1, objective.layout.numbers(places))
            close(t, case[f"sample_t_antithetic{antithetic}_{low}_{high}"])


def redrawn_masks(case: Reference) -> None:
    """A block whose share of masks is outside the interval is masked anew. Ours draws the share (masks="counted") and
    has nothing to draw again; here the draw that was taken is the first that fits."""
    x0, size = case["x0"], case.said["block_size"]
    process = bound(case, Linear()).process
    for low, high in ((0.001, 0.6), (0.001, 1), (0.3, 0.8), (0.5, 1)):
        name = f"qxt_{low}_{high}_"
        t = process.schedule.time(1 - case[name + "p"].double())
        draws = torch.stack([process.corrupt(x0, t, Recorded(u)) for u in case[name + "u"]]).unflatten(2, (-1, size))
        share = (draws == process.mask_id).double().mean(3)
        fits = ((share >= low) | (low == 0.001)) & (share <= high)
        assert bool(fits.any(0).all())
        taken = fits.double().argmax(0)[None, :, :, None].expand(-1, -1, -1, size)
        same(draws.gather(0, taken)[0].flatten(1), case[name + "xt"])


def steps(case: Reference) -> None:
    """The last block, from t to t - dt."""
    x, t, dt, size = case["ddpm_x"], case["ddpm_t"].double(), case["ddpm_dt"].double(), case.said["block_size"]
    denoiser = network(case.said["model"].removeprefix("models/"))
    level = told(denoiser, case["ddpm_t"]).expand(x.shape)
    mu = denoiser(x, level).mu().unflatten(0, x.shape)
    mu = denoiser.process.beliefs(x, mu, level)[:, -size:]
    close(mu, finite(case["ddpm_log_p_x0_last_block"]), atol=1e-5)
    noise = TokenNoise(denoiser.process.pi, Linear())
    masked, t = torch.full_like(x[:, -size:], denoiser.mask_id), t.expand(len(x), size)

    def step(mu: Tensor) -> Tensor:
        found = law(noise, masked, mu, t, t - dt)
        return found / found.sum(-1, keepdim=True)

    close(step(mu.double()), case["ddpm_probs"])
    cut = case["ddpm_probs_nucleus0.9"]
    for place in torch.cartesian_prod(torch.arange(len(x)), torch.arange(size)).tolist():
        row, column = place
        close(step(nucleus(mu[row, column], cut[row, column, :-1] > 0))[row, column], cut[row, column])


def nucleus(mu: Tensor, kept: Tensor) -> Tensor:
    """Its nucleus stops before the token that would reach the mass, ours with it (arXiv 1904.09751); the best is always
    in. So ours of the mass it kept is its own, and ours of 0.9 has one token more, or is the best alone."""
    own = Proposal(1.0, top_p=float(mu[:-1][kept].double().exp().sum()) - 1e-6).law(mu[None])[0]
    same(own[:-1].isfinite(), kept)
    usual = Proposal(1.0, top_p=0.9).law(mu[None])[0].isfinite().sum()
    assert int(usual) == (1 if float(mu.max().exp()) >= 0.9 else int(kept.sum()) + 1)
    return own
