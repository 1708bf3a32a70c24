"""Training speed of the masked model against the naive recipe, step for step.

    python benchmarks/training_speed.py --dtype bf16 --steps 10

Ours: `Denoiser`, `MaskedBound(masks="counted")` and `AdamWPlan`, as `unmask train` runs them: gradients clipped at 1.
Naive: the Llama of `transformers` of the same size with its causal mask removed (checked below), logits at every
position, LLaDA's published pre-training loss (t ~ U a row, masks drawn one by one, cross-entropy of the masked
positions over p_mask), torch's AdamW as it comes. With bf16 both run under autocast.

Each side has a process of its own, as its users run it: ours reuses freed memory, as `unmask train` does on a
processor. The two take turns, a matmul peak is taken beside each pair, and medians are reported: a noisy machine moves
the tokens/s but hardly the ratio. Useful floating point operations of a step on T tokens, N of them asked for:

    one weight of a matmul   6 a token that passes it (forward 2, backward 4)
    attention                12 L H a query and layer, L keys, H = heads x head width (forward 4, backward 8)
    ours                     T tokens through the first layers and the last one's keys and values; N through the last
                             one's queries, output and MLP, and through the head
    naive                    T tokens through everything: that is what it computes, though only N count
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from statistics import median
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.data.packing import windows
from unmask.denoiser import Denoiser
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer
from unmask.noise.draws import seeded
from unmask.noise.tokens import Masking
from unmask.objectives.masked import MaskedBound
from unmask.training.memory import keep_freed_memory
from unmask.training.optim import AdamWPlan
from unmask.training.work import matmul_peak

EPS = 1e-3  # LLaDA never masks with probability below this
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Ours:
    def __init__(self, c: ModelConfig, compiled: bool, device: torch.device) -> None:
        network = Transformer(c).initialise(torch.Generator().manual_seed(0))
        self.mask_id = c.vocab - 1
        self.denoiser = Denoiser(network, mask_id=self.mask_id).to(device).train()
        self.objective = MaskedBound(Masking.over(c.vocab, self.mask_id), masks="counted")
        (self.optimizer,) = AdamWPlan(lr=3e-4).build(self.denoiser)
        self.asked, self.steps, self.device = 0, 0, device
        self.denoiser.register_forward_pre_hook(self._count, with_kwargs=True)
        if compiled:
            network.compile()

    def _count(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.asked += int(kwargs["where"].sum())

    def loss(self, tokens: Tensor) -> Tensor:
        (batch,) = windows(tokens.flatten().tolist(), tokens.shape[1], batch=len(tokens))
        self.steps += 1
        found = self.objective(self.denoiser, batch.to(self.device), seeded(self.steps))
        return found.total / found.count

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.denoiser.parameters())


class Naive:
    asked = 0  # every position is computed

    def __init__(self, c: ModelConfig, compiled: bool, device: torch.device) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=c.vocab,
            hidden_size=c.width,
            intermediate_size=c.mlp_width,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            max_position_embeddings=c.context,
            tie_word_embeddings=False,
            use_cache=False,
        )
        config._attn_implementation = "sdpa"
        config.is_causal = False  # the mask that the model builds
        self.model = cast(Any, LlamaForCausalLM(config)).to(device).train()
        for layer in self.model.model.layers:
            layer.self_attn.is_causal = False  # what attention does without a mask
        self.check_bidirectional(c.vocab, device)
        self.mask_id = c.vocab - 1
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4)
        if compiled:
            self.model.compile()

    @torch.no_grad()
    def check_bidirectional(self, vocab: int, device: torch.device) -> None:
        tokens = torch.arange(16, device=device)[None] % vocab
        other = tokens.clone()
        other[0, -1] += 1
        first, second = (self.model(input_ids=x).logits[0, 0] for x in (tokens, other))
        if torch.equal(first, second):
            raise RuntimeError("the first position does not see the last: this transformers version stayed causal")

    def loss(self, tokens: Tensor) -> Tensor:
        """`forward_process` and the loss of LLaDA's guidelines, as published."""
        b, length = tokens.shape
        t = torch.rand(b, device=tokens.device)
        p_mask = ((1 - EPS) * t + EPS)[:, None].repeat(1, length)
        masked = torch.rand((b, length), device=tokens.device) < p_mask
        noisy = torch.where(masked, self.mask_id, tokens)
        logits = self.model(input_ids=noisy).logits
        token_loss = F.cross_entropy(logits[masked], tokens[masked], reduction="none") / p_mask[masked]
        return token_loss.sum() / (b * length)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())


