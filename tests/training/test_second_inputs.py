"""Methods whose network has inputs of its own, vectors or its last word: from a recipe to a text, end to end."""

import pytest

import unmask
from unmask.errors import UserError
from unmask.run import train

METHODS = {
    "continuous": {"kind": "continuous"},
    "continuous, simple": {"kind": "continuous", "loss": "simple", "feedback": False},
    "beliefs": {"kind": "masked", "feedback": "beliefs"},
    "soft": {"kind": "masked", "feedback": "soft"},
}


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_scores_and_writes(small, method):
    steps = 120 if method == "continuous" else 40
    result = train(small(f"train.steps={steps}", "train.eval_draws=8", method=METHODS[method]), quiet=True)
    assert result.score is not None
    assert not result.score.exact
    if method != "continuous, simple":  # 8 bits is knowing nothing, more is to be wrong for sure
        assert result.score.bits_per_byte < 6.5
    lm = unmask.load(result.folder, dtype="fp32")
    options = {"seed": 5, "steps": 4}
    prompts = ["12: the quick", ""]
    together = lm.generate(prompts, max_tokens=8, **options)
    assert [text.tokens for text in together] == [lm.generate(p, max_tokens=8, **options).tokens for p in prompts]
    filled = lm.fill("the <gap:5> brown", **options)
    assert filled.text.startswith("the ")
    assert filled.text.endswith(" brown")
    score = lm.score("the quick brown fox", draws=4)
    assert score.nats > 0
    assert score.stderr > 0


def test_what_a_base_cannot_do_is_said(small, tmp_path):
    base = train(small("train.steps=1", out=str(tmp_path / "base")), quiet=True).folder
    for method, named in ((METHODS["continuous"], "continuous"), (METHODS["soft"], "feedback")):
        with pytest.raises(UserError, match=named):
            train(small("train.steps=1", out=str(tmp_path / "new"), base=str(base), method=method), quiet=True)
    with pytest.raises(UserError, match="tied"):
        train(small("model.tied=true", out=str(tmp_path / "tied"), method=METHODS["continuous"]), quiet=True)
