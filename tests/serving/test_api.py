"""What every endpoint says, beside what the same model says from Python."""

import json
import math
import re

import pytest

from unmask.decoding.presets import PRESETS

CHAT = [{"role": "user", "content": "Hi"}]
TEXT = "def f(x):\n    return x\n"


def joined(chunks):
    return "".join(choice.get("text", "") for chunk in chunks for choice in chunk["choices"])


def test_completions_are_what_the_model_writes(server, lm):
    said = {"max_tokens": 12, "seed": 5, "temperature": 1.0, "steps": 6}
    answer = server.ask("/v1/completions", prompt="pack", **said)
    own = lm.generate("pack", **said)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == (own.text, own.finish_reason)
    assert answer["usage"] == {
        "prompt_tokens": 4, "completion_tokens": len(own.tokens), "total_tokens": 4 + len(own.tokens),
        "forward_passes": own.counts.forwards, "tokens_per_pass": round(len(own.tokens) / own.counts.forwards, 3),
    }  # fmt: skip
    assert (answer["object"], answer["model"], answer["seed"]) == ("text_completion", "small", 5)


def test_chats_are_what_the_model_says(server, lm):
    said = {"max_tokens": 8, "seed": 2, "temperature": 1.0}
    own = lm.chat(CHAT, **said)
    answer = server.ask("/v1/chat/completions", messages=CHAT, **said)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": own.text, "refusal": None}
    parts = [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]
    again = server.ask("/v1/chat/completions", messages=parts, max_completion_tokens=8, seed=2, temperature=1.0)
    assert again["choices"] == answer["choices"]


def test_choices_have_seeds_of_their_own(server):
    said = {"prompt": ["a", "b"], "max_tokens": 6, "temperature": 1.0}
    both = server.ask("/v1/completions", **said, n=2, seed=7)
    one = {seed: server.ask("/v1/completions", **said, seed=seed)["choices"] for seed in (7, 8)}
    texts = [choice["text"] for choice in both["choices"]]
    assert texts == [one[7][0]["text"], one[8][0]["text"], one[7][1]["text"], one[8][1]["text"]]
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]


def test_a_seed_that_is_not_said_is_told(server):
    said = {"prompt": "a", "max_tokens": 10, "temperature": 1.0}
    first, second = (server.ask("/v1/completions", **said) for _ in range(2))
    assert first["seed"] != second["seed"]
    assert server.ask("/v1/completions", **said, seed=first["seed"])["choices"] == first["choices"]


