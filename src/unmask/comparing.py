"""`unmask compare`: every method on the same data, trained, asked the same questions and set side by side.

Each answer is kept beside its model, so a comparison that was stopped goes on with what is missing, and one that is
asked for more (another method, another seed, other ways of writing) does only that.
"""

from __future__ import annotations

import json
import statistics
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .claim import check_claim, claim
from .corpus import Corpus, prepare
from .data.packing import windows
from .decoding.settings import one_sided
from .errors import UserError
from .evaluation import compare, reversal
from .evaluation.facts import made_up
from .evaluation.infilling import fill, gaps, stretches
from .evaluation.judge import Judge, Verdict
from .evaluation.passes import Pace, go_on
from .evaluation.report import Report
from .evaluation.samples import Variety
from .evaluation.subject import Subject
from .evaluation.variance import loss_spread
from .grid import OWN, Cell, CompareOptions, Facts, budget, cells, entrants
from .lm import LanguageModel, load
from .recipe import DataRecipe, TokenizerRecipe
from .run import train
from .training.progress import Display, clock, read_metrics, smooth

SHOWN = ((1, 0), (1, 1), (8, 0))  # texts that a report shows: tokens a pass, which prompt


def run(
    options: CompareOptions, path: str | None, overrides: Sequence[str], out: Path, *, quiet: bool = False, **fixed: Any
) -> Report:
    """Train, ask and report; whatever stops it, the report of what is finished is written."""
    who = entrants(options.methods, options.judge)
    grid = cells(who, options, path, overrides, out, **fixed)
    common = grid[0].recipe.model_copy(update={"out": str(out), "method": None, "seed": fixed.get("seed") or 0})
    check_claim(common)
    corpus = prepare(common)
    claim(common)
    display = Display("compare", quiet)
    plan = budget(options, grid, corpus, out, display.say)
    comparison = Comparison(options, grid, corpus, out, plan, display)
    try:
        comparison.work()
    finally:
        report = comparison.report([entrant.label for entrant in who])
        if report.rows:
            page = report.write(out)
            display.say(f"{len(comparison.finished)} of {len(grid)} models are finished: {page}")
    if comparison.failed:
        name, why = next(iter(comparison.failed.items()))
        also = f" (and {len(comparison.failed) - 1} more)" if len(comparison.failed) > 1 else ""
        raise UserError(f"methods: {name} failed{also}: {why}; failed.txt in its folder below {out} has the details")
    return report


