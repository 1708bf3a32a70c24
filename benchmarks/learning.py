"""How much a model learns from a given number of tokens: tinyshakespeare, characters, autoregressive and masked.

    python benchmarks/learning.py DATA_FOLDER --method masked --tokens 1536000

DATA_FOLDER holds train.txt.gz, valid.txt.gz and test.txt.gz (90/5/5 by character). Trains on the train part, 4 layers
of width 192, rows of 256 characters, and scores the valid and test parts together in windows of 256: exactly for the
autoregressive model, by the fixed-count bound for the masked one. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from pathlib import Path

import torch

from unmask.data.packing import windows
from unmask.data.tokenizer import load_tokenizer
from unmask.evaluation.likelihood import score_batches
from unmask.models.checkpoint import load_model
from unmask.recipe import load_recipe
from unmask.run import symbols_of, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--method", default="masked")
    parser.add_argument("--tokens", type=int, default=1_536_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=16, help="network passes a window when the bound is measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", default="runs/learning")
    parser.add_argument("overrides", nargs="*", help="key=value, as for `unmask train`")
    a = parser.parse_intermixed_args()
    torch.set_num_threads(a.threads)

    out = Path(a.out) / f"{a.method}-{a.tokens}-{a.seed}"
    recipe = load_recipe(
        None,
        [
            f"data.source={a.data / 'train.txt.gz'}",
            f"data.valid={a.data / 'valid.txt.gz'}",
            "data.eos=false",
            "tokenizer.kind=bytes",
            *("model.width=192", "model.layers=4", "model.heads=4", "model.hidden=512", "model.context=256"),
            *(f"train.tokens={a.tokens}", "train.batch=8"),
            *a.overrides,
        ],
        method={"kind": a.method},
        out=str(out),
        seed=a.seed,
    )
    result = train(recipe, title=f"{a.method} {a.tokens:,}")

    held_out = b"".join(gzip.decompress((a.data / f"{part}.txt.gz").read_bytes()) for part in ("valid", "test"))
    network, _ = load_model(result.folder)
    tokenizer = load_tokenizer(result.folder)
    method = recipe.build_method()
    denoiser = method.denoiser(network, symbols_of(tokenizer, network.config.vocab))
    rows = windows(tokenizer.encode(held_out.decode()), 256, batch=32, pad_id=tokenizer.pad_id)
    score = score_batches(denoiser, rows, method.estimator(a.draws), seed=1, n_bytes=len(held_out))
    found = {
        "method": a.method,
        "tokens": result.summary.tokens,
        "seed": a.seed,
        "parameters": result.parameters,
        "bits_per_char": round(score.nats / score.tokens / math.log(2), 4),
        "stderr": round(score.stderr / score.tokens / math.log(2), 4),
        "train_seconds": round(result.summary.seconds),
        "tokens_per_second": round(result.summary.tokens_per_second),
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
