"""Where a text ends: only once everything before the end is settled."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from stand_ins import MASK, Answer
from torch import Tensor, nn

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import Decoded, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits
from unmask.layout import Whole
from unmask.noise.tokens import Masking

EOS, VOCAB = 3, 13


class Script(nn.Module):
    """Wants to write `text`, and is as sure of each position as `sure` says."""

    def __init__(self, text: list[int], sure: list[float]) -> None:
        super().__init__()
        p = torch.tensor(sure)[:, None]
        wanted = torch.nn.functional.one_hot(torch.tensor(text), VOCAB)
        spare = torch.full((len(text), VOCAB), 1.0).scatter(1, torch.tensor(text)[:, None], 0.0)
        spare[:, MASK] = 0
        self.logp = (p * wanted + (1 - p) * spare / spare.sum(1, keepdim=True)).log()
        self.head, self.rule, self.network = CleanLogits(), Whole().rule, SimpleNamespace(time=None)
        self.echo, self.packs, self.vocab, self.banned, self.widths = None, False, VOCAB, torch.tensor([MASK]), []

    def forward(self, x: Tensor, t: Tensor, *, places: object, where: Tensor) -> Answer:
        self.widths.append(int(where.sum()))
        return Answer(self.logp.expand(len(x), -1, -1)[where])


def written(script: Script, row: Row, settings: Decoding) -> Decoded:
    return decode(script, Masking.over(VOCAB, MASK), [row], settings)[0]


def test_an_end_with_gaps_before_it_does_not_stop() -> None:
    script = Script([0, 1, 2, EOS, 5, 6], [0.5, 0.4, 0.6, 0.99, 0.98, 0.97])
    text = written(script, Row.after([0], 5), Decoding(eos_id=EOS))
    assert text.settled_at == [-1, 2, 1, 0, -1, -1], "the end comes first, then what stands before it"
    assert (text.tokens, text.finish_reason) == ([1, 2], "stop")
    assert text.canvas == [0, 1, 2, EOS, MASK, MASK], "what stands behind the end is never computed"
    assert script.widths == [5, 2, 1]
    assert (text.counts.forwards, text.counts.written) == (3, 2)
    assert text.confidence[4:] == [0, 0]


def test_an_earlier_end_moves_the_cut() -> None:
    script = Script([4, EOS, 2, EOS, 6], [0.3, 0.5, 0.6, 0.99, 0.9])
    text = written(script, Row.after([], 5), Decoding(eos_id=EOS))
    assert text.tokens == [4]
    assert text.settled_at == [3, 2, 1, 0, -1]


def test_text_behind_an_end_settled_in_the_same_pass_is_cut() -> None:
    script = Script([4, EOS, 2, 5], [0.9, 0.9, 0.9, 0.9])
    text = written(script, Row.after([], 4), Decoding(eos_id=EOS, steps=1))
    assert text.tokens == [4]
    assert text.canvas == [4, EOS, 2, 5]
    assert text.counts.written == 1


def test_later_blocks_are_not_begun_after_an_end() -> None:
    script = Script([4, EOS, *[5] * 10], [0.9] * 12)
    text = written(script, Row.after([], 12), Decoding(eos_id=EOS, block=4))
    assert text.counts.forwards == 2
    assert text.canvas[4:] == [MASK] * 8
    script = Script([4, EOS, *[5] * 10], [0.9] * 12)
    text = written(script, Row.after([], 12), Decoding(eos_id=None, block=4))
    assert text.counts.forwards == 12
    assert text.finish_reason == "length"
    assert len(text.tokens) == 12


def test_an_end_in_the_prompt_is_only_text() -> None:
    script = Script([0, 0, 5, 6], [0.9] * 4)
    text = written(script, Row.after([EOS, EOS], 2), Decoding(eos_id=EOS))
    assert text.tokens == [5, 6]
    assert text.finish_reason == "length"


@pytest.mark.parametrize("rule", ["confidence", "left_to_right", "random", "ancestral"])
def test_an_end_can_be_suppressed(rule: str) -> None:
    script = Script([4, EOS, EOS], [0.9] * 3)
    text = written(script, Row.after([], 3), Decoding(eos_id=EOS, suppress_eos=True, rule=rule, temperature=1.0))
    assert EOS not in text.canvas
    assert len(text.tokens) == 3
    assert text.finish_reason == "length"


def test_gaps_hold_no_end_unless_asked_for() -> None:
    row = Row.gaps([None, None, 7, None])
    script = Script([4, EOS, 0, EOS], [0.9] * 4)
    assert EOS not in written(script, row, Decoding(eos_id=EOS)).tokens
    text = written(script, row, Decoding(eos_id=EOS, suppress_eos=False))
    assert text.tokens == [4, EOS, 7, EOS]
    assert text.finish_reason == "length"
    assert text.counts.written == 3


def test_rows_of_both_kinds_share_a_batch() -> None:
    script = Script([4, EOS, 7, EOS], [0.9] * 4)
    rows = [Row.gaps([None, None, 7, None]), Row.after([], 4)]
    gaps, text = decode(script, Masking.over(VOCAB, MASK), rows, Decoding(eos_id=EOS))
    assert EOS not in gaps.tokens
    assert len(gaps.tokens) == 4
    assert text.tokens == [4]
    assert text.finish_reason == "stop"