@pytest.mark.parametrize("said", [{}, {"stop": ["\ufffd"]}, {"temperature": 1.0, "block": 4}, {"preset": "remdm"}])
def test_a_stream_adds_up_to_the_answer(server, said):
    said = {"prompt": "pack", "max_tokens": 24, "seed": 3, "logprobs": 1, "n": 2, **said}
    chunks, whole = list(server.events("/v1/completions", **said)), server.ask("/v1/completions", **said)
    for index, choice in enumerate(whole["choices"]):
        mine = [part for chunk in chunks for part in chunk["choices"] if part["index"] == index]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [p["finish_reason"] for p in mine if p["finish_reason"]] == [choice["finish_reason"]]
        assert mine[-1]["finish_reason"] is not None
        told = [p["logprobs"] for p in mine if p["logprobs"]]
        assert [token for part in told for token in part["tokens"]] == choice["logprobs"]["tokens"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert not [chunk for chunk in chunks[:-1] if "usage" in chunk]


def test_usage_comes_in_a_chunk_of_its_own_if_asked_for(server):
    said = {"prompt": "pack", "max_tokens": 4, "stream_options": {"include_usage": True}}
    *chunks, last = server.events("/v1/completions", **said)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert not [chunk for chunk in chunks if "usage" in chunk]


def test_frames_draw_the_canvas(server, lm):
    said = {"prompt": "pack", "max_tokens": 12, "seed": 3, "steps": 6}
    chunks = list(server.events("/v1/completions", **said, diffusing=True))
    frames = [chunk["unmask"] for chunk in chunks if "unmask" in chunk]
    assert [frame["passes"] for frame in frames] == list(range(7))
    assert [change["at"] for change in frames[0]["changed"]] == list(range(12))
    drawn = {change["at"]: change for frame in frames for change in frame["changed"]}
    own = lm.generate("pack", **{name: value for name, value in said.items() if name != "prompt"})
    assert [drawn[at]["text"] for at in range(12)] == lm.tokenizer.pieces(own.decoded.canvas[4:])
    sure = own.decoded.confidence[4:]
    assert [drawn[at]["p"] for at in range(12)] == pytest.approx(sure, abs=1e-4)
    assert not [chunk for chunk in server.events("/v1/completions", **said) if "unmask" in chunk]


def test_logprobs_are_those_under_which_tokens_were_settled(server, lm):
    said = {"max_tokens": 8, "seed": 3}
    sure = lm.generate("pack", **said).decoded.confidence[4:]
    choice = server.ask("/v1/completions", prompt="pack", logprobs=1, echo=True, **said)["choices"][0]
    assert choice["text"].startswith("pack")
    assert choice["logprobs"]["token_logprobs"] == pytest.approx([math.log(p) for p in sure])
    assert choice["logprobs"]["text_offset"][0] == 4
    chat = server.ask("/v1/chat/completions", messages=CHAT, logprobs=True, **said)["choices"][0]
    assert len(chat["logprobs"]["content"]) == 8
    assert all(token["logprob"] <= 0 for token in chat["logprobs"]["content"])


def test_stop_strings_end_a_text_and_free_its_place(empty):
    whole = empty.ask("/v1/completions", prompt="pack", max_tokens=60, seed=1)["choices"][0]["text"]
    stop = whole[3:5]
    cut = empty.ask("/v1/completions", prompt="pack", max_tokens=60, seed=1, stop=stop, rule="left_to_right")
    inorder = empty.ask("/v1/completions", prompt="pack", max_tokens=60, seed=1, rule="left_to_right")
    text = inorder["choices"][0]["text"]
    expected = text[: text.index(stop)] if stop in text else text
    assert cut["choices"][0]["text"] == expected
    first = text[2]
    cut = empty.ask("/v1/completions", prompt="pack", max_tokens=60, seed=1, stop=[first], rule="left_to_right")
    assert cut["choices"][0]["text"] == text[: text.index(first)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["forward_passes"] < inorder["usage"]["forward_passes"]


FLAG = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("form", "keeps"),
    [
        (
            {"type": "json_schema", "json_schema": {"name": "flag", "schema": FLAG}},
            lambda t: type(json.loads(t)["ok"]) is bool,
        ),
        ({"type": "json_object"}, lambda t: isinstance(json.loads(t), dict)),
        ({"type": "regex", "regex": "(ab|c){2,5}!"}, re.compile("(ab|c){2,5}!").fullmatch),
        ({"type": "text"}, lambda t: True),
    ],
)
def test_a_text_has_the_format_it_must_have(server, form, keeps):
    said = {"max_tokens": 24, "seed": 1, "temperature": 1.0, "n": 3, "response_format": form}
    for choice in server.ask("/v1/chat/completions", messages=CHAT, **said)["choices"]:
        assert keeps(choice["message"]["content"])
    chunks = server.events("/v1/completions", prompt="a", **(said | {"n": 1}))
    assert keeps(joined(chunks))


def test_a_suffix_is_seen(server, lm):
    answer = server.ask("/v1/completions", prompt="pack ", suffix=" jugs", max_tokens=6, seed=1)
    assert answer["choices"][0]["text"] == lm.fill("pack ", " jugs", tokens=6, seed=1).gaps[0]
    assert answer["usage"]["prompt_tokens"] == 10
    fim = server.ask("/v1/fim/completions", prompt="pack ", suffix=" jugs", min_tokens=6, max_tokens=6, random_seed=1)
    assert fim["choices"][0]["text"] == answer["choices"][0]["text"]


def test_gaps_are_filled(server, lm):
    own = lm.fill("a<gap:3>bc<gap>d", gap_tokens=5, seed=4)
    answer = server.ask("/v1/fill", text="a<gap:3>bc<gap>d", gap_tokens=5, seed=4)
    assert answer["text"] == own.text
    assert [gap["text"] for gap in answer["gaps"]] == list(own.gaps)
    assert [gap["tokens"] for gap in answer["gaps"]] == [3, 5]
    for gap in answer["gaps"]:
        assert answer["text"][gap["start"] : gap["end"]] == gap["text"]
        assert 0 <= gap["confidence"] <= 1
    *deltas, last = server.events("/v1/fill", text="a<gap:3>bc<gap>d", gap_tokens=5, seed=4, diffusing=True)
    assert "".join(chunk["delta"] for chunk in [*deltas, last]) == own.text
    assert (last["gaps"], last["usage"]) == (answer["gaps"], answer["usage"])
    states = [change["state"] for change in deltas[0]["unmask"]["changed"]]
    assert (states.count("given"), states.count("open")) == (4, 8)


def test_a_gap_between_bounds_keeps_to_them(server):
    answer = server.ask("/v1/fill", text="a<gap:2-30>bcd<gap:1-2>e", seed=4)
    first, second = (gap["tokens"] for gap in answer["gaps"])
    assert 2 <= first <= 30
    assert 1 <= second <= 2
    assert answer["text"].startswith("a")
    assert answer["text"].endswith("e")


def test_spans_are_reconsidered(server, lm):
    answer = server.ask("/v1/edit", text=TEXT, spans=[[21, 22], [4, 5]], seed=1)
    own = lm.fill(TEXT[:4], TEXT[5:21], TEXT[22:], tokens=[1, 1], seed=1)
    assert answer["text"] == own.text
    for change in answer["changes"]:
        assert answer["text"][change["start"] : change["end"]] == change["after"] != change["before"]
    *_, last = server.events("/v1/edit", text=TEXT, spans=[[21, 22], [4, 5]], seed=1)
    assert last["changes"] == answer["changes"]


def test_the_least_expected_share_is_reconsidered(server):
    frames = server.events("/v1/edit", text=TEXT, share=0.25, seed=1, diffusing=True)
    states = [change["state"] for change in next(iter(frames))["unmask"]["changed"]]
    assert states.count("open") == math.ceil(0.25 * len(TEXT))


def test_there_is_a_list_of_everything(server):
    (model,) = server.client.get("/v1/models").json()["data"]
    assert (model["id"], model["context"], model["fills"]) == ("small", 96, True)
    assert server.client.get("/v1/models/small").json() == model
    ways = server.client.get("/v1/presets").json()
    assert ways["presets"].keys() == PRESETS.keys()
    assert ways["options"]["rule"] == "confidence"
    assert "ancestral" in ways["rules"]
    told = server.client.get("/metrics").text
    for name in ("requests_total", "queue_rows", "batch_rows", "tokens_total", "forward_passes_total",
                 "tokens_per_pass", "request_seconds", "time_to_first_draft", "time_to_first_settled"):  # fmt: skip
        assert f"unmask_{name}" in told
    assert server.client.get("/openapi.json").json()["paths"].keys() >= {"/v1/fill", "/v1/chat/completions"}
    assert "<html" in server.client.get("/").text


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("completions", {"prompt": "a", "stepss": 1}, "did you mean 'steps'"),
        ("completions", {"prompt": "a", "steps": "1"}, "steps"),
        ("completions", {"prompt": "a", "steps": 10**9}, "too many"),
        ("completions", {"prompt": "a", "rule": "os:system"}, "names code"),
        ("completions", {"prompt": "a", "rule": {"kind": "os:system"}}, "names code"),
        ("completions", {"prompt": "a", "guidance": {"kind": "os:system"}}, "names code"),
        ("completions", {"prompt": "a", "rule": "nosuch"}, "nosuch"),
        ("completions", {"prompt": "a", "preset": "nosuch"}, "nosuch"),
        ("completions", {"prompt": "a" * 99}, "context of 96"),
        ("completions", {"prompt": "a" * 99999}, "context of 96"),
        ("completions", {"prompt": "a", "max_tokens": 96}, "context of 96"),
        ("completions", {"prompt": "a<|mask|>"}, "mask"),
        ("completions", {"prompt": [257]}, "mask"),
        ("completions", {"prompt": [10**6]}, "vocabulary"),
        ("completions", {"prompt": []}, "prompts"),
        ("completions", {"prompt": "a", "n": 99}, "n=99"),
        ("completions", {"prompt": "a", "seed": 2**63}, "seed"),
        ("completions", {"prompt": "a", "n": 2, "seed": 2**63 - 1}, "seed"),
        ("completions", {"prompt": "a", "frequency_penalty": 0.5}, "frequency_penalty"),
        ("completions", {"prompt": "a", "logprobs": 5}, "logprobs"),
        ("completions", {"prompt": "a", "stop": ""}, "stop"),
        ("completions", {"prompt": "a", "threshold": 0.5, "factor": 1.0}, "threshold"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": CHAT, "max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ("chat/completions", {"messages": CHAT, "tools": [{"type": "function"}]}, "tools"),
        ("chat/completions", {"messages": CHAT, "response_format": {"type": "regex"}}, "regex"),
        ("completions", {"prompt": "a", "response_format": {"type": "regex", "regex": "("}}, "regex"),
        ("completions", {"prompt": "a", "max_tokens": 2, "regex": "aaaa"}, "regex"),
        ("fim/completions", {"prompt": "a", "suffix": "b", "min_tokens": 9, "max_tokens": 3}, "min_tokens=9"),
        ("fill", {"text": "no gap"}, "<gap>"),
        ("fill", {"text": "<gap:0>"}, "gap of 0"),
        ("fill", {"text": "<gap:9-3>"}, "smaller number first"),
        ("fill", {"text": f"<gap:{10**12}>"}, "within the context"),
        ("fill", {"text": "<gap:200>"}, "context"),
        ("edit", {"text": ""}, "nothing to reconsider"),
        ("edit", {"text": "abc", "spans": [[1, 9]]}, "outside"),
        ("edit", {"text": "abc", "spans": [[0, 2], [1, 3]]}, "overlaps"),
        ("edit", {"text": "abc", "spans": [[0, 2]], "share": 0.5}, "share"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(server, path, body, words):
    for stream in (False, True):
        message = server.refused(f"/v1/{path}", **body, stream=stream)
        assert words in message
        assert "\n" not in message


def test_a_model_that_is_not_here(server):
    response = server.post("/v1/completions", model="gpt-4", prompt="a")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert server.client.get("/v1/models/gpt-4").status_code == 404
    assert server.client.get("/nowhere").json()["error"]["type"] == "not_found_error"
    assert server.client.put("/v1/fill").status_code == 405
