"""Second thoughts: tokens are changed or taken back while their block is not final, and every block becomes final."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from stand_ins import MASK, VOCAB, Answer
from torch import Tensor, nn

from unmask.decoding.canvas import Row
from unmask.decoding.revise import DRAFTED
from unmask.decoding.sampler import Decoded, Event, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import CleanLogits
from unmask.errors import UserError
from unmask.layout import Whole
from unmask.noise.tokens import Masking

EOS = 3


class Mind(nn.Module):
    """Says on pass i what `says[i]` says, the last for ever: (token, how sure) for each position."""

    def __init__(self, says: list[list[tuple[int, float]]]) -> None:
        super().__init__()
        self.says, self.passes = says, 0
        self.head, self.rule, self.echo, self.packs = CleanLogits(), Whole().rule, None, False
        self.network, self.banned, self.vocab = SimpleNamespace(time=None), torch.tensor([MASK]), VOCAB
        self.times: list[list[float]] = []

    def forward(self, x: Tensor, t: Tensor, *, places: object, where: Tensor) -> Answer:
        said = self.says[min(self.passes, len(self.says) - 1)]
        self.passes += 1
        self.times.append(t[0].tolist())
        p = torch.full((len(said), VOCAB), 0.0)
        for i, (token, sure) in enumerate(said):
            p[i] = (1 - sure) / (VOCAB - 2)
            p[i, token], p[i, MASK] = sure, 0.0
        return Answer(p.log().expand(len(x), -1, -1)[where])


def written(mind: Mind, n: int, settings: Decoding) -> tuple[Decoded, list[list[int]]]:
    story: list[Event] = []
    (text,) = decode(mind, Masking.over(VOCAB, MASK), [Row.after([], n)], settings, story.append)
    return text, [event.frames[0].tokens for event in story]


EDITING = Decoding(rule="confidence", threshold=0.8, revise={"kind": "edit", "threshold": 0.6})


def test_a_token_gives_way_to_a_surer_one() -> None:
    first = [(1, 0.9), (2, 0.5), (4, 0.9)]
    second = [(5, 0.7), (2, 0.9), (6, 0.55)]
    text, story = written(Mind([first, second]), 3, EDITING)
    assert story == [[1, MASK, 4], [5, 2, 4], [5, 2, 4]], "0.55 is not sure enough to take 4's place"
    assert text.counts.forwards == 3, "the last pass reads the full block and changes nothing"
    assert text.settled_at == [2, 2, 2], "nothing is final before all is"
    assert text.confidence == pytest.approx([0.7, 0.9, 0.9])


def test_a_draft_is_told_apart_from_what_is_settled() -> None:
    mind = Mind([[(1, 0.9), (2, 0.5)], [(1, 0.9), (2, 0.9)]])
    written(mind, 2, EDITING)
    assert mind.times == [[1.0, 1.0], [pytest.approx(DRAFTED), 1.0], [pytest.approx(DRAFTED)] * 2]


def test_a_mind_that_never_settles_is_cut_off() -> None:
    mind = Mind([[((i % 2) + 1, 0.9)] * 2 for i in range(40)])
    settings = Decoding(rule="confidence", threshold=0.8, revise={"kind": "edit", "threshold": 0.6, "passes": 5})
    text, _ = written(mind, 2, settings)
    assert text.counts.forwards == 1 + 5


def test_an_end_that_is_edited_away_did_not_end_the_text() -> None:
    first = [(1, 0.9), (EOS, 0.9), (4, 0.5)]
    second = [(1, 0.9), (5, 0.9), (4, 0.9)]
    settings = Decoding(rule="confidence", threshold=0.8, revise={"kind": "edit", "threshold": 0.6}, eos_id=EOS)
    text, _ = written(Mind([first, second]), 3, settings)
    assert (text.tokens, text.finish_reason) == ([1, 5, 4], "length")
    text, _ = written(Mind([first, [(1, 0.9), (EOS, 0.9), (4, 0.9)]]), 3, settings)
    assert (text.tokens, text.finish_reason) == ([1], "stop")


def test_a_block_is_left_only_once_it_is_final() -> None:
    says = [[(1, 0.9)] * 4, [(2, 0.9)] * 4]
    settings = Decoding(rule="confidence", threshold=0.8, block=2, revise={"kind": "edit", "threshold": 0.6})
    text, story = written(Mind(says), 4, settings)
    assert story == [[1, 1, MASK, MASK], [2, 2, MASK, MASK], [2, 2, MASK, MASK], [2, 2, 2, 2], [2, 2, 2, 2]]
    assert text.settled_at == [2, 2, 4, 4]


def test_a_token_that_has_become_improbable_is_taken_back() -> None:
    first = [(1, 0.9), (2, 0.5), (4, 0.5)]
    second = [(5, 0.9), (2, 0.85), (4, 0.5)]
    third = [(5, 0.9), (2, 0.9), (4, 0.9)]
    settings = Decoding(rule="confidence", threshold=0.8, revise={"kind": "take_back", "threshold": 0.4}, steps=6)
    text, story = written(Mind([first, second, third]), 3, settings)
    assert story == [[1, MASK, MASK], [MASK, 2, MASK], [5, 2, 4]]
    assert text.tokens == [5, 2, 4]


def test_taking_back_ends_with_the_steps() -> None:
    """A mind that always regrets: the last step writes everything and takes nothing back."""
    mind = Mind([[((i % 2) + 1, 0.9)] * 3 for i in range(40)])
    settings = Decoding(rule="confidence", threshold=0.8, revise={"kind": "take_back", "threshold": 0.4}, steps=7)
    text, story = written(mind, 3, settings)
    assert text.counts.forwards <= 7
    assert MASK not in text.tokens
    assert any(MASK in canvas for canvas in story) or text.counts.forwards == 1


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"revise": "edti"}, "revise.kind: 'edti' is unknown; did you mean 'edit'"),
        ({"revise": {"kind": "edit", "threshold": 1.0}}, "revise.threshold=1.0 is outside"),
        ({"revise": {"kind": "edit", "passes": 0}}, "revise.passes=0"),
        ({"revise": {"kind": "take_back", "threshold": 0.0}}, "revise.threshold=0.0 is outside"),
        ({"rule": "ancestral", "revise": "edit"}, "revise: the ancestral rule says itself"),
        ({"rule": "ancestral", "quota": "stable"}, "quota: the ancestral rule says itself"),
        ({"quota": "stabel"}, "quota.kind: 'stabel' is unknown; did you mean 'stable'"),
        ({"threshold": 0.9, "factor": 1.0}, "threshold=0.9, factor=1.0: two rules"),
        ({"steps": 4, "block_steps": 2}, "steps=4, block_steps=2: of a row or of each block"),
        ({"guidance": -1.0}, "guidance=-1.0 is not a number from 0 up"),
    ],
)
def test_bad_settings_are_named(said: dict[str, object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Decoding(**said)
