"""What a constraint costs a step: the same model writes the same number of tokens with and without one, in turns.

    python benchmarks/constrained.py --shape large --batch 1 --cache dual

Random weights, a prompt of 128 tokens, blocks of 32, a token a step. Free and constrained rows take turns step by step,
so that a noisy machine slows both; the median of the steps counts. The vocabulary is all bytes and pieces of Python's
standard library, as many as the model has symbols. Prints one JSON line a language: seconds of a step without and with
it, their ratio less one, seconds to make the automaton and to find where every token leads, states, sorts and pairs.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sysconfig
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from unmask.bench import SHAPES, of_shape
from unmask.decoding.batch import Batch
from unmask.decoding.canvas import Row
from unmask.decoding.constrain.automaton import automaton
from unmask.decoding.constrain.tokens import Vocabulary
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser
from unmask.noise.process import Process

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "pattern": r"^[a-z.]+@[a-z]+\.(com|org)$"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 3, "maxItems": 40},
        "notes": {"type": "string"},
    },
    "required": ["name", "age", "email", "tags", "notes"],
}
LANGUAGES: dict[str, dict[str, Any]] = {
    "any text": {"regex": r"(?s:.)*"},
    "words": {"regex": r"[a-z]+( [a-z]+)*"},
    "dates": {"regex": r"\d{4}-\d{2}-\d{2}(, \d{4}-\d{2}-\d{2})*"},
    "string": {"json_schema": {"type": "string"}},
    "person": {"json_schema": PERSON},
    "any JSON": {"json_schema": True},
}


def pieces(size: int) -> list[bytes | None]:
    """All bytes, then pieces of words as they stand in the standard library; the last two are an end and a mask."""
    text = b"".join(path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:120])
    words, rng = sorted(set(re.findall(rb" ?\w+|\s+|[^\w\s]+", text))), random.Random(0)
    found = dict.fromkeys(bytes([byte]) for byte in range(256))
    while len(found) < size - 2:
        word = rng.choice(words)
        found[word[: rng.randint(2, 12)]] = None
    return [*found, None, None]


def seconds_of(free: Batch, kept: Batch) -> tuple[float, float]:
    """Medians over the steps, taken in turns; the first of each is left out."""
    laps: list[tuple[float, float]] = []
    while len(free) and len(kept):
        lap = []
        for batch in (free, kept):
            began = time.perf_counter()
            batch.step()
            lap.append(time.perf_counter() - began)
        laps.append((lap[0], lap[1]))
    return median(a for a, _ in laps[1:]), median(b for _, b in laps[1:])


def measure(
    denoiser: Denoiser, process: Process, rows: list[Row], usual: Decoding, language: dict[str, Any]
) -> dict[str, Any]:
    began = time.perf_counter()
    settings = usual.saying(language)
    assert settings.constraint is not None
    assert settings.vocabulary is not None
    made = time.perf_counter()
    tokens = settings.vocabulary.lift(settings.constraint.automaton, settings.eos_id, denoiser.vocab)
    lifted = time.perf_counter()
    free, kept = Batch(denoiser, process), Batch(denoiser, process)
    free.join_all(rows, usual)
    kept.join_all(rows, settings)
    without, with_it = seconds_of(free, kept)
    return {
        "free": round(without, 5),
        "constrained": round(with_it, 5),
        "overhead": round(with_it / without - 1, 4),
        "automaton": round(made - began, 3),
        "tokens": round(lifted - made, 3),
        "states": tokens.states,
        "sorts": tokens.sorts,
        "pairs": len(tokens.source),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="large")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--cache", default="none")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--languages", nargs="*", choices=sorted(LANGUAGES), default=list(LANGUAGES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()
    torch.set_num_threads(a.threads)

    denoiser, process = of_shape(SHAPES[a.shape], torch.device("cpu"), DTYPES[a.dtype])
    spelled = pieces(denoiser.vocab)
    usual = Decoding(
        rule="confidence",
        block=a.block,
        cache=a.cache,
        temperature=a.temperature,
        eos_id=denoiser.vocab - 2,
        suppress_eos=True,  # all steps are taken, and the same number with and without
        vocabulary=Vocabulary(lambda: spelled),
    )
    assert usual.vocabulary is not None
    assert len(usual.vocabulary.spelled.length) == denoiser.vocab
    rng = torch.Generator().manual_seed(0)
    prompts = torch.randint(0, 256, (a.batch, a.prompt), generator=rng).tolist()
    rows = [Row.after(prompt, a.tokens, seed=i) for i, prompt in enumerate(prompts)]
    automaton.cache_clear()
    for name in a.languages:
        print(json.dumps({"language": name, **vars(a), **measure(denoiser, process, rows, usual, LANGUAGES[name])}))


if __name__ == "__main__":
    main()
