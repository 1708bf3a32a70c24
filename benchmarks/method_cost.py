"""What a training step costs by one method or another, in time and in memory: the same network, rows and optimiser.

    python benchmarks/method_cost.py masked block:size=16 --length 1024

Methods as in `unmask compare --methods`. Six layers of width 384 and a vocabulary of 8192; forward, backward, clipping
and AdamW. Each method has a process of its own; they take turns, medians are reported, and ratios to the first one.
Memory is the most that a process took beyond what it held before its first step: gradients, the optimiser's state and
all that a step keeps for its backward pass. Prints a line of JSON for each method.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from statistics import median

import torch
from torch import nn

from unmask.data.packing import windows
from unmask.grid import Entrant
from unmask.methods.method import Symbols
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.noise.draws import seeded
from unmask.recipe import method_of
from unmask.training.memory import keep_freed_memory
from unmask.training.optim import AdamWPlan

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VOCAB = 8192
SYMBOLS = Symbols(VOCAB, mask_id=VOCAB - 1, start_id=0)


def worker(name: str, a: argparse.Namespace, pipe: Connection) -> None:
    """Train a step on whatever rows come; say how long it took and how much memory has been taken so far, in bytes."""
    torch.set_num_threads(a.threads)
    keep_freed_memory()
    method = method_of(Entrant.read(name).spec)
    config = method.shape(ModelConfig(vocab=VOCAB, width=384, layers=6, heads=6, context=a.length))
    denoiser = method.denoiser(Transformer(config).initialise(torch.Generator().manual_seed(0)), SYMBOLS).train()
    objective, optimizers = method.objective(SYMBOLS), AdamWPlan(lr=3e-4).build(denoiser)
    before, step = held(), 0
    while (rows := pipe.recv()) is not None:
        began, step = time.perf_counter(), step + 1
        (batch,) = windows(rows, a.length, batch=a.batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            found = objective(denoiser, batch, seeded(step))
        (found.total / found.count).backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        pipe.send((time.perf_counter() - began, held() - before))


def held() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="rows a step")
    parser.add_argument("--steps", type=int, default=5, help="steps timed of each")
    parser.add_argument("--warmup", type=int, default=2, help="steps of each before that")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()

    spawn, pipes = multiprocessing.get_context("spawn"), {}
    for name in a.methods:
        pipes[name], theirs = spawn.Pipe()
        spawn.Process(target=worker, args=(name, a, theirs), daemon=True).start()
    rng = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in a.methods}
    memory = dict.fromkeys(a.methods, 0)
    for i in range(a.warmup + a.steps):
        rows = torch.randint(0, VOCAB - 1, (a.batch * a.length,), generator=rng).tolist()
        for name, pipe in pipes.items():
            pipe.send(rows)
            took, memory[name] = pipe.recv()
            seconds[name] += [took] * (i >= a.warmup)
    for pipe in pipes.values():
        pipe.send(None)
    first = a.methods[0]
    for name, took in seconds.items():
        record = {
            "method": name,
            "length": a.length,
            "dtype": a.dtype,
            "tokens_per_second": round(a.batch * a.length / median(took), 1),
            f"speed / {first}": round(median(x / y for x, y in zip(seconds[first], took)), 3),
            "MiB": memory[name] >> 20,
            f"memory / {first}": round(memory[name] / memory[first], 2),
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
