"""The clients that people have: OpenAI's own, and LiteLLM."""

import asyncio
import os

import openai
import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no look at the network when it is imported
litellm = pytest.importorskip("litellm")

CHAT = [{"role": "user", "content": "Hi"}]
FIXED = {"max_tokens": 12, "seed": 3}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def lite(server):
    """LiteLLM's two ways of asking, bound to the server."""
    there = {"api_base": f"{server.address}/v1", "api_key": "none", "num_retries": 0}

    def ask(call, name="openai/small", **body):
        return call(model=name, **there, **body)

    return ask


def test_openai_chats(client, lm):
    answer = client.chat.completions.create(model="small", messages=CHAT, **FIXED)
    assert answer.choices[0].message.content == lm.chat(CHAT, **FIXED).text
    assert answer.usage.completion_tokens == 12
    assert answer.usage.forward_passes == 12
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").id == "small"


def test_openai_completes_between_prompt_and_suffix(client, lm):
    answer = client.completions.create(model="small", prompt="pack ", suffix=" jugs", **FIXED)
    assert answer.choices[0].text == lm.fill("pack ", " jugs", tokens=12, seed=3).gaps[0]


def test_openai_streams(client):
    whole = client.chat.completions.create(model="small", messages=CHAT, **FIXED)
    chunks = list(client.chat.completions.create(
        model="small", messages=CHAT, stream=True, stream_options={"include_usage": True},
        extra_body={"diffusing": True, "steps": 12}, **FIXED,
    ))  # fmt: skip
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert [c.unmask["passes"] for c in chunks if hasattr(c, "unmask")] == list(range(13))


def test_openai_asks_for_several_with_a_stop(client):
    several = client.completions.create(model="small", prompt="a", n=3, temperature=1.0, **FIXED)
    assert len({choice.text for choice in several.choices}) == 3
    stop = several.choices[1].text[:1]
    cut = client.completions.create(model="small", prompt="a", n=3, temperature=1.0, stop=[stop], **FIXED)
    assert cut.choices[1].text == ""
    assert cut.choices[1].finish_reason == "stop"


def test_openai_tells_logprobs(client):
    answer = client.chat.completions.create(model="small", messages=CHAT, logprobs=True, **FIXED)
    assert len(answer.choices[0].logprobs.content) == 12


def test_openai_errors(client, server):
    with pytest.raises(openai.BadRequestError, match="did you mean 'steps'"):
        client.completions.create(model="small", prompt="a", extra_body={"step": 3})
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="small", prompt="a" * 99)
    assert long.value.code == "context_length_exceeded"


def test_openai_cancels(client, empty):
    with client.completions.create(model="small", prompt="a", max_tokens=90, stream=True) as stream:
        for _ in stream:
            break
    empty.settles()

    async def gone():
        async with openai.AsyncOpenAI(base_url=f"{empty.address}/v1", api_key="none", max_retries=0) as there:
            asked = asyncio.create_task(there.completions.create(model="small", prompt="a", max_tokens=90))
            await asyncio.sleep(0.05)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked

    asyncio.run(gone())


def test_litellm_chats_and_streams(lite, lm):
    own = lm.chat(CHAT, **FIXED).text
    answer = lite(litellm.completion, messages=CHAT, **FIXED)
    assert answer.choices[0].message.content == own
    chunks = list(lite(litellm.completion, messages=CHAT, stream=True, **FIXED))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == own
    several = lite(litellm.completion, messages=CHAT, n=2, temperature=1.0, stop=["\n"], **FIXED)
    assert len(several.choices) == 2


def test_litellm_completes(lite, lm):
    answer = lite(litellm.text_completion, "text-completion-openai/small", prompt="pack ", suffix=" jugs", **FIXED)
    assert answer.choices[0].text == lm.fill("pack ", " jugs", tokens=12, seed=3).gaps[0]


def test_litellm_errors(lite):
    with pytest.raises(litellm.BadRequestError, match="context of 96"):
        lite(litellm.completion, messages=[{"role": "user", "content": "a" * 200}])
    with pytest.raises(litellm.NotFoundError, match="gpt-4"):
        lite(litellm.completion, "openai/gpt-4", messages=CHAT)
