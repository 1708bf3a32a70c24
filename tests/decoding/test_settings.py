"""Bad settings are refused in a sentence that names the field, the value and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import Decoding, default_settings
from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.noise.tokens import Masking


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"steps": -1}, "steps=-1 is not positive"),
        ({"steps": 0}, "steps=0 is not positive"),
        ({"block": 0}, "block=0 is not positive"),
        ({"top_k": 0}, "top_k=0 is not positive"),
        ({"top_p": 0.0}, r"top_p=0.0 is outside \(0, 1\]"),
        ({"top_p": 1.1}, "top_p=1.1 is outside"),
        ({"top_p": float("nan")}, "top_p=nan is outside"),
        ({"threshold": 0.0}, r"threshold=0.0 is outside \(0, 1\)"),
        ({"threshold": 1.0}, "threshold=1.0 is outside"),
        ({"temperature": -0.1}, "temperature=-0.1 is not a number from 0 up"),
        ({"temperature": float("inf")}, "temperature=inf is not"),
        ({"temperature": float("nan")}, "temperature=nan is not"),
        ({"rule": "confidense"}, "rule.kind: 'confidense' is unknown; did you mean 'confidence'?"),
        ({"rule": "ancestral", "threshold": 0.9}, "threshold: the ancestral rule"),
        ({"suppress_eos": True}, "suppress_eos: there is no end-of-text token"),
    ],
)
def test_a_bad_setting_is_named(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Decoding(**bad)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Decoding(rule="confidence"), "rule='confidence': an autoregressive model writes left_to_right only"),
        (Decoding(rule="ancestral"), "rule='ancestral': an autoregressive model"),
        (Decoding(threshold=0.9), "threshold: an autoregressive model writes one token a step"),
        (Decoding(steps=3), "steps=3: an autoregressive model needs a step a token, 5 here"),
    ],
)
def test_an_autoregressive_model_only_goes_forward(
    settings: Decoding, says: str, forward: Denoiser, masking: Masking
) -> None:
    with pytest.raises(UserError, match=says):
        decode(forward, masking, [Row.after([1], 5)], settings)


def test_the_model_chooses_the_rule(forward: Denoiser, masked: Denoiser, masking: Masking) -> None:
    assert default_settings(forward).rule == "left_to_right"
    assert default_settings(masked).rule == "confidence"
    (text,) = decode(forward, masking, [Row.after([1], 5)], Decoding(steps=9, block=2))
    assert text.settled_at == [-1, 0, 1, 2, 3, 4]


def test_an_end_of_text_must_be_a_token(masked: Denoiser, masking: Masking) -> None:
    with pytest.raises(UserError, match="eos_id=99 is not in the model's vocabulary of 13"):
        decode(masked, masking, [Row.after([1], 5)], Decoding(eos_id=99))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Row([1, 2], [True]), "row: 2 tokens but 1 open marks"),
        (lambda: Row.after([1], -1), "length=-1 is negative"),
        (lambda: Row.after([1], 1, seed=1 << 64), "seed=18446744073709551616 does not fit"),
    ],
)
def test_a_bad_row_is_named(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()
