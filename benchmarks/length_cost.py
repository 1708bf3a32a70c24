"""What a token costs as the text grows: block diffusion with its exact cache, from short texts to long ones.

    python benchmarks/length_cost.py --tokens 256 1024 4096 --out docs/length_cost.png

Random weights, a prompt of 128 tokens, blocks of 32 in eight passes each, one text at a time. A pass looks at all that
stands before its block, so attention itself takes time in proportion to the length; it is timed apart, and what is
left should stay as it is. Memory is that of the weights and the most that writing took on top. Prints a line of JSON
for each length.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from unmask.bench import SHAPES, of_shape
from unmask.decoding.settings import Decoding
from unmask.evaluation.speed import Diffusion, prompts_of, race

BLOCK, PASSES, PROMPT = 32, 8, 128


@contextmanager
def attention_timed() -> Iterator[list[float]]:
    """Seconds of every attention call inside."""
    attend, seconds = F.scaled_dot_product_attention, []

    def timed(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        out = attend(*given, **named)
        seconds.append(time.perf_counter() - began)
        return out

    F.scaled_dot_product_attention = timed
    try:
        yield seconds
    finally:
        F.scaled_dot_product_attention = attend


def cost(shape: str, tokens: int, rounds: int) -> dict[str, float]:
    """Milliseconds a new token, attention apart, and megabytes."""
    config = SHAPES[shape].model_copy(update={"context": PROMPT + tokens})
    denoiser, process = of_shape(config, torch.device("cpu"), torch.float32, BLOCK)
    settings = Decoding(rule="confidence", block=BLOCK, block_steps=PASSES, cache="exact")
    writer, prompts = Diffusion(denoiser, process, settings), prompts_of(torch.arange(config.vocab - 1), 1, PROMPT)
    (speed,) = race([writer], prompts, tokens, torch.device("cpu"), rounds)
    with attention_timed() as seconds:
        writer.write(prompts, tokens)
    return {
        "tokens": tokens,
        "ms_per_token": round(1e3 * speed.seconds / tokens, 3),
        "attention_ms_per_token": round(1e3 * sum(seconds) / tokens, 3),
        "forwards": speed.work.forwards,
        "megabytes": round((speed.memory or 0) / 2**20, 1),
    }


def plot(found: list[dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (time_, memory) = plt.subplots(1, 2, figsize=(9, 3.6), dpi=140)
    lengths = [one["tokens"] for one in found]
    rest = [one["ms_per_token"] - one["attention_ms_per_token"] for one in found]
    time_.plot(lengths, [one["ms_per_token"] for one in found], marker="o", label="all")
    time_.plot(lengths, rest, marker="o", label="without attention")
    time_.set(xlabel="new tokens", ylabel="milliseconds a token", ylim=(0, None))
    time_.legend(frameon=False)
    memory.plot(lengths, [one["megabytes"] for one in found], marker="o")
    memory.set(xlabel="new tokens", ylabel="megabytes, weights and writing", ylim=(0, None))
    for axes in (time_, memory):
        axes.grid(alpha=0.25)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", nargs="+", type=int, default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="a PNG of both curves")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    found = []
    for tokens in a.tokens:
        found.append(cost(a.shape, tokens, a.rounds))
        print(json.dumps(found[-1]), flush=True)
    first, last = (one["ms_per_token"] - one["attention_ms_per_token"] for one in (found[0], found[-1]))
    print(f"without attention a token of the longest text costs {last / first:.2f} times one of the shortest")
    if a.out is not None:
        plot(found, a.out)


if __name__ == "__main__":
    main()
