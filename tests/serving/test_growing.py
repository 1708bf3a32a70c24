"""A text whose canvas grows, as it comes through a stream."""

import pytest

GROW = {"kind": "daedal", "initial": 4, "expand": 3, "window": 4, "ends": 1.0, "unsure": 0.9}


def plain(text):
    """Half a character is spelt otherwise alone than in a row of them."""
    return text.replace("\ufffd", "")


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_of_a_canvas_that_grows(empty, seed):
    """What is sent stays, and the frames, applied by position, give the text of the answer."""
    asked = {"prompt": "pack", "max_tokens": 24, "temperature": 1.0, "threshold": 0.5, "seed": seed, "grow": GROW}
    text, seen, lengths = "", [], []
    for chunk in empty.events("/v1/completions", **asked, diffusing=True):
        if chunk.get("choices"):
            text += chunk["choices"][0]["text"]
        if "unmask" in chunk:
            frame = chunk["unmask"]
            lengths.append(frame["length"])
            seen += [""] * (frame["length"] - len(seen))
            for change in frame["changed"]:
                seen[change["at"]] = change["text"]
    assert lengths == sorted(lengths)
    assert lengths[0] == 0 < lengths[1] < lengths[-1] <= 24
    answer = empty.ask("/v1/completions", **asked)
    assert text == answer["choices"][0]["text"]
    assert plain("".join(seen)).startswith(plain(text))


def test_what_cannot_grow_is_refused(empty):
    for asked, said in [
        ({"grow": "blocks"}, "grow: this model sees its whole canvas; use daedal"),
        ({"grow": "my.code:Growth"}, "grow='my.code:Growth' names code"),
        ({"grow": GROW, "suffix": "jugs"}, "prompt 0: gaps are as long as they are"),
        ({"grow": GROW | {"expand": 10**30}}, "grow.expand=1000"),
    ]:
        assert said in empty.refused("/v1/completions", prompt="pack", **asked)
