"""Models that are told their last word, and models of vectors: a row's text does not depend on the rows around it."""

import pytest
import torch
from stand_ins import MASK, VOCAB, network

from unmask.decoding.canvas import Row
from unmask.decoding.guide import Guide
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding
from unmask.errors import UserError
from unmask.methods.block import Block
from unmask.methods.continuous import Continuous
from unmask.methods.masked import Masked
from unmask.methods.method import Symbols

SYMBOLS = Symbols(VOCAB, MASK, 0)
METHODS = {
    "beliefs": Masked(feedback="beliefs"),
    "soft": Masked(feedback="soft"),
    "continuous": Continuous(),
    "continuous, no feedback": Continuous(feedback=False),
}
ROWS = [
    Row.gaps([1, None, None, 4, None], seed=3),
    Row.after([2, 5], 9, seed=1),
    Row.after([], 4, seed=7),
    Row.gaps([None] * 7, seed=5),
]


def model(method, **shape):
    config = method.shape(network().config)
    net = network(2, **{name: getattr(config, name) for name in ("feedback", "time", "latent")}, **shape)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.dim() == 0 or "modulate" in name:
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)) * 0.5 + (p.dim() == 0) * 0.7)
    return method.denoiser(net, SYMBOLS).eval(), method.process(SYMBOLS, net)


def written(method, rows, **settings):
    denoiser, process = model(method)
    return [(text.canvas, text.settled_at) for text in decode(denoiser, process, rows, Decoding(**settings))]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("beliefs", {"rule": "confidence"}),
        ("beliefs", {"rule": "ancestral", "temperature": 1.0}),
        ("beliefs", {"rule": "confidence", "block": 3, "cache": "dual"}),
        ("soft", {"rule": "entropy", "steps": 3, "temperature": 0.7}),
        ("soft", {"rule": "left_to_right"}),
        ("continuous", {"rule": "ddpm", "steps": 6, "block": 4, "eos_id": 3}),
        ("continuous", {"rule": "ddim", "steps": 6}),
        ("continuous", {"rule": {"kind": "ddpm", "clamp": True}, "steps": 6}),
        ("continuous", {"rule": "confidence", "threshold": 0.4}),
        ("continuous, no feedback", {"rule": "ancestral", "steps": 6, "temperature": 1.0}),
        ("continuous, no feedback", {"rule": {"kind": "psi", "middle": 0.3}, "steps": 6, "temperature": 1.0}),
    ],
    ids=str,
)
def test_in_a_batch_as_alone(kind, settings):
    denoiser, process = model(METHODS[kind])

    def texts(rows):
        done = decode(denoiser, process, rows, Decoding(**settings))
        return [(text.canvas, text.settled_at, text.confidence) for text in done]

    together = texts(ROWS)
    assert together == [texts([row])[0] for row in ROWS]
    for row, (canvas, _, _) in zip(ROWS, together):
        given = [(a, b) for a, b, open in zip(row.tokens, canvas, row.open) if not open]
        assert all(a == b for a, b in given)
        assert MASK not in canvas


@pytest.mark.parametrize("kind", ["beliefs", "soft"])
def test_what_it_is_told_matters(kind):
    deaf, process = model(METHODS[kind])
    with torch.no_grad():
        for p in deaf.network.feedback.parameters():
            p.zero_()
    settings = Decoding(rule="confidence", temperature=1.0)
    told = written(METHODS[kind], ROWS, rule="confidence", temperature=1.0)
    assert told != [(text.canvas, text.settled_at) for text in decode(deaf, process, ROWS, settings)]


@pytest.mark.parametrize("rule", ["confidence", "ancestral"])
def test_the_exact_cache_stays_exact(rule):
    method = Block(size=4, feedback="beliefs")
    rows = [Row.after([1, 2, 3], 9, seed=2), Row.after([5], 6, seed=9), Row.after([], 11, seed=4)]
    for temperature in (0.0, 1.0):
        settings = {"rule": rule, "temperature": temperature, "steps": 5}
        assert written(method, rows, cache="exact", **settings) == written(method, rows, cache="none", **settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cache": "dual"}, "cache"),
        ({"guidance": 1.5}, "guidance"),
        ({"revise": "edit", "rule": "confidence"}, "revise"),
    ],
)
def test_what_vectors_cannot_do_is_said(settings, named):
    with pytest.raises(UserError, match=named):
        written(METHODS["continuous"], ROWS, **{"rule": "ddpm"} | settings)


def test_masks_have_no_gaussian_steps():
    with pytest.raises(UserError, match="rule"):
        written(METHODS["soft"], ROWS, rule="ddim")


def test_ddim_is_not_random():
    """The noise it starts from aside: other numbers on the way change nothing."""
    row = [Row.gaps([None] * 6, seed=1)]
    assert written(METHODS["continuous"], row, rule="ddim", steps=5) == written(
        METHODS["continuous"], row, rule={"kind": "ddpm", "eta": 0.0}, steps=5, temperature=0.0
    )


def test_a_guide_pulls_each_row_by_itself_and_only_what_is_open():
    """Wanting vectors to lie along token 7 writes token 7, where nothing is given, whatever the rows around."""
    denoiser, process = model(METHODS["continuous"])

    def along(x, t, real):
        return ((x @ process.table[7]) * real).sum(1)

    def texts(rows, strength):
        settings = Decoding(rule="ddpm", steps=6, guide=Guide(along, strength))
        return [text.canvas for text in decode(denoiser, process, rows, settings)]

    together = texts(ROWS, 0.5)
    assert together == [texts([row], 0.5)[0] for row in ROWS]
    pulled, free = (sum(text.count(7) for text in texts(ROWS, strength)) for strength in (5.0, 0.0))
    assert pulled == sum(row.n_open for row in ROWS) > free + 10
    assert texts(ROWS, 5.0)[0][0] == 1
    with pytest.raises(UserError, match="guide"):
        Decoding(rule="confidence", guide=Guide(along))
