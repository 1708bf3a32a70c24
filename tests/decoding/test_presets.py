"""Every preset: how many passes it makes, to the one, and that a row does not know its neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stand_ins import MASK, VOCAB, Answer
from torch import Tensor, nn

from unmask.decoding.canvas import Row
from unmask.decoding.presets import PRESETS
from unmask.decoding.sampler import Decoded, Sampler, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits, Denoiser
from unmask.errors import UserError
from unmask.layout import Whole
from unmask.noise.schedule import Linear
from unmask.noise.tokens import Masking, TokenNoise

SCORES = {"sedd", "sedd-euler"}  # for networks that speak of scores
OPEN = 12


class Sure(nn.Module):
    """As sure of every position as `p` says, whatever it is shown; it counts how often it is asked."""

    def __init__(self, p: list[float]) -> None:
        super().__init__()
        sure = torch.tensor(p)[:, None]
        best = torch.nn.functional.one_hot(torch.arange(len(p)) % MASK, VOCAB)
        rest = (1 - best).index_fill(1, torch.tensor([MASK]), 0) / (MASK - 1)
        self.logp, self.mask_id, self.vocab = (sure * best + (1 - sure) * rest).log(), MASK, VOCAB
        self.head, self.rule, self.echo, self.packs = CleanLogits(), Whole().rule, None, False
        self.network, self.banned = nn.Module(), torch.tensor([MASK])
        self.network.time = None

    def forward(self, x: Tensor, t: Tensor, *, places: object, where: Tensor) -> Answer:
        return Answer(self.logp.expand(len(x), -1, -1)[where])


SURE = [0.95] * 6 + [0.5] * 6
CERTAIN = [1 - 1e-6] * OPEN

# preset -> passes for 12 tokens of which the first 6 are sure, and for 12 that are certain
# (Dream's share of the first step, 12 x 0.083, is no whole token: the pass is not made, and the last writes two)
PASSES: dict[str, tuple[int, int]] = {
    "llada": (12, 12),
    "llada-random": (12, 12),
    "dream-maskgit": (11, 11),
    "dream-margin": (11, 11),
    "dream-entropy": (11, 11),
    "fast-dllm": (7, 1),
    "fast-dllm-factor": (7, 1),
    "eb": (12, 1),
    "klass": (9, 3),
    "dparallel": (7, 1),
    "first-hitting": (12, 12),
    "take-back": (7, 1),
    "bd3lm": (12, 12),
    "sdar": (7, 1),
    "sdar-static": (12, 12),
    "sdar-sequential": (12, 12),
    "llada2": (7, 1),
    "llada2.1": (8, 2),
    "llada2.1-speed": (2, 2),
}
AT_MOST = {"dream-origin", "mdlm", "psi", "remdm", "remdm-rescale", "remdm-conf", "remdm-loop"}  # passes are drawn


def passes(name: str, p: list[float], **more: Any) -> int:
    sampler = Sampler(Sure(p), Masking.over(VOCAB, MASK), Decoding.preset(name, **more))
    sampler([Row.after([], OPEN)])
    return sampler.counts.forwards


@pytest.mark.parametrize("name", PASSES)
def test_passes_of_a_preset(name: str) -> None:
    assert (passes(name, SURE), passes(name, CERTAIN)) == PASSES[name]


@pytest.mark.parametrize("name", sorted(AT_MOST))
def test_passes_of_a_drawn_path(name: str) -> None:
    """No more than steps, and none that looks at a text the network has seen: at one step it is one pass."""
    assert 1 <= passes(name, SURE, steps=30) <= 30
    assert passes(name, SURE, steps=1) == 1
    if name in {"mdlm", "dream-origin"}:
        assert passes(name, SURE, steps=500) <= OPEN


def test_diffusion_gemma_stops_when_nothing_moves() -> None:
    uniform = TokenNoise(torch.tensor([1 / MASK] * MASK + [0.0]), Linear())
    for p, expected in [(CERTAIN, 2), (SURE, 48)]:
        sampler = Sampler(Sure(p), uniform, Decoding.preset("diffusion-gemma"))
        (text,) = sampler([Row.after([], OPEN)])
        assert sampler.counts.forwards == expected
        assert text.tokens == list(range(OPEN)), "the best token everywhere, not the canvas of the last pass"


def test_every_preset_is_held_to_a_number_of_passes() -> None:
    elsewhere = {"fast-dllm-prefix", "fast-dllm-dual", "wino", "daedal"}  # see test_context, test_shadows, test_growth
    assert set(PRESETS) == set(PASSES) | AT_MOST | {"diffusion-gemma"} | elsewhere | SCORES


def bare(text: Decoded) -> tuple[object, ...]:
    return text.tokens, text.canvas, text.settled_at, text.counts.forwards


@pytest.mark.parametrize("temperature", [None, 0.0, 1.0])
@pytest.mark.parametrize("name", sorted(set(PRESETS) - SCORES - {"daedal"}))
def test_a_row_alone_is_a_row_in_a_batch(name: str, temperature: float | None, masked: Denoiser) -> None:
    uniform = TokenNoise(torch.tensor([1 / MASK] * MASK + [0.0]), Linear())
    process = uniform if name == "diffusion-gemma" else Masking.over(VOCAB, MASK)
    said = {} if temperature is None else {"temperature": temperature}
    settings = Decoding.preset(name, **said, **({} if name == "diffusion-gemma" else {"steps": 9}))
    rows = [Row.after([1, 2, 3], 5, 1), Row.gaps([None, 4, None, None, 2], 2), Row.after([7], 11, 3)]
    for row, text in zip(rows, decode(masked, process, rows, settings)):
        assert bare(decode(masked, process, [row], settings)[0]) == bare(text)
        assert MASK not in text.tokens


def test_what_is_said_goes_on_top_and_a_model_below() -> None:
    model = Decoding(rule="left_to_right", block=4, eos_id=3)
    found = model.saying({"preset": "fast-dllm", "threshold": 0.7})
    assert (found.rule, found.block, found.threshold, found.eos_id) == ("confidence", 32, 0.7, 3)
    assert Decoding.preset("remdm", temperature=0.0).temperature == 0.0
    with pytest.raises(UserError, match=r"preset='fast-dlm' is unknown; did you mean 'fast-dllm'\?"):
        Decoding.preset("fast-dlm")
