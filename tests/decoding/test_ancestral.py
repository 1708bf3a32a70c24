"""Samplers that may take back what they wrote: every step has the marginals of the noise, whatever it takes back, and
small steps draw from the model's own distribution (chi-square against an exact oracle)."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from stand_ins import Oracle
from test_exact import LENGTH, TOKENS, masking, p_value, texts

from unmask.decoding.ancestral import Ancestral, _Walk
from unmask.decoding.canvas import Row
from unmask.decoding.sampler import Sampler, decode
from unmask.decoding.settings import Decoding
from unmask.decoding.steppers import Tick
from unmask.errors import UserError
from unmask.noise.draws import FromCounters
from unmask.noise.schedule import Cosine, Linear
from unmask.noise.tokens import Masking, TokenNoise

TAKING_BACK: dict[str, dict[str, object]] = {
    "cap": {"kind": "remdm_cap", "eta": 0.2},
    "rescale": {"kind": "remdm_rescale", "eta": 0.3},
    "conf": {"kind": "remdm_conf", "eta": 1.0},
    "loop": {"kind": "remdm_loop", "eta": 0.1},
    "psi": {"kind": "psi", "early": 0.1, "middle": 0.6, "late": 1.0},
}
NOISES = {
    "masks": masking(),
    "uniform": TokenNoise(torch.full((TOKENS,), 1 / TOKENS), Cosine()),
    "hybrid": TokenNoise(torch.tensor([0.2] * TOKENS + [0.4]), Linear()),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rule", [rule for rule in TAKING_BACK if rule != "conf"])
def test_every_step_has_the_marginals_of_the_noise(rule: str, noise: str) -> None:
    """Where the network knows the text, x_s is distributed as text noised to s, at every step and for any chance of
    taking back: ReMDM's theorem 3.1, and its like for Psi-samplers."""
    assert follows_the_noise(TAKING_BACK[rule], NOISES[noise])


def test_where_what_is_taken_back_depends_on_the_text_it_is_no_longer_exact() -> None:
    """ReMDM-conf: tokens may go and masks may not, by what is there; its marginals are not the noise's."""
    assert not follows_the_noise(TAKING_BACK["conf"], NOISES["masks"])


def follows_the_noise(rule: dict[str, object], process: TokenNoise) -> bool:
    """Whether each position of text, through 10 steps, is clean exactly as often as the noise leaves it."""
    steps, rows, width = 10, 3000, 8
    text = torch.arange(width).expand(rows, width) % TOKENS
    denoiser = SimpleNamespace(network=SimpleNamespace(time=object()))
    stepper = Decoding(rule=rule, temperature=1.0, steps=steps).stepper(denoiser)
    assert isinstance(stepper, Ancestral)
    rng = FromCounters(torch.arange(rows), torch.arange(width).expand(rows, width))
    sure = 0.1 + 0.9 * rng.uniform(text).float()
    x, t, open = process.prior(text, rng), torch.ones(rows, width), torch.ones(rows, width, dtype=torch.bool)
    known = torch.nn.functional.one_hot(text, len(process.pi)).double().log()
    for left in range(steps, 0, -1):
        row = torch.full((rows,), left)
        tick = Tick(x, t, torch.arange(width).expand(rows, width), open, row, torch.full_like(row, steps),
                    steps - row, torch.arange(rows), {"sure": sure})  # fmt: skip
        asked = ~process.certain(x)
        walk = _Walk(stepper, process, tick, asked)
        walk.step(known[asked])
        x, t = walk.x, walk.t
        clean = process.schedule.alpha(t[0, 0].double())
        clean = clean + (1 - clean) * process.pi[text[0]].double()
        share = (x == text).double().mean(0)
        error = (clean * (1 - clean) / rows).sqrt() + 1e-9
        if not ((share - clean).abs() < 5 * error).all():
            return False
    return torch.equal(x, text)


@pytest.mark.parametrize(("rule", "timed"), [("remdm_cap", True), ("remdm_cap", False), ("remdm_rescale", False)])
def test_a_little_taking_back_keeps_the_joint_distribution(rule: str, timed: bool) -> None:
    oracle = Oracle(masking(), TOKENS, LENGTH)
    oracle.network.time = object() if timed else None
    settings = Decoding(rule={"kind": rule, "eta": 0.004}, temperature=1.0, steps=80)
    assert (
        p_value(texts(oracle, masking(), settings, [None] * LENGTH, 1200 if timed else 2500), oracle, oracle.joint)
        > 1e-3
    )