SIDES: dict[str, type[Ours] | type[Naive]] = {"ours": Ours, "naive": Naive}


def train_step(side: Ours | Naive, tokens: Tensor, dtype: torch.dtype) -> None:
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = side.loss(tokens)
    loss.backward()
    nn.utils.clip_grad_norm_(side.parameters, 1.0)
    side.optimizer.step()
    side.optimizer.zero_grad()


def useful_flops(c: ModelConfig, length: int, tokens: float, last: float) -> float:
    """Of one step: `tokens` pass the network, `last` of them the last layer's queries and MLP, and the head."""
    inner = c.heads * c.head_dim
    keys_values = 2 * c.width * c.n_kv_heads * c.head_dim
    rest = 2 * c.width * inner + 3 * c.width * c.mlp_width
    full = 6 * (keys_values + rest) + 12 * length * inner
    head = 6 * c.vocab * c.width
    return tokens * ((c.layers - 1) * full + 6 * keys_values) + last * (full - 6 * keys_values + head)


def worker(name: str, a: argparse.Namespace, pipe: Connection) -> None:
    """Train a step on whatever rows come, and say how long it took and how many positions were asked for."""
    torch.set_num_threads(a.threads)
    device, side = torch.device(a.device), SIDES[name](shape(a), a.compile in (name, "both"), torch.device(a.device))
    if name == "ours" and device.type == "cpu":
        keep_freed_memory()
    while (rows := pipe.recv()) is not None:
        tokens = torch.tensor(rows, device=device)
        asked = side.asked
        start = time.perf_counter()
        train_step(side, tokens, DTYPES[a.dtype])
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - start, side.asked - asked))


def shape(a: argparse.Namespace) -> ModelConfig:
    return ModelConfig(vocab=8192, width=384, layers=6, heads=6, context=a.length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--steps", type=int, default=10, help="steps timed of each")
    parser.add_argument("--warmup", type=int, default=2, help="steps of each before that")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="rows a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", choices=("ours", "both"), help="torch.compile the network; compiled in warm-up")
    parser.add_argument("--device", default="cpu")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    device, dtype, c = torch.device(a.device), DTYPES[a.dtype], shape(a)

    pipes = {}
    for name in SIDES:
        pipes[name], theirs = multiprocessing.get_context("spawn").Pipe()
        multiprocessing.get_context("spawn").Process(target=worker, args=(name, a, theirs), daemon=True).start()
    rng = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    peaks, asked = [], 0
    for i in range(a.warmup + a.steps):
        rows = torch.randint(0, c.vocab - 1, (a.batch, a.length), generator=rng).tolist()
        for name, pipe in pipes.items():
            pipe.send(rows)
            took, positions = pipe.recv()
            if i >= a.warmup:
                seconds[name].append(took)
                asked += positions
            elif i == 0:
                print(f"first step of {name}: {took:.1f} s", flush=True)
        if i >= a.warmup:
            peaks.append(matmul_peak(device, dtype))
    for pipe in pipes.values():
        pipe.send(None)

    n = a.batch * a.length
    step = {name: median(s) for name, s in seconds.items()}
    ratio = median(slow / fast for slow, fast in zip(seconds["naive"], seconds["ours"]))
    peak = median(peaks)
    flops = {"ours": useful_flops(c, a.length, n, asked / a.steps), "naive": useful_flops(c, a.length, n, n)}
    share = {name: flops[name] / step[name] / peak for name in step}
    print(f"{'':8}{'s/step':>10}{'tokens/s':>12}{'useful GFLOP':>15}{'of peak':>10}")
    for name in step:
        print(f"{name:8}{step[name]:10.3f}{n / step[name]:12,.0f}{flops[name] / 1e9:15,.0f}{share[name]:10.1%}")
    print(f"ours / naive {ratio:.2f}   peak {peak / 1e9:,.0f} GFLOP/s in {a.dtype}, {a.threads} threads")
    record = {
        "dtype": a.dtype,
        "compile": a.compile,
        "threads": a.threads,
        "tokens_per_step": n,
        "tokens_per_second": round(n / step["ours"], 1),
        "naive_tokens_per_second": round(n / step["naive"], 1),
        "ratio": round(ratio, 3),
        "share_of_peak": round(share["ours"], 4),
        "naive_share_of_peak": round(share["naive"], 4),
        "peak_gflops": round(peak / 1e9, 1),
    }
    print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
