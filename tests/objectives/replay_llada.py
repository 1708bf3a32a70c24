"""LLaDA's losses and likelihood, dllm's of LLaDA and Dream, and Dream's weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from references import At, Recorded, Reference, batch_of, close, network, same
from torch import Tensor

from unmask.data.packing import Batch
from unmask.decoding.guidance import guided
from unmask.denoiser import Denoiser
from unmask.noise.schedule import Linear, Schedule, Sine, Within
from unmask.noise.tokens import Masking
from unmask.objectives.context import ContextAdaptive, context_weights
from unmask.objectives.masked import MaskedBound, counted_masks, shown
from unmask.objectives.objective import shared_out


def at_masked(denoiser: Denoiser, batch: Batch, masked: Tensor, weights: Tensor) -> Tensor:
    """What every token costs, (B, L): its weighted cross-entropy where masked."""
    said = shown(denoiser, batch, masked, At())
    _, nll = said.cross_entropy(batch.tokens[masked], weights[masked])
    return torch.zeros(masked.shape).masked_scatter(masked, weights[masked] * nll)


def pretraining(case: Reference) -> None:
    scored = torch.ones_like(case["input_ids"], dtype=torch.bool)
    llada(case, scored, "token", case["token_loss"])


def tuning(case: Reference) -> None:
    """Prompts stay, every answer counts alike; the ends of text that fill it up are part of an answer."""
    scored = torch.arange(case["input_ids"].shape[1]) >= case["prompt_lengths"][:, None]
    same(scored.sum(1), case["answer_lengths"])
    costs = llada(case, scored, "answer", case["token_loss_over_answer_length"])
    batch = batch_of(case["input_ids"], scored)
    close(costs, shared_out(case["token_loss"], batch, "answer"))


def llada(case: Reference, scored: Tensor, per: str, expected: Tensor) -> Tensor:
    """GUIDELINES.md: the mask rate p goes from eps to 1, and a token weighs 1 / p."""
    mask = case.said["mask_id"]
    denoiser, batch = network("llada", mask, lets_the_mask=True), batch_of(case["input_ids"], scored)
    rate = 1 - Within(Linear(), first=1 - case.said["eps"], last=0.0).alpha(case["t"].double())
    close(rate[:, None].expand(scored.shape), case["p_mask"])
    bound = MaskedBound(Masking.over(denoiser.vocab, mask), At(t=rate[:, None]), per=per)
    masked, weights = bound.masks_at(rate[:, None], batch, Recorded(case["u"]))
    same(masked, case["masked_indices"] & scored)
    same(batch.tokens.masked_fill(masked, mask), case["noisy_batch"])
    close(denoiser.raw_logits(case["noisy_batch"]), case["logits"], atol=1e-5)
    costs = at_masked(denoiser, batch, masked, shared_out(weights, batch, bound.per))
    close(costs, expected)
    loss = bound(denoiser, batch, Recorded(case["u"]))
    close(loss.total / loss.count, case["loss"])
    return costs


def likelihood(case: Reference) -> None:
    """Exactly k of the answer's n tokens masked, weighing n / k; guided by the prompt in the second half."""
    mask = case.said["mask_id"]
    denoiser = network("llada", mask, lets_the_mask=True)
    process = Masking.over(denoiser.vocab, mask)
    for suffix, scale in case.said["cfg_scale"].items():
        prompt, answer = case["prompt" + suffix], case["answer" + suffix]
        noisy, rates = case["perturbed_seq" + suffix], case["p_mask" + suffix]
        batch = batch_of(torch.cat([prompt, answer]).expand(noisy.shape[1:]))
        batch = replace(batch, scored=batch.positions >= len(prompt))
        sums = []
        for x, rate, costs in zip(noisy, rates, case["token_loss" + suffix]):
            drawn = x == mask
            levels = (drawn.sum(1, keepdim=True) - 0.5).double() / len(answer)
            masked, weights = counted_masks(batch.scored, levels, Recorded(drawn), torch.zeros_like(x))
            same(masked, drawn)
            close(1 / weights[masked], rate[masked])
            blind = x.masked_fill(~batch.scored, mask)
            sees, unseeing = (denoiser(z).logits() for z in (x, blind))
            mu = guided(sees, unseeing, scale).log_softmax(-1).unflatten(0, x.shape)
            found = process.nelbo(mu, batch.tokens, x, rate)
            close(found, costs)
            sums.append(found.sum() / len(x))
        close(torch.stack(sums), case["batch_loss" + suffix])
        close(-torch.stack(sums).mean(), case["log_likelihood" + suffix])


