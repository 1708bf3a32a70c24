"""Self-speculation against the same weights left to right: our own decoding, and `transformers` generate.

    unmask train joint --out runs/joint
    python benchmarks/self_speculation.py runs/joint

Texts of 256 tokens after 50 pieces of held-out documents, one at a time, all sides in turns, medians. The model's
autoregressive weights are exported under Qwen 3's names, so `transformers` runs them as any other model: plainly, and
with its prompt lookup, since ours looks guesses up too. At temperature 0 every side must write the same tokens; the
number of those that differ is printed. At temperature 1 ours must write the same text with speculation as without.
Where the text came from: `--text`, by default the held-out part of the embedded corpus, as a training run splits it
off.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

import unmask
from unmask.base import model_folder
from unmask.convert import convert
from unmask.data.sources import read, split_documents
from unmask.decoding.canvas import Row
from unmask.decoding.sampler import decode
from unmask.decoding.settings import SPECULATING, Decoding
from unmask.lm import LanguageModel

PEER, PEER_LOOKUP = "transformers", "transformers, prompt lookup"
PLAIN, QUICK = "left to right", "self-speculation"


@dataclass
class Side:
    """write: a prompt and a seed to new tokens and, where it speculates, (guesses checked, those that stayed, those of
    them that were looked up in the text) of each pass."""

    write: Callable[[list[int], int], tuple[list[int], list[tuple[int, int, int]]]]
    seconds: list[float] = field(default_factory=list)
    texts: list[list[int]] = field(default_factory=list)
    passes: list[tuple[int, int, int]] = field(default_factory=list)

    def turn(self, prompt: list[int], seed: int) -> None:
        began = time.perf_counter()
        tokens, drafts = self.write(prompt, seed)
        self.seconds.append(time.perf_counter() - began)
        self.texts.append(tokens)
        self.passes += drafts

    def differing(self, other: Side) -> int:
        return sum(a != b for mine, theirs in zip(self.texts, other.texts) for a, b in zip(mine, theirs, strict=True))


def ours(lm: LanguageModel, length: int, **said: Any) -> Side:
    settings, process = Decoding(**said), lm.method.process(lm.symbols, lm.denoiser.network)

    def write(prompt: list[int], seed: int) -> tuple[list[int], list[tuple[int, int, int]]]:
        [done] = decode(lm.denoiser, process, [Row.after(prompt, length, seed)], settings)
        return done.tokens, list(done.drafts)

    return Side(write)


def peer(lm: LanguageModel, folder: Path, length: int, **said: Any) -> Side:
    """The exported weights, which read a start token first and may not write what our model never does."""
    from transformers import AutoModelForCausalLM

    convert(str(folder), folder_of_peer := Path(tempfile.mkdtemp()) / "peer", to="qwen3")
    dtype = lm.denoiser.network.embed.weight.dtype
    model: Any = AutoModelForCausalLM.from_pretrained(folder_of_peer, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    start, banned = lm.symbols.start_id, lm.denoiser.banned.tolist()

    @torch.inference_mode()
    def write(prompt: list[int], seed: int) -> tuple[list[int], list[tuple[int, int, int]]]:
        ids = torch.tensor([[start, *prompt]])
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=length,
            suppress_tokens=banned,
            pad_token_id=lm.tokenizer.pad_id,
            **said,
        )
        return out[0, ids.shape[1] :].tolist(), []

    return Side(write)


def prompts_of(lm: LanguageModel, a: argparse.Namespace) -> list[list[int]]:
    texts = list(read(a.text)) if a.text else split_documents(list(read("stdlib")), "valid", a.valid_fraction)
    encoded = (lm.tokenizer.encode_plain(text) for text in texts)
    each = a.prompt + a.tokens
    found = [ids[i : i + a.prompt] for ids in encoded for i in range(0, len(ids) - each + 1, each)][: a.prompts]
    if len(found) < a.prompts:
        raise SystemExit(f"there are only {len(found)} pieces of {each} tokens; lower --prompts or --prompt")
    return found


def race(sides: dict[str, Side], prompts: list[list[int]], length: int) -> None:
    """Who begins changes with every prompt; the first prompt is written once before the clock runs."""
    order = list(sides.values())
    for side in order:
        side.write(prompts[0], 0)
    for i, prompt in enumerate(prompts):
        for k in range(len(order)):
            order[(i + k) % len(order)].turn(prompt, i)
        line = ", ".join(f"{name} {length / median(side.seconds):.1f}" for name, side in sides.items())
        print(f"{i + 1}/{len(prompts)} tokens/s: {line}", flush=True)


def told(sides: dict[str, Side], length: int) -> dict[str, Any]:
    quick = sides[QUICK]
    drafted, accepted, looked_up = ([each[i] for each in quick.passes] for i in range(3))
    return {
        "tokens_per_second": {name: round(length / median(side.seconds), 2) for name, side in sides.items()},
        "speedup": {
            name: round(median(s / q for s, q in zip(side.seconds, quick.seconds)), 3) for name, side in sides.items()
        },
        "tokens_differing": {name: quick.differing(side) for name, side in sides.items()},
        "tokens_compared": sum(map(len, quick.texts)),
        "drafted_per_pass": round(mean(drafted), 3),
        "accepted_per_pass": round(mean(accepted), 3),
        "looked_up_of_accepted": round(sum(looked_up) / max(sum(accepted), 1), 3),
        "tokens_per_pass": round(mean(accepted) + 1, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a joint model's run or folder")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--text", help="a source of texts to begin")
    parser.add_argument("--valid-fraction", type=float, default=0.03, help="of the corpus that training held out")
    parser.add_argument("--block", type=int, help="draft blocks of this size everywhere; default what pays")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="3 prompts, 32 tokens")
    a = parser.parse_args()
    if a.quick:
        a.prompts, a.tokens = 3, 32
    torch.set_num_threads(a.threads)
    lm, folder = unmask.load(a.model, device="cpu", dtype=a.dtype), model_folder(a.model)
    prompts = prompts_of(lm, a)
    for temperature in (0.0, 1.0):
        sides = {
            PLAIN: ours(lm, a.tokens, temperature=temperature),
            QUICK: ours(lm, a.tokens, temperature=temperature, rule=SPECULATING, block=a.block),
        }
        if temperature == 0:
            looking = peer(lm, folder, a.tokens, prompt_lookup_num_tokens=10)
            sides = {PEER: peer(lm, folder, a.tokens), PEER_LOOKUP: looking} | sides
        race(sides, prompts, a.tokens)
        about = {"parameters": lm.parameters, "dtype": a.dtype, "threads": a.threads, "temperature": temperature}
        print(json.dumps(about | told(sides, a.tokens)), flush=True)


if __name__ == "__main__":
    main()
