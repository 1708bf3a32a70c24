"""A network with an input for what it said before is trained, and scored, in two passes."""

from __future__ import annotations

import torch

from ..denoiser import Denoiser, Prediction
from ..layout import View
from ..noise.draws import FromGenerator

RECYCLED = 0.5  # share of the batches trained in two passes


def recycles(denoiser: Denoiser, rng: FromGenerator) -> bool:
    """Whether to train this batch in two passes."""
    return denoiser.echo is not None and bool(torch.rand((), generator=rng.generator) < RECYCLED)


def asked(denoiser: Denoiser, view: View, again: bool) -> Prediction:
    """What the denoiser says at view.where; again: told what it says when it is told nothing. No gradient goes through
    the first word (arXiv 2208.04202), so both passes are functions of the noisy text alone."""
    if denoiser.echo is None:
        return denoiser(view.x, view.t, places=view.places, where=view.where)
    told = denoiser.silence(view.t)
    if again:
        with torch.no_grad():
            first = denoiser(view.x, view.t, places=view.places, where=view.where, feedback=told)
        told = told.masked_scatter(
            view.where[..., None], denoiser.recalled(first, view.x[view.where], view.t[view.where])
        )
    return denoiser(view.x, view.t, places=view.places, where=view.where, feedback=told)
