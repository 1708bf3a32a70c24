"""One look at a text: which of its tokens are least expected, and how long a gap should be."""

import pytest
import torch

from unmask.decoding.canvas import Row
from unmask.models.attention import Places
from unmask.serving.look import expected, lengths, surprises
from unmask.serving.served import Served

TEXT = list(b"abcdefghij")


@pytest.fixture(scope="module")
def served(lm):
    return Served(lm)


def alone(served, ids, hidden):
    """mu at the hidden positions of a text by itself."""
    x = torch.tensor([[served.denoiser.mask_id if h else i for i, h in zip(ids, hidden)]])
    with torch.inference_mode():
        return served.denoiser(
            x, torch.tensor([hidden]).float(), places=Places.of(x), where=torch.tensor([hidden])
        ).mu()


def test_a_look_tells_what_the_network_says(served):
    masks = [[at in (2, 5) for at in range(10)], [at > 6 for at in range(8)]]
    rows = [Row(TEXT[: len(mask)], mask) for mask in masks]
    for row, (said, best) in zip(rows, surprises(served.denoiser, served.process, rows)):
        mu = alone(served, row.tokens, row.open)
        held = torch.tensor(row.tokens)[torch.tensor(row.open)]
        torch.testing.assert_close(said, mu.gather(1, held[:, None])[:, 0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(best, mu.amax(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 3, 10])
def test_every_token_is_hidden_once(served, length):
    found = expected(served.denoiser, served.process, TEXT[:length])
    for at in range(length):
        mu = alone(served, TEXT[:length], [other % 4 == at % 4 for other in range(length)])
        hidden = [other for other in range(length) if other % 4 == at % 4]
        assert found[at] == pytest.approx(float(mu[hidden.index(at), TEXT[at]]), abs=1e-4)
    assert expected(served.denoiser, served.process, []) == []


class Knowing:
    """Knows one text by heart, position by position, and nothing else."""

    def __init__(self, text):
        self.text, self.banned = torch.tensor(text), torch.tensor([259])

    def __call__(self, x, t, places, where):
        truth = self.text[places.position[where].clamp(max=len(self.text) - 1)]
        self.said = torch.full((len(truth), 260), -9.0).scatter(1, truth[:, None], -0.1)
        return self

    def map(self, read):
        return read(self.said, slice(None))


@pytest.mark.parametrize(("first", "second"), [(3, 7), (9, 1), (20, 2)])
def test_gaps_get_the_length_at_which_what_follows_is_expected(served, first, second):
    parts = [list(b"def "), list(b"(x): return "), list(b"and so on")]
    text = [*parts[0], *[65] * first, *parts[1], *[66] * second, *parts[2]]
    knowing = Knowing(text)
    assert lengths(knowing, served.process, parts, [(first, first), (1, 8)]) == [first, second]
    assert lengths(knowing, served.process, parts, [(first - 2, first + 2), (second, second)]) == [first, second]
