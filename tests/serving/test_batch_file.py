"""Whatever happens to a run, every request is answered once: torn lines, kills, two runs at a time, wrong files."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.errors import UserError
from unmask.serving.batch_file import Answered, Answers, requests

URLS = ("/v1/completions", "/v1/fill")


def line(name, **other):
    return {"custom_id": name, "method": "POST", "url": URLS[0], "body": {"prompt": name}} | other


def written(path, lines):
    path.write_text(
        "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines), encoding="utf-8"
    )
    return path


def answer(asked, status=200):
    return Answered(asked, status, {"id": f"cmpl-{asked.custom_id}", "text": "a\nb\u2028é\ud800"})


def ids(path):
    return [json.loads(one)["custom_id"] for one in path.read_text(encoding="utf-8").splitlines()]


def test_requests_are_read(tmp_path):
    path = written(tmp_path / "in.jsonl", [line("a"), "", line("b", url=URLS[1])])
    assert [(one.number, one.custom_id, one.url) for one in requests(path, URLS)] == [
        (1, "a", URLS[0]),
        (3, "b", URLS[1]),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line("a"), "{"], "line 2: is not JSON"),
        (["[" * 100_000], "line 1: is not JSON"),
        (["[]"], "is no JSON object"),
        ([{"custom_id": "a"}], "method is missing"),
        ([line("a") | {"bodi": 1}], "did you mean 'body'"),
        ([line("a", method="GET")], "method='GET'"),
        ([line("a", url="/v1/complete")], "did you mean '/v1/completions'"),
        ([line("a", url=["/v1/fill"])], "is no endpoint"),
        ([line("a", body="text")], "body is no JSON object"),
        ([line("")], "custom_id=''"),
        ([line(7)], "custom_id=7"),
        ([line("a"), line("b"), line("a")], "line 3: custom_id='a' is that of line 1 too"),
        ([], "holds no request"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path, lines, said):
    path = written(tmp_path / "in.jsonl", lines)
    with pytest.raises(UserError, match=r"in\.jsonl") as error:
        requests(path, URLS)
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        requests(tmp_path / "none.jsonl", URLS)
    with pytest.raises(UserError, match="cannot be written"):
        Answers(tmp_path / "none" / "out.jsonl", [])


def test_answers_have_the_format(tmp_path):
    asked = requests(written(tmp_path / "in.jsonl", [line("é")]), URLS)
    with Answers(tmp_path / "out.jsonl", asked) as answers:
        answers.add([answer(asked[0], 400)])
    found = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert found["custom_id"] == "é"
    assert found["response"] == {"status_code": 400, "request_id": "cmpl-é", "body": answer(asked[0]).body}
    assert found["error"] is None
    assert found["id"].startswith("batch_req_")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_file_torn_anywhere_goes_on(tmp_path_factory, data):
    """Cut after any byte: whole lines stand, half a one is dropped, and the rest makes the file whole again."""
    folder = tmp_path_factory.mktemp("torn")
    asked = requests(written(folder / "in.jsonl", [line(str(i)) for i in range(5)]), URLS)
    out = folder / "out.jsonl"
    with Answers(out, asked) as answers:
        answers.add(map(answer, asked))
    whole = out.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    out.write_bytes(whole[:cut])
    with Answers(out, asked) as answers:
        assert answers.done == {str(i) for i in range(whole[:cut].count(b"\n"))}
        answers.add(answer(one) for one in asked if one.custom_id not in answers.done)
    assert out.read_bytes() == whole


def test_another_files_answers_are_left_alone(tmp_path):
    asked = requests(written(tmp_path / "in.jsonl", [line("a")]), URLS)
    for content in ('{"custom_id": "b"}\n', "some text\n", "[]\n", "7\n"):
        (tmp_path / "out.jsonl").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"line 1: (answers 'b'|is no answer)"):
            Answers(tmp_path / "out.jsonl", asked)
        assert (tmp_path / "out.jsonl").read_text(encoding="utf-8") == content


def test_one_run_at_a_time(tmp_path):
    asked = requests(written(tmp_path / "in.jsonl", [line("a")]), URLS)
    with Answers(tmp_path / "out.jsonl", asked), pytest.raises(UserError, match="another run"):
        Answers(tmp_path / "out.jsonl", asked)
    Answers(tmp_path / "out.jsonl", asked).__exit__(None, None, None)


WORKER = """
import random, sys, time
from pathlib import Path
from unmask.serving.batch_file import Answered, Answers, requests
asked = requests(Path(sys.argv[1]), ["/v1/completions"])
print("begun", flush=True)
with Answers(Path(sys.argv[2]), asked) as answers:
    left = [one for one in asked if one.custom_id not in answers.done]
    random.shuffle(left)
    while left:
        some, left = left[:3], left[3:]
        time.sleep(0.002)
        answers.add(Answered(one, 200, {"id": one.custom_id, "text": one.custom_id * 5000}) for one in some)
"""


def test_kills_lose_nothing_and_double_nothing(tmp_path):
    """SIGKILL at random moments, again and again, until a run gets to its end."""
    count, rng = 600, random.Random(0)
    source = written(tmp_path / "in.jsonl", [line(f"r{i}") for i in range(count)])
    out, kills = tmp_path / "out.jsonl", 0
    while True:
        worker = subprocess.Popen([sys.executable, "-c", WORKER, source, out], stdout=subprocess.PIPE)
        assert worker.stdout.readline() == b"begun\n"
        time.sleep(rng.uniform(0, 0.15))
        if worker.poll() is None and kills < 8:
            worker.send_signal(signal.SIGKILL)
            kills += 1
        worker.communicate()
        if worker.returncode == 0:
            break
    assert kills >= 3
    assert sorted(ids(out)) == sorted(f"r{i}" for i in range(count))
