"""Keys, rates and sizes, before anything else is looked at."""

from hashlib import sha256

import pytest
from live import Live

from unmask import UserError
from unmask.serving.limits import Keys, Rate
from unmask.serving.settings import ServeOptions


def test_a_rate_is_so_many_a_minute():
    rate = Rate(minute=2)
    assert [rate.take("a", 0.0), rate.take("a", 0.0)] == [0.0, 0.0]
    assert rate.take("a", 0.0) == pytest.approx(30.0)
    assert rate.take("b", 0.0) == 0.0
    assert rate.take("a", 29.0) == pytest.approx(1.0)
    assert rate.take("a", 30.5) == 0.0


def test_keys_are_known_by_their_hash():
    keys = Keys([sha256(b"one").digest(), sha256(b"two").digest()])
    assert [keys.owner(f"Bearer {key}") for key in ("one", "two", "three", "")] == [0, 1, None, None]
    assert keys.owner("Basic one") is None
    assert keys.owner("bearer one ") == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "--api-key-file"),
        ({"host": "example.org"}, "--api-key-file"),
        ({"port": 99999}, "port"),
        ({"rows": 0}, "rows"),
        ({"what": 1}, "what"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        ServeOptions.of(options)


def test_who_needs_no_key(tmp_path):
    for options in ({}, {"host": "::1"}, {"host": "localhost"}, {"host": "0.0.0.0", "without_key": True}):
        assert ServeOptions.of(options).keys() == []
    (tmp_path / "keys").write_text("one\ntwo\n", encoding="utf-8")
    assert len(ServeOptions.of({"host": "0.0.0.0", "api_key_file": tmp_path / "keys"}).keys()) == 2
    (tmp_path / "keys").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no key"):
        ServeOptions.of({"api_key_file": tmp_path / "keys"}).keys()
    with pytest.raises(UserError, match="cannot be read"):
        ServeOptions.of({"api_key_file": tmp_path / "none"}).keys()


def test_a_server_with_keys_and_rates(lm, tmp_path, caplog):
    (tmp_path / "keys").write_text("secret\nother\n", encoding="utf-8")
    asked = {"prompt": "a", "max_tokens": 2}
    with Live(lm, api_key_file=tmp_path / "keys", rate=2, body=300) as server:
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            response = server.client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        assert server.client.get("/health").status_code == server.client.get("/").status_code == 200
        mine, yours = ({"authorization": f"Bearer {key}"} for key in ("secret", "other"))
        assert server.client.get("/v1/models", headers=mine).status_code == 200
        for _ in range(2):
            assert server.client.post("/v1/completions", json=asked, headers=mine).status_code == 200
        late = server.client.post("/v1/completions", json=asked, headers=mine)
        assert (late.status_code, late.json()["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(late.headers["retry-after"]) <= 30
        assert server.client.post("/v1/completions", json=asked, headers=yours).status_code == 200
        assert server.client.post("/v1/completions", content=b"x" * 301, headers=yours).status_code == 413
    assert "secret" not in caplog.text
