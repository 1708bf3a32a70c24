"""What may not be written, and given text that counts for more."""

from __future__ import annotations

import pytest
import torch
from stand_ins import MASK, VOCAB

from unmask.decoding.canvas import Row
from unmask.decoding.sampler import Sampler, decode
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser
from unmask.errors import UserError
from unmask.noise.schedule import Linear
from unmask.noise.tokens import Masking, TokenNoise


@pytest.mark.parametrize("rule", ["confidence", "random", "ancestral", "remdm_cap", "first_hitting"])
def test_a_banned_token_is_never_written(rule: str, masked: Denoiser, masking: Masking) -> None:
    rows = [Row.after([1, 2], 9, seed) for seed in range(8)]
    free = decode(masked, masking, rows, Decoding(rule=rule, temperature=1.0))
    ban = sorted({token for text in free for token in text.tokens})[:6]
    held = decode(masked, masking, rows, Decoding(rule=rule, temperature=1.0, ban=ban))
    assert not {token for text in held for token in text.tokens} & set(ban)


def test_late_tokens_wait_for_the_others(masked: Denoiser, masking: Masking) -> None:
    """At any temperature: LLaDA's code sets the wrong tensor above 0. A late token is written first only where
    every open position proposes one, so on average they come well after the others."""
    rows = [Row.after([1, 2], 9, seed) for seed in range(20)]
    late = list(range(6))
    plain, waits = (
        decode(masked, masking, rows, Decoding(rule="confidence", temperature=1.0, late=tokens))
        for tokens in ((), late)
    )

    def mean_pass(texts) -> float:
        steps = [at for t in texts for token, at in zip(t.tokens, t.settled_at[2:]) if token in late]
        return sum(steps) / len(steps)

    assert mean_pass(waits) > mean_pass(plain) + 0.5


def test_guidance_is_the_published_mix_of_two_passes_in_one(masked: Denoiser, masking: Masking) -> None:
    """LLaDA: u + (s + 1)(c - u), u with the prompt masked."""
    prompt, scale = [1, 2, 3], 1.5
    row = Row.after(prompt, 1)
    sampler = Sampler(masked, masking, Decoding(guidance=scale))
    (text,) = sampler([row])
    x = torch.tensor([[*prompt, MASK], [MASK] * 4])
    sees, blind = masked(x).logits().view(2, 4, VOCAB)[:, -1]
    mixed = (blind + (scale + 1) * (sees - blind))[:MASK]
    assert text.tokens == [int(mixed.argmax())]
    assert (sampler.counts.forwards, text.counts.queries) == (1, 8)


def test_guidance_hides_the_given_text_behind_noise_that_the_network_knows_for_such(masked: Denoiser) -> None:
    uniform = TokenNoise(torch.tensor([1 / MASK] * MASK + [0.0]), Linear())
    with pytest.raises(UserError, match="guidance: it hides the given text behind noise"):
        decode(masked, uniform, [Row.after([1], 3)], Decoding(guidance=1.0))


def test_a_banned_token_must_exist(masked: Denoiser, masking: Masking) -> None:
    with pytest.raises(UserError, match="ban: 99 is not in the model's vocabulary of 13"):
        decode(masked, masking, [Row.after([1], 3)], Decoding(ban=[99]))