@dataclass
class Comparison:
    """The grid at work. finished: what is known of each cell, by its name; failed: what went wrong with one."""

    options: CompareOptions
    grid: list[Cell]
    corpus: Corpus
    out: Path
    plan: Facts
    display: Display
    finished: dict[str, compare.Cell] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    judge: Judge | None = None
    real: dict[str, float] | None = None

    def work(self) -> None:
        if self.options.judge:
            self._seat(load(self.options.judge, device=self.grid[0].recipe.device), self.options.judge)
        for number, cell in enumerate(self.grid, 1):
            self.display.say(f"[{number}/{len(self.grid)}] {cell.name}{self._left(number - 1)}")
            try:
                self._work_on(cell)
            except Exception as error:  # a method that breaks must not cost the others their hour
                cell.folder.mkdir(parents=True, exist_ok=True)
                (cell.folder / "failed.txt").write_text(traceback.format_exc(), encoding="utf-8")
                self.failed[cell.name] = f"{type(error).__name__}: {error}"
                self.display.say(f"{cell.name} failed: {self.failed[cell.name]}")

    def _work_on(self, cell: Cell) -> None:
        known: compare.Cell = {"method": cell.entrant.label, "seed": cell.recipe.seed}
        known["trained"] = self._train(cell)
        self.finished[cell.name] = known
        lm = load(cell.folder, device=cell.recipe.device, dtype=cell.recipe.dtype, trust=True)
        if self.judge is None and cell.entrant.exact:
            self._seat(lm, cell.entrant.label)
        known["variance"] = self._variance(cell, lm)
        known["written"] = self._written(cell, lm.subject)
        known["filled"] = self._filled(cell, lm.subject)
        known["reversal"] = self._reversal(cell)

    def _left(self, done: int) -> str:
        """What the rest of the grid will take, going by the cells behind it."""
        seconds = [cell.seconds for cell in self.grid[:done] if cell.name in self.finished]
        if not seconds:
            return ""
        return f" (about {clock(statistics.fmean(seconds) * (len(self.grid) - done))} left for the grid)"

    def _seat(self, lm: LanguageModel, name: str) -> None:
        self.judge = Judge(name, lm.denoiser, lm.tokenizer, lm.method.estimator(1))
        if self.options.samples:
            verdict = self._verdict([text[self._prompt :] for text in self._texts])
            variety = Variety.of([text[self._prompt :] for text in self._texts])
            self.real = asdict(verdict) | {"judge_perplexity": verdict.perplexity} | asdict(variety)

    # -- one cell

    def _train(self, cell: Cell) -> Facts:
        recipe = cell.recipe.model_copy(update={"train": cell.recipe.train.model_copy(update=self.plan)})

        def make() -> Facts:
            result = train(recipe, corpus=self.corpus, quiet=self.display.console.quiet, title=cell.entrant.label)
            if result.summary.interrupted:
                raise KeyboardInterrupt  # saved: the same command goes on from there
            return result.as_dict()

        return cell.keep("trained", recipe.model_dump(exclude={"device", "out"}), make)

    def _variance(self, cell: Cell, lm: LanguageModel) -> Facts:
        recipe, n = cell.recipe, self.options.eval_batches

        def make() -> Facts:
            pad = self.corpus.tokenizer.pad_id
            rows = windows(self.corpus.valid, recipe.length, batch=recipe.train.batch, pad_id=pad)
            batches = [batch for batch, _ in zip(rows, range(n))]
            return asdict(loss_spread(lm.denoiser, lm.method.objective(lm.symbols), batches, seed=recipe.seed))

        return cell.keep("variance", {"batches": n}, make)

    def _written(self, cell: Cell, subject: Subject) -> Facts:
        """The same prompts gone on with, by every rule at every pace; then judged."""
        if not self.options.samples:
            return {}
        asked = self.options.model_dump(include={"samples", "prompt", "write", "passes", "rules", "temperature"})
        written = cell.keep("written", asked, lambda: self._write(subject, cell.recipe.seed))
        if self.judge is None:
            return written
        return cell.keep("judged", asked | {"judge": self.judge.name}, lambda: self._judged(written))

    def _write(self, subject: Subject, seed: int) -> Facts:
        points, cannot, seen = [], "", set()
        for rule in self.options.rules:
            named = str(subject.settings.kind if rule == OWN else rule)
            if named in seen:
                continue
            seen.add(named)
            changes = {"temperature": self.options.temperature} | ({} if rule == OWN else {"rule": rule})
            for at_once in self.options.passes:
                try:
                    done = go_on(subject, self._prompts, self._length, Pace(at_once, changes), seed << 20)
                except UserError as error:
                    cannot = str(error)
                    continue
                speed = len(done.texts) * self._length / max(done.seconds, 1e-9)
                point = {"rule": named, "at_once": at_once, "passes": done.passes, "tokens_per_second": speed}
                points.append(point | asdict(done.variety) | {"texts": done.texts})
        return {"points": points} if points else {"points": [], "cannot": f"writing: {cannot}"}

    def _judged(self, written: Facts) -> Facts:
        """Every way of writing with the judge's word on it, and a few texts to show instead of all."""
        assert self.judge is not None
        spell = self.corpus.tokenizer.decode
        points, shown = [], []
        for point in written["points"]:
            texts = point["texts"]
            verdict = self._verdict(texts)
            judged = {f"judge_{name}": value for name, value in asdict(verdict).items()}
            points.append({k: v for k, v in point.items() if k != "texts"} | judged)
            for at_once, i in SHOWN:
                if point["rule"] == written["points"][0]["rule"] and point["at_once"] == at_once and i < len(texts):
                    about = {"rule": point["rule"], "passes": f"{point['passes']:.0f}"}
                    shown.append(about | {"prompt": spell(self._prompts[i]), "text": spell(texts[i])})
        return written | {"points": points, "texts": shown}

    def _filled(self, cell: Cell, subject: Subject) -> Facts:
        if not self.options.gaps:
            return {}
        asked = self.options.model_dump(include={"gaps", "gap_tokens", "prompt", "write"})
        name = self.judge.name if self.judge else None
        return cell.keep("filled", asked | {"judge": name}, lambda: self._fill(subject))

    def _fill(self, subject: Subject) -> Facts:
        options, length = self.options, self._prompt + self._length
        cut = gaps(self.corpus.valid, n=options.gaps, size=options.gap_tokens, length=length, seed=1)
        try:
            done = fill(subject, cut)
        except UserError as error:
            return {"cannot": str(error)}
        found: Facts = {
            "exact": statistics.fmean(f.exact for f in done),
            "tokens": statistics.fmean(f.right for f in done),
        }
        if self.judge is not None:
            above = zip(*(self.judge(pairs, self.corpus.tokenizer) for pairs in zip(*(f.pairs for f in done))))
            found["judge_nats"] = statistics.fmean(mine.nats - real.nats for mine, real in above)
        return found

    def _reversal(self, cell: Cell) -> Facts:
        """The model reads made-up facts in one direction, and is asked in both."""
        n = self.options.facts
        if not n:
            return {}
        tokens = self.options.facts_tokens or max(1, self._tokens(cell) // 10)
        return cell.keep("reversal", {"facts": n, "tokens": tokens}, lambda: self._reverse(cell, n, tokens))

    def _reverse(self, cell: Cell, n: int, tokens: int) -> Facts:
        sentences, prompts = made_up(n)
        read = self.out / "facts.jsonl"
        read.write_text("".join(json.dumps({"text": s.text}) + "\n" for s in sentences), encoding="utf-8")
        budget = {"tokens": tokens, "minutes": None, "eval_every": 0}
        changes = {
            "out": str(cell.folder / "facts"),
            "base": str(cell.folder),
            "data": DataRecipe(source=str(read), valid=str(read), whole=True),
            "tokenizer": TokenizerRecipe(),  # the base's
            "train": cell.recipe.train.model_copy(update=budget),
        }
        quiet, title = self.display.console.quiet, f"{cell.entrant.label}, facts"
        try:
            result = train(cell.recipe.model_copy(update=changes), quiet=quiet, title=title)
            if result.summary.interrupted:
                raise KeyboardInterrupt
            subject = load(result.folder, device=cell.recipe.device, dtype=cell.recipe.dtype, trust=True).subject
            answers = reversal.ask(subject, reversal.prompted(prompts))
            if not one_sided(subject.denoiser):
                answers += reversal.ask(subject, reversal.gaps(prompts, sentences))
        except UserError as error:
            return {"cannot": f"reversal: {error}"}
        shares = {
            "told": reversal.exact_match(answers, way="prompt", told=True),
            "backward": reversal.exact_match(answers, way="prompt", told=False),
            "gap": reversal.exact_match(answers, way="gap"),
        }
        return {name: share.value if share.n else None for name, share in shares.items()}

    def _tokens(self, cell: Cell) -> int:
        return int(self.plan.get("tokens") or self.finished[cell.name]["trained"]["tokens"])

    # -- the texts that are gone on with

    @property
    def _prompt(self) -> int:
        """Tokens of a prompt; less than asked for where the context is short."""
        return min(self.options.prompt, self.grid[0].recipe.length // 3)

    @property
    def _length(self) -> int:
        return min(self.options.write, self.grid[0].recipe.length - self._prompt)

    @property
    def _texts(self) -> list[list[int]]:
        return stretches(self.corpus.valid, self._prompt + self._length, self.options.samples, seed=0)

    @property
    def _prompts(self) -> list[list[int]]:
        return [text[: self._prompt] for text in self._texts]

    def _verdict(self, texts: Sequence[Sequence[int]]) -> Verdict:
        """The judge's word on one text after each prompt."""
        assert self.judge is not None
        return Verdict.over(self.judge(list(zip(self._prompts, texts)), self.corpus.tokenizer))

    # -- the report

    def report(self, order: Sequence[str]) -> Report:
        rows = compare.rows(self.finished.values())
        rows.sort(key=lambda row: order.index(row.method))
        curves = {cell.entrant.label: _curve(cell) for cell in self.grid if cell.name in self.finished}
        return Report(" · ".join(row.method for row in rows), rows, self._facts(), self.real, curves)

    def _facts(self) -> dict[str, str]:
        recipe, options = self.grid[0].recipe, self.options
        shape = recipe.model
        each = f"{self.plan['tokens']:,} tokens" if "tokens" in self.plan else f"{self.plan['minutes']:g} minutes"
        asked = f" ({options.minutes:g} minutes on average)" if options.minutes and "tokens" in self.plan else ""
        found = {
            "data": recipe.data.source,
            "model": f"{shape.layers} layers of width {shape.width}, rows of {recipe.length} tokens, "
            f"vocabulary {len(self.corpus.tokenizer):,}",
            "training": f"{each} a method and seed{asked}, {options.seeds} seed{'s' * (options.seeds > 1)}",
        }
        if self.judge is not None:
            found["judge"] = self.judge.name
            found["writing"] = (
                f"{options.samples} texts of {self._length} tokens after {self._prompt} of held-out text, "
                f"temperature {options.temperature:g}"
            )
        return found | {"machine": f"torch {torch.__version__}, {recipe.device}, {torch.get_num_threads()} threads"}


def _curve(cell: Cell) -> list[tuple[int, float, float]]:
    records = [r for r in read_metrics(cell.folder / "metrics.jsonl") if r.get("loss") is not None]
    return [(r["tokens"], r["seconds"], loss) for r, loss in zip(records, smooth([r["loss"] for r in records]))]