def test_predictor_and_corrector_for_uniform_noise() -> None:
    process = TokenNoise(torch.tensor([1 / TOKENS] * TOKENS + [0.0]), Cosine())
    oracle = Oracle(process, TOKENS, LENGTH)
    settings = Decoding(rule={"kind": "psi", "middle": 0.01}, temperature=1.0, steps=40)
    assert p_value(texts(oracle, process, settings, [None] * LENGTH, 3000), oracle, oracle.joint) > 1e-3


def test_first_hitting_has_no_error_of_steps() -> None:
    oracle = Oracle(masking("cosine"), TOKENS, LENGTH)
    settings = Decoding(rule="first_hitting", temperature=1.0)
    assert p_value(texts(oracle, masking("cosine"), settings, [None] * LENGTH, 8000), oracle, oracle.joint) > 1e-3


def test_time_falls_from_event_to_event() -> None:
    """What the network is told: the largest of n uniform times, then that of n - 1 below it."""
    told: list[float] = []

    class Listening(Oracle):
        def forward(self, x, t, **more):
            told.append(float(t.max()))
            return super().forward(x, t, **more)

    oracle, sums = Listening(masking(), TOKENS, LENGTH), torch.zeros(LENGTH)
    for seed in range(40):
        told.clear()
        decode(oracle, masking(), [Row.gaps([None] * LENGTH, seed)], Decoding(rule="first_hitting"))
        assert told == sorted(told, reverse=True)
        sums += torch.tensor(told)
    torch.testing.assert_close(sums / 40, torch.tensor([1.0, 2 / 3, 2 / 3 * 1 / 2]), atol=0.16, rtol=0)


@pytest.mark.parametrize("rule", ["cap", "loop"])
def test_tokens_are_taken_back_and_written_again(rule: str, masked, masking: Masking) -> None:
    """The corrector does something: passes beyond the tokens, and a last pass that leaves no mask."""
    spec = TAKING_BACK[rule] | {"eta": 0.2}
    sampler = Sampler(masked, masking, Decoding(rule=spec, temperature=1.0, steps=60))
    (text,) = sampler([Row.after([1, 2], 8, seed=3)])
    assert 8 < text.counts.forwards <= 60
    assert 12 not in text.canvas
    assert set(text.settled_at[2:]) == {text.counts.forwards - 1}, "nothing is final before the end"


def test_with_nothing_taken_back_it_is_the_ancestral_sampler(masked, masking: Masking) -> None:
    rows = [Row.after([1], 7, seed) for seed in range(6)]
    plain = Decoding(rule="ancestral", temperature=1.0, steps=20)
    never = replace(plain, rule={"kind": "remdm_cap", "eta": 0.0})
    assert [t.canvas for t in decode(masked, masking, rows, plain)] == [
        t.canvas for t in decode(masked, masking, rows, never)
    ]


def test_the_chi_square_would_notice_too_much_taken_back_at_once() -> None:
    oracle = Oracle(masking(), TOKENS, LENGTH)
    settings = Decoding(rule={"kind": "psi", "early": 1.0, "middle": 1.0, "late": 1.0}, temperature=1.0, steps=4)
    assert p_value(texts(oracle, masking(), settings, [None] * LENGTH, 4000), oracle, oracle.joint) < 1e-6


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"kind": "remdm_cap", "eta": 1.5}, "rule.eta=1.5 is outside"),
        ({"kind": "psi", "late": -0.1}, "rule.late=-0.1 is outside"),
        ({"kind": "remdm_loop", "on": 0.1, "off": 0.5}, "give 0 < off < on < 1"),
        ({"kind": "remdm_loop", "filled": 1.0}, "rule.filled=1.0 is outside"),
        ({"kind": "remdm_cap", "etta": 0.1}, "rule.etta: remdm_cap has no such option; did you mean 'eta'"),
    ],
)
def test_bad_options_are_named(rule, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Decoding(rule=rule)
