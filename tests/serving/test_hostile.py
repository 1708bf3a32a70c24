"""Bodies that no client should send: each gets one clear sentence, and the server goes on."""

import json
import random

import pytest

from unmask.serving.schema import ChatRequest, CompletionRequest, EditRequest, FillRequest, FimRequest

GOOD = {
    "/v1/chat/completions": (ChatRequest, {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}),
    "/v1/completions": (CompletionRequest, {"prompt": "a", "max_tokens": 3}),
    "/v1/fim/completions": (FimRequest, {"prompt": "a", "suffix": "b", "max_tokens": 3}),
    "/v1/fill": (FillRequest, {"text": "a<gap:2>b"}),
    "/v1/edit": (EditRequest, {"text": "abcdef"}),
}
HUGE, TINY = 10**30, 5e-324
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, HUGE, -HUGE, 0.5, -0.0, 1e308, TINY, float("nan"), float("inf"),
    "", "a", "\x00", "\ud800", "\U0010ffff" * 3, "<gap:3-2>", "<|mask|><|im_start|>", "os:system", "../../etc/passwd",
    "a" * 5000, [], [[]], [None], ["a", 1], [-1], [2**40], {}, {"kind": "os:system"}, {"kind": "psi", "early": 2},
    {"kind": ["x"]}, {"a": {"b": {}}}, [{"role": "user", "content": "a"}] * 300, {"type": "regex", "regex": "(a+)+$"},
    {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}, {"type": "regex", "regex": "("},
]  # fmt: skip


def bodies(rng, count):
    """(path, bytes, what): the same ones for a seed."""
    for number in range(count):
        path = rng.choice(list(GOOD))
        schema, good = GOOD[path]
        kind = KINDS[number % len(KINDS)]
        yield path, kind(rng, schema, dict(good)), kind.__name__


def wrong_value(rng, schema, good):
    good[rng.choice(list(schema.model_fields))] = rng.choice(VALUES)
    return json.dumps(good).encode()


def wrong_values(rng, schema, good):
    for name in rng.sample(list(schema.model_fields), 4):
        good[name] = rng.choice(VALUES)
    return json.dumps(good).encode()


def truncated(rng, schema, good):
    whole = json.dumps(good).encode()
    return whole[: rng.randrange(len(whole))]


def flipped(rng, schema, good):
    whole = bytearray(json.dumps(good).encode())
    for _ in range(rng.randint(1, 4)):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    return bytes(whole)


def nested(rng, schema, good):
    opening, closing = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
    depth = rng.choice([50, 900, 10_000])
    deep = opening * depth + b"1" + closing * depth
    return rng.choice([deep, b'{"prompt":' + deep + b"}", b'{"rule":' + deep + b',"text":"<gap>"}', opening * depth])


def odd(rng, schema, good):
    return rng.choice([
        b"", b"null", b"3", b'"a"', b"\xff\xfe\x00", b"\xef\xbb\xbf{}", b"{}", b"[]", b'{"prompt":"\xc3"}',
        b'{"prompt":"a","prompt":"b"}', b'{"seed":' + b"9" * 5000 + b"}", b'{"\\ud800":1}', b"\x00" * 100,
        b'{"prompt":"a","model":"\\ud800"}', json.dumps(good).encode("utf-16"), b"prompt=a",
    ])  # fmt: skip


KINDS = [wrong_value, truncated, wrong_values, flipped, nested, odd]


def attack(server, count, seed):
    rng = random.Random(seed)
    for path, body, kind in bodies(rng, count):
        headers = {"content-type": rng.choice(["application/json"] * 9 + ["text/plain"])}
        response = server.client.post(path, content=body, headers=headers)
        assert response.status_code < 500, (kind, path, body[:300], response.text)
        if response.status_code != 200:
            error = response.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            for leak in ("Traceback", ".py", "/root", "site-packages", "unmask."):
                assert leak not in error["message"], (body[:300], error)
    server.settles()
    assert server.healthy
    assert server.ask("/v1/completions", prompt="a", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_hostile_bodies(server):
    attack(server, 60, seed=1)


@pytest.mark.slow
def test_many_hostile_bodies(server):
    attack(server, 500, seed=2)


@pytest.mark.parametrize("size", [2 << 20, pytest.param(50 << 20, marks=pytest.mark.slow)])
def test_a_giant_body_is_heard_out_and_refused(server, size):
    def pieces():
        for _ in range(size >> 16):
            yield b"a" * (1 << 16)

    for content in (b"a" * size, pieces()):
        response = server.client.post("/v1/completions", content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert server.healthy
