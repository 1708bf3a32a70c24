"""The loop: what it divides by, what it does with a number that is none, and what it leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from unmask.corpus import prepare
from unmask.errors import UserError
from unmask.models.checkpoint import load_model
from unmask.objectives.next_token import NextToken
from unmask.objectives.objective import Loss
from unmask.run import symbols_of, train
from unmask.training.optim import AdamWPlan
from unmask.training.progress import read_metrics
from unmask.training.train import Trainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "model")[0].state_dict()


def assert_close(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], **tolerance: float) -> None:
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance)


@pytest.mark.parametrize(("method", "bits"), [("masked", 5.2), ("autoregressive", 4.5)])
def test_it_learns(small, method, bits):
    result = train(small("train.steps=60", method={"kind": method}), quiet=True)
    assert result.score is not None
    assert result.score.bits_per_byte < bits  # 8 bits is knowing nothing


def test_accumulated_gradients_equal_one_large_batch(small, tmp_path):
    """Rows of unequal length: dividing each micro-batch by its own count would differ."""
    text = tmp_path / "lines.jsonl"
    text.write_text("".join(json.dumps({"text": "ab" * (i % 13 + 1)}) + "\n" for i in range(80)), encoding="utf-8")
    options = [f"data.source={text}", "train.optimizer.kind=adamw", "train.steps=6", "train.optimizer.eps=1e-4"]
    one = train(small(*options, method={"kind": "autoregressive"}, out=str(tmp_path / "one")), quiet=True)
    many = train(
        small(*options, "train.micro_batch=1", method={"kind": "autoregressive"}, out=str(tmp_path / "many")),
        quiet=True,
    )
    assert one.summary.tokens == many.summary.tokens
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "many"), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_do_what_one_does(small, tmp_path):
    options = ["train.optimizer.kind=adamw", "train.steps=6", "train.optimizer.eps=1e-4"]
    recipe = small(*options, method={"kind": "autoregressive"}, out=str(tmp_path / "two"))
    train(small(*options, method={"kind": "autoregressive"}, out=str(tmp_path / "one")), quiet=True)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nfrom unmask.recipe import Recipe\nfrom unmask.run import train\n"
        "train(Recipe.model_validate_json(open(sys.argv[1]).read()), quiet=True)\n",
        encoding="utf-8",
    )
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    launch += ["--main_process_port", "29631", str(script), str(tmp_path / "recipe.json")]
    done = subprocess.run(launch, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_close(weights(tmp_path / "one"), weights(tmp_path / "two"), rtol=1e-3, atol=1e-4)


class Sometimes:
    """Next-token loss that is not finite at the steps one says."""

    def __init__(self, *bad: int) -> None:
        self.bad, self.calls = bad, 0

    def count(self, batch):
        return batch.n_scored

    def __call__(self, denoiser, batch, rng):
        loss = NextToken()(denoiser, batch, rng)
        self.calls += 1
        return Loss(loss.total * float("nan"), loss.count) if self.calls in self.bad else loss


def trainer(recipe, objective, folder: Path) -> Trainer:
    corpus = prepare(recipe)
    method, symbols = recipe.build_method(), symbols_of(corpus.tokenizer, len(corpus.tokenizer))
    from unmask.models.transformer import Transformer

    config = recipe.model.model_copy(update={"vocab": len(corpus.tokenizer)})
    network = Transformer(config).initialise(torch.Generator().manual_seed(0))
    loader = corpus.loader(recipe, rank=0, world=1, whole=False)
    return Trainer(
        method.denoiser(network, symbols),
        objective,
        loader,
        AdamWPlan(),
        recipe.train,
        folder,
        accelerator=Accelerator(cpu=True),
        quiet=True,
    )


def test_a_step_that_is_not_finite_is_skipped_and_counted(small, tmp_path):
    recipe = small(method={"kind": "autoregressive"})
    run = trainer(recipe, Sometimes(5, 9), tmp_path / "run")
    summary = run.run()
    assert (summary.steps, summary.skipped, summary.rollbacks) == (20, 2, 0)
    assert all(p.isfinite().all() for p in run.denoiser.parameters())


def test_too_many_in_a_row_roll_back_to_the_last_checkpoint(small, tmp_path):
    recipe = small("train.save_every=4", "train.bad_steps=3", method={"kind": "autoregressive"})
    run = trainer(recipe, Sometimes(10, 11, 12), tmp_path / "run")
    summary = run.run()
    assert (summary.steps, summary.skipped, summary.rollbacks) == (20, 3, 1)
    assert run.objective.calls == 20 + 4  # back from step 12 to step 8
    assert all(p.isfinite().all() for p in run.denoiser.parameters())


def test_a_run_that_fails_before_its_first_checkpoint_goes_back_to_its_beginning(small, tmp_path):
    run = trainer(small("train.bad_steps=3", method={"kind": "autoregressive"}), Sometimes(5, 6, 7), tmp_path / "run")
    summary = run.run()
    assert (summary.steps, summary.skipped, summary.rollbacks) == (20, 3, 1)
    assert run.objective.calls == 20 + 7  # back from step 7 to step 0


def test_a_run_that_never_recovers_says_so(small, tmp_path):
    recipe = small("train.save_every=4", "train.bad_steps=2", method={"kind": "autoregressive"})
    with pytest.raises(UserError, match=r"lower train\.optimizer\.lr"):
        trainer(recipe, Sometimes(*range(6, 1000)), tmp_path / "run").run()


def test_metrics_and_plot_are_left_behind(small, tmp_path):
    train(small("train.log_every=5", "train.eval_every=10"), quiet=True)
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records] == [5, 10, 15, 20]
    assert {"loss", "bits_per_byte", "tokens_per_second", "peak_share", "skipped"} <= records[0].keys()
    assert "valid_bits_per_byte" in records[1]
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000


def test_recomputation_changes_nothing(small, tmp_path):
    train(small(out=str(tmp_path / "plain")), quiet=True)
    train(small("train.recompute=true", out=str(tmp_path / "again")), quiet=True)
    assert_close(weights(tmp_path / "plain"), weights(tmp_path / "again"), rtol=1e-5, atol=1e-6)


def test_the_average_is_what_is_saved(small, tmp_path):
    train(small(out=str(tmp_path / "plain")), quiet=True)
    train(small("train.ema=0.5", out=str(tmp_path / "mean")), quiet=True)
    a, b = weights(tmp_path / "plain"), weights(tmp_path / "mean")
    assert any(not torch.equal(a[name], b[name]) for name in a)
