"""The joint draw against enumeration of every text: the best one, the law of the random one, the posteriors."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from unmask.decoding.constrain.automaton import automaton
from unmask.decoding.constrain.chains import OPEN
from unmask.decoding.constrain.keeper import Keeper, Sight
from unmask.decoding.constrain.regex import read
from unmask.decoding.constrain.tokens import Vocabulary
from unmask.decoding.propose import Proposal

SPELLED = [b"a", b"b", b"ab", b"\xc3", b"\xa9", b"c", None, None, b""]  # c3 a9 is e with an accent
END, PAD = 6, 7
PATTERNS = [r"[abc]*", r"(ab)+c?", r"a{2,3}|b+c", r"(a|b)*.", r"ab?c?(ab|.)*"]


def keeper_of(pattern: str, *, end: bool = True, whole: bool = False, banned: tuple[int, ...] = ()) -> Keeper:
    vocabulary = Vocabulary(lambda: SPELLED, [PAD])
    allowed = torch.ones(len(SPELLED), dtype=torch.bool)
    allowed[list(banned)] = False
    tokens = vocabulary.lift(automaton(read(pattern), "regex"), END if end else None, len(SPELLED))
    return Keeper(tokens, allowed, whole=whole, may_end=end)


def matches(pattern: str, tokens: tuple[int, ...], end: bool) -> bool:
    """By the definition: bytes up to the end of text, behind which only it and its fillers stand."""
    if END in tokens:
        stop = tokens.index(END)
        if not end or any(token not in (END, PAD) for token in tokens[stop:]):
            return False
        tokens = tokens[:stop]
    spelled = [SPELLED[token] for token in tokens]
    if not all(spelled):
        return False
    try:
        return re.fullmatch(pattern, b"".join(filter(None, spelled)).decode()) is not None
    except UnicodeDecodeError:
        return False


def laws(n: int, seed: int, rows: int = 1) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(rows * n, len(SPELLED), generator=rng, dtype=torch.float64)).log_softmax(-1)


def sight_of(text: Tensor, written: Tensor | None = None) -> Sight:
    real = torch.ones_like(text, dtype=torch.bool)
    return Sight(text, text == OPEN if written is None else written, real, torch.zeros(len(text), dtype=torch.bool))


def propose(
    keeper: Keeper, text: Tensor, logp: Tensor, asked: Tensor | None = None, written: Tensor | None = None, **how: Any
) -> tuple[Tensor, Tensor]:
    """Tokens (N,) and the posterior (N, V)."""
    asked = text == OPEN if asked is None else asked
    sight = sight_of(text, torch.ones_like(text, dtype=torch.bool) if written is None else written)
    rng = torch.Generator().manual_seed(how.pop("seed", 0))
    u = [torch.rand(text.shape, generator=rng, dtype=torch.float64) for _ in range(3)]
    tokens, shift = keeper.propose(sight, asked, asked, logp, Proposal(**how), u)
    return tokens, (logp + shift).softmax(-1)


def enumerated(
    pattern: str, text: list[int], logp: Tensor, asked: list[int], end: bool
) -> dict[tuple[int, ...], float]:
    """Every choice of the asked tokens that some choice of the other open ones completes, and its probability."""
    found: dict[tuple[int, ...], float] = {}
    for tokens in itertools.product(*[range(len(SPELLED)) if t == OPEN else [t] for t in text]):
        if matches(pattern, tokens, end):
            said = tuple(tokens[i] for i in asked)
            found[said] = float(sum(logp[row, token] for row, token in enumerate(said)).exp())
    return found


CASES = [
    ([OPEN] * 4, [0, 1, 2, 3]),
    ([OPEN, 0, OPEN, OPEN], [0, 2, 3]),  # one is settled
    ([OPEN, OPEN, OPEN, OPEN], [0, 1]),  # a block; the next is not asked about yet
    ([0, OPEN, OPEN, 5], [1, 2]),
    ([OPEN, OPEN, OPEN, END], [0, 1, 2]),  # an end is settled, what stands before it is not
]


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize(("text", "asked"), CASES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_best_text_and_posteriors(pattern: str, text: list[int], asked: list[int], end: bool) -> None:
    logp = laws(len(asked), seed=len(pattern))
    truth = enumerated(pattern, text, logp, asked, end)
    keeper, given = keeper_of(pattern, end=end), torch.tensor([text])
    where = torch.zeros_like(given, dtype=torch.bool)
    where[0, asked] = True
    sight = sight_of(given, torch.ones_like(where))
    assert bool(keeper.possible(sight)) == bool(truth)
    if not truth:
        return
    best, posterior = propose(keeper, given, logp, where)
    assert tuple(best.tolist()) == max(truth, key=lambda said: truth[said])
    exact = torch.zeros_like(posterior)
    for said, p in truth.items():
        for row, token in enumerate(said):
            exact[row, token] += p
    torch.testing.assert_close(posterior, exact / sum(truth.values()))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("pattern", PATTERNS[1:4])
def test_law_of_a_random_text(pattern: str, temperature: float) -> None:
    """20,000 draws, as rows of one batch."""
    n, rows = 3, 20_000
    logp = laws(n, seed=3)
    truth = enumerated(pattern, [OPEN] * n, (logp / temperature).log_softmax(-1), list(range(n)), end=True)
    drawn, _ = propose(
        keeper_of(pattern), torch.full((rows, n), OPEN), logp.repeat(rows, 1), temperature=temperature, seed=5
    )
    said, counts = drawn.view(rows, n).unique(dim=0, return_counts=True)
    seen = {tuple(tokens): count for tokens, count in zip(said.tolist(), counts.tolist())}
    assert set(seen) <= set(truth)
    expected = {said: p / sum(truth.values()) * rows for said, p in truth.items()}
    common = [said for said, count in expected.items() if count >= 5]
    observed = [seen.get(said, 0) for said in common]
    rest = rows - sum(observed), rows - sum(expected[said] for said in common)
    counted, due = [*observed, rest[0]], [*(expected[said] for said in common), rest[1]]
    if due[-1] < 1e-6:
        assert counted.pop() == 0
        due.pop()
    assert chisquare(counted, due).pvalue > 1e-3


def test_cuts_never_forbid_what_the_language_needs() -> None:
    """top_k=1 leaves tokens that match nothing: then the uncut law speaks. Where a cut leaves something, it counts."""
    logp = torch.full((2, len(SPELLED)), -9.0, dtype=torch.float64)
    logp[:, 1], logp[:, 0], logp[:, 5] = 0.0, -1.0, -2.0
    keeper = keeper_of("a[bc]|c[ab]", end=False)
    for seed in range(20):
        tokens, _ = propose(keeper, torch.full((1, 2), OPEN), logp.log_softmax(-1), temperature=1.0, top_k=1, seed=seed)
        assert tokens.tolist() in ([0, 1], [5, 1])  # b is best, and stands where it may


def test_what_is_nearly_impossible_is_written_where_it_is_all_that_fits() -> None:
    for dtype, low in [(torch.float32, -300.0), (torch.float64, -3000.0)]:
        logp = torch.full((4, len(SPELLED)), low, dtype=dtype)
        logp[:, 1] = 0.0
        for temperature in (0.0, 0.7, 1.0):
            tokens, posterior = propose(keeper_of("a{4}|c{4}"), torch.full((1, 4), OPEN), logp, temperature=temperature)
            assert tokens.tolist() in ([0] * 4, [5] * 4)
            assert torch.isfinite(posterior).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_any_part_of_a_proposal_may_be_settled(temperature: float) -> None:
    """Every subset of the proposed tokens leaves a text that can be completed."""
    for seed, pattern in enumerate(PATTERNS):
        keeper, logp = keeper_of(pattern), laws(4, seed)
        tokens, _ = propose(keeper, torch.full((1, 4), OPEN), logp, temperature=temperature, seed=seed)
        for subset in itertools.product([False, True], repeat=4):
            text = torch.where(torch.tensor(subset), tokens, OPEN)[None]
            assert bool(keeper.possible(sight_of(text, torch.ones_like(text, dtype=torch.bool))))


def test_rows_beside_each_other_are_rows_alone() -> None:
    """Of other lengths, at other places, some with nothing asked, in other numbers."""
    keeper = keeper_of("(ab|c)*")
    text = torch.tensor([[OPEN, OPEN, 5, OPEN, 6], [5, OPEN, OPEN, OPEN, OPEN], [0, 1, OPEN, OPEN, OPEN]])
    asked = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 1]]).bool()
    logp = laws(int(asked.sum()), seed=8)
    u = [torch.rand(text.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2, 3)]
    for temperature in (0.0, 1.0):
        how = Proposal(temperature)
        written = torch.ones_like(asked)
        tokens, shift = keeper.propose(sight_of(text, written), asked, asked, logp, how, u)
        at = 0
        for i in range(3):
            n = int(asked[i].sum())
            row, mine = slice(i, i + 1), slice(at, at + n)
            alone, own = keeper.propose(
                sight_of(text[row], written[row]), asked[row], asked[row], logp[mine], how, [part[row] for part in u]
            )
            assert alone.tolist() == tokens[mine].tolist()
            assert torch.equal(own, shift[mine])
            at += n


def test_gaps_match_each_by_itself_or_all_with_what_is_given() -> None:
    text = torch.tensor([[OPEN, 5, OPEN, OPEN]])
    logp = laws(3, seed=2)
    written = text == OPEN
    new, _ = propose(keeper_of("a|ab?b", end=False), text, logp, written=written)
    assert new[0] in (0, 2)
    assert matches("a|ab?b", tuple(new[1:].tolist()), end=False)
    whole, _ = propose(keeper_of("b?aca?b", end=False, whole=True), text, logp, written=written)
    assert matches("b?aca?b", (int(whole[0]), 5, *whole[1:].tolist()), end=False) or int(whole[0]) == 0


def test_banned_tokens_are_not_counted_on() -> None:
    keeper = keeper_of("(a|b)c", end=False, banned=(5,))
    assert not bool(keeper.possible(sight_of(torch.full((1, 2), OPEN))))