ABOVE_ZERO = 1e-6  # dllm adds it to the mask rate that its scheduler's weight is divided by


def dllm(case: Reference, name: str) -> None:
    """Masks at the rate of the schedule, and every weighting and normalisation there is."""
    mask, eps = case.said["mask_id"], case.said["time_epsilon"]
    denoiser, scored = network(name, mask, lets_the_mask=True), case["maskable"].bool()
    same(scored, case["labels"] != -100)
    batch = batch_of(case["input_ids"], scored)
    t = 1 - Within(Linear(), first=1 - eps, last=0.0).alpha(case["u_t"].double())
    close(t, case["t"])
    line = bound(denoiser, mask, Linear(), t)
    masked, _ = line.masks_at(t[:, None], batch, Recorded(case["u_mask"]))
    noisy = batch.tokens.masked_fill(masked, mask)
    same(noisy, case["noised_input_ids"])
    close(denoiser.raw_logits(noisy), case["model_logits"], atol=1e-5)
    near = {p: ContextAdaptive(**vars(line), nearness=p) for p in (0.1, 0.3)}
    dllms_loss(case, denoiser, batch, line, "scheduler_token")
    dllms_loss(case, denoiser, batch, replace(line, per="answer"), "scheduler_sequence")
    dllms_loss(case, denoiser, batch, line, "scheduler_batch", count=len(noisy))
    dllms_loss(case, denoiser, batch, bound(denoiser, mask, Sine(), t), "scheduler_token_cosine")
    costs = at_masked(denoiser, batch, masked, torch.ones_like(case["u_mask"]))  # every token alike: no bound
    close(costs, case["weighted_token_nll_uniform_token"])
    close(costs.sum() / batch.n_scored, case["loss_uniform_token"])
    if name == "dream":
        dllms_loss(case, denoiser, batch, replace(near[0.1], per="answer"), "cart_geo_p_0.1_sequence", above=0.0)
        dllms_loss(case, denoiser, batch, near[0.3], "cart_geo_p_0.3_token", above=0.0)


def bound(denoiser: Denoiser, mask: int, schedule: Schedule, t: Tensor) -> MaskedBound:
    return MaskedBound(Masking.over(denoiser.vocab, mask, schedule), At(t=t[:, None]))


def dllms_loss(
    case: Reference,
    denoiser: Denoiser,
    batch: Batch,
    objective: MaskedBound,
    name: str,
    count: int | None = None,
    above: float = ABOVE_ZERO,
) -> None:
    """Token by token, before it is divided; and divided."""
    t, u = objective.layout.t, case["u_mask"]
    rate = 1 - objective.process.schedule.alpha(t)
    masked, weights = objective.masks_at(t, batch, Recorded(u))
    if name.endswith("cosine"):
        same(batch.tokens.masked_fill(masked, objective.process.mask_id), case["noised_input_ids_cosine"])
    costs = at_masked(denoiser, batch, masked, weights * (rate / (rate + above)).float())
    close(costs, case["weighted_token_nll_" + name])
    loss = objective(denoiser, batch, Recorded(u))
    close(loss.total / (count or loss.count), case["loss_" + name], rtol=1e-5 + above / float(rate.min()))


def dllm_llada(case: Reference) -> None:
    dllm(case, "llada")


def dllm_dream(case: Reference) -> None:
    """The cross-entropy of a token is read from the output before it."""
    assert case.said["right_shift_logits"]
    dllm(case, "dream")


def cart(case: Reference) -> None:
    masked = case["masked_mask"]
    assert bool((case["t"] > 0).all()), "how the masks were drawn"
    for p in (0.1, 0.3, 0.7):
        weights = context_weights(masked, torch.zeros_like(masked, dtype=torch.int64), p)
        close(weights * masked, case[f"weights_p{p}"], atol=1e-7)
