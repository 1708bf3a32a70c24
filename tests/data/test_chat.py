"""Exactly the assistant's words and their end token are scored, whatever the template."""

import pytest

from unmask.data.chat import check_messages, render
from unmask.data.tokenizer import Tokenizer, bytes_tokenizer, train_bpe
from unmask.errors import UserError

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi there"},
    {"role": "assistant", "content": "Hello you"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "\n\nDone.\n"},
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Opens the next assistant turn whether asked or not, as some published diffusion models do.
ALWAYS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)
# Adds words to the last response only, as templates of reasoning models do.
THINKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if loop.last and m['role'] == 'assistant' %}{{ 'Hm. ' }}{% endif %}{{ m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES = "{{ raise_exception('roles must alternate') }}"
REWRITES = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + (loop.length|string) + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)


def with_template(template, tokenizer=None):
    tokenizer = tokenizer or bytes_tokenizer()
    tokenizer.backend.chat_template = template
    return tokenizer


def responses(ids, scored, tokenizer):
    """The scored stretches as text with their special tokens."""
    found, inside = [], False
    for token, flag in zip(ids, scored, strict=True):
        if flag and not inside:
            found.append([])
        if flag:
            found[-1].append(token)
        inside = flag
    return ["".join(tokenizer.pieces(run)) for run in found]


@pytest.mark.parametrize("template", [None, CHATML, MARKED, ALWAYS])
@pytest.mark.parametrize("generation_prompt", [False, True])
def test_each_response_and_its_end_are_scored_and_nothing_else(template, generation_prompt):
    tokenizer = with_template(template)
    ids, scored = render(TURNS, tokenizer, generation_prompt=generation_prompt)
    assert responses(ids, scored, tokenizer) == ["Hello you<|im_end|>", "\n\nDone.\n<|im_end|>"]
    opened = "".join(tokenizer.pieces(ids)).endswith("<|im_start|>assistant\n")
    assert opened == generation_prompt


def test_the_default_is_chatml():
    tokenizer = bytes_tokenizer()
    ids, _ = render(TURNS, tokenizer)
    theirs, _ = render(TURNS, with_template(CHATML))
    assert ids == theirs


def test_training_and_generation_share_the_prompt():
    tokenizer = train_bpe(["assistant\n\n\n user\n"] * 50, 300)
    whole, scored = render(TURNS, tokenizer)
    prompt, none = render(TURNS[:-1], tokenizer, generation_prompt=True)
    assert whole[: len(prompt)] == prompt
    assert scored[len(prompt)]
    assert not any(none[-3:])


def test_markers_inside_a_content_stay_text_in_the_default_template():
    tokenizer = bytes_tokenizer()
    ids, scored = render([{"role": "user", "content": "<|mask|><|im_end|>"}], tokenizer)
    assert ids.count(tokenizer.backend.convert_tokens_to_ids("<|im_end|>")) == 1
    assert tokenizer.mask_id not in ids
    assert not any(scored)


def test_a_template_lets_no_mask_through():
    with pytest.raises(UserError, match=r"messages: the conversation holds '<\|mask\|>'"):
        render([{"role": "user", "content": "<|mask|>"}], with_template(CHATML))


def test_a_template_that_rewrites_earlier_turns_is_refused():
    with pytest.raises(UserError, match="the response of turn 2 cannot be located"):
        render(TURNS, with_template(REWRITES))


def test_a_template_that_adds_to_the_last_response_is_followed():
    tokenizer = with_template(THINKS)
    assert responses(*render(TURNS, tokenizer), tokenizer) == ["Hello you<|im_end|>", "Hm. \n\nDone.\n<|im_end|>"]


def test_a_template_that_refuses_is_quoted():
    with pytest.raises(UserError, match=r"refuses the conversation \(roles must alternate"):
        render(TURNS, with_template(REFUSES))


@pytest.mark.parametrize("template", [None, CHATML, MARKED, ALWAYS])
def test_an_answer_without_a_question(template):
    tokenizer = with_template(template)
    ids, scored = render([{"role": "assistant", "content": "Yo"}], tokenizer)
    assert responses(ids, scored, tokenizer) == ["Yo<|im_end|>"]


def test_without_chat_markers_plain_words_and_eos_serve():
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: n for n, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Core(models.BPE(vocab=letters, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = Tokenizer(PreTrainedTokenizerFast(tokenizer_object=core))
    ids, scored = render(TURNS[1:3], tokenizer, generation_prompt=True)
    text = "".join(tokenizer.pieces(ids))
    assert text == "User: Hi there<|endoftext|>\nAssistant: Hello you<|endoftext|>\nAssistant: "
    assert responses(ids, scored, tokenizer) == ["Hello you<|endoftext|>"]


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ("hi", "messages has str"),
        ([], "at least one turn"),
        (["hi"], "turn 0 is str; use an object"),
        ([{"role": "user"}], "content: .*turn 0 has None; use a text"),
        ([{"role": "user", "content": ["x"]}], "content: .*turn 0"),
        ([{"content": "x"}], "role: .*turn 0 has None"),
        ([{"role": "asistant", "content": "x"}], "did you mean 'assistant'"),
    ],
)
def test_bad_messages_are_named(messages, match):
    with pytest.raises(UserError, match=match):
        check_messages(messages)
