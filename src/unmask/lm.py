"""A saved model ready to use from Python: `lm = unmask.load(...)`, then `lm.generate`, `lm.fill`, `lm.score`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch

from .base import grow, model_folder, symbols_of, tokenizer_of
from .data.chat import Message, check_messages, render
from .data.packing import Batch, windows
from .data.tokenizer import Tokenizer, n_bytes
from .decoding.canvas import Row
from .decoding.constrain.tokens import Vocabulary
from .decoding.growth import boundless
from .decoding.sampler import Counts, Decoded, Observer, decode
from .decoding.settings import SPECULATING, Decoding, one_sided
from .denoiser import Denoiser
from .device import pick_device, pick_weights
from .errors import UserError
from .evaluation.likelihood import Score, score_batches
from .evaluation.subject import Subject
from .methods.method import Method
from .models.checkpoint import as_published, load_model, save_model
from .models.int8 import use_int8
from .noise.process import Process
from .recipe import method_of
from .request import Fill, Generate, gaps

USUAL = 64  # new tokens where nobody says
DEFAULT = Path(__file__).parent / "assets" / "default"


@dataclass(frozen=True)
class Text:
    """What was written. text, tokens: the new text after a prompt, or the whole text where gaps were filled; gaps: the
    text of each gap; finish_reason "stop" (an end of text) or "length"; counts: passes, tokens, seconds."""

    text: str
    tokens: list[int]
    finish_reason: str
    counts: Counts
    decoded: Decoded
    gaps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


class LanguageModel:
    """A network, its tokenizer and its method. Made by `load`."""

    def __init__(self, folder: Path, *, device: str = "auto", dtype: str = "auto", trust: bool = False) -> None:
        self.device = pick_device(device)
        wanted, int8 = pick_weights(dtype, self.device)
        network, self.config = load_model(folder, dtype=wanted, device=self.device)
        self.name = self.config.get("name", folder.parent.name if folder.name == "model" else folder.name)
        self.tokenizer: Tokenizer = tokenizer_of(folder, self.config)
        if as_published(self.config) and self.config["method"]["kind"] == "autoregressive":
            network = grow(network, len(self.tokenizer))  # it has not met a mask
        if len(self.tokenizer) > network.config.vocab:
            raise UserError(
                f"{folder}: the tokenizer has {len(self.tokenizer)} tokens but the model only {network.config.vocab}; "
                "put the tokenizer files that belong to it there"
            )
        self.method: Method = method_of(self.config.get("method"), imports=trust)
        self.symbols = symbols_of(self.tokenizer, network.config.vocab)
        self.vocabulary = Vocabulary(self.tokenizer.spelled, [self.tokenizer.eos_id, self.tokenizer.pad_id])
        self.denoiser: Denoiser = self.method.denoiser(network, self.symbols).to(self.device).eval()
        if int8:
            use_int8(network)

    @property
    def context(self) -> int:
        return self.denoiser.network.config.context

    @property
    def boundless(self) -> bool:
        """Whether texts may be longer than the context, which is then no more than what the model was trained on: it
        never looks ahead and its positions are rotary. How well it writes there is another matter."""
        return boundless(self.denoiser)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.denoiser.network.parameters())

    # -- writing

    @overload
    def generate(self, prompt: str | Sequence[str] = ..., *, samples: int, **options: Any) -> list[Text]: ...
    @overload
    def generate(self, prompt: str = ..., **options: Any) -> Text: ...
    @overload
    def generate(self, prompt: Sequence[str], **options: Any) -> list[Text]: ...
    def generate(
        self, prompt: str | Sequence[str] = "", *, observe: Observer | None = None, **options: Any
    ) -> Text | list[Text]:
        """Up to `max_tokens` new tokens after each prompt.

        Options: max_tokens (default 64, less if the context is short), seed, samples, and the fields of `Decoding`:
        steps, block, rule, threshold, temperature, top_p, top_k, ... (`unmask info keys` lists them). observe is called
        with an `Event` after each network pass. samples=N writes N texts after each prompt and gives a list, prompt by
        prompt; text i of them is what seed + i gives alone. Prompt and answer may exceed the context only where the
        model is `boundless`: then the text is written block by block, on a canvas that grows with it.
        """
        request = Generate.of(options)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        for text in prompts:
            self.tokenizer.check_prompt(text)
        ids = [self.tokenizer.encode(text) for text in prompts]
        found = self._after(ids, self.tokenizer.eos_id, request, observe)
        return found[0] if isinstance(prompt, str) and request.samples is None else found

    @overload
    def chat(self, messages: list[Message], *, samples: int, **options: Any) -> list[Text]: ...
    @overload
    def chat(self, messages: list[Message], **options: Any) -> Text: ...
    def chat(self, messages: list[Message], *, observe: Observer | None = None, **options: Any) -> Text | list[Text]:
        """The assistant's next turn, by the tokenizer's chat template (or a plain default). Options as `generate`."""
        request = Generate.of(options)
        ids, end = self.turn(messages)
        found = self._after([ids], end, request, observe)
        return found[0] if request.samples is None else found

    def turn(self, messages: list[Message]) -> tuple[list[int], int]:
        """The prompt of the assistant's next turn, and the token that ends it."""
        ids, _ = render(check_messages(messages), self.tokenizer, generation_prompt=True)
        turn = self.tokenizer.turn_ids
        return ids, turn[1] if turn and not self.tokenizer.chat_template else self.tokenizer.eos_id

    @overload
    def fill(self, *parts: str, tokens: int | Sequence[int] = ..., samples: int, **options: Any) -> list[Text]: ...
    @overload
    def fill(self, *parts: str, tokens: int | Sequence[int] = ..., **options: Any) -> Text: ...
    def fill(
        self,
        *parts: str,
        tokens: int | Sequence[int] | None = None,
        observe: Observer | None = None,
        **options: Any,
    ) -> Text | list[Text]:
        """Write what is missing between the parts, or at each `<gap>` or `<gap:N>` of one text, N tokens a gap.

        `lm.fill("def f(x):\\n    ", "\\n    return y", tokens=12)`. Both sides are seen. `tokens` (default gap_tokens,
        16) may be one number for each gap. Options as `generate`, but max_tokens.
        """
        request = Fill.of(options)
        pieces, sizes = gaps(parts, request.gap_tokens if tokens is None else tokens)
        for piece in pieces:
            self.tokenizer.check_prompt(piece)
        if self._one_sided:
            raise UserError("fill: an autoregressive model sees only what stands before a gap; use a masked model")
        given = [self.tokenizer.encode(piece) for piece in pieces]
        self._fits(sum(map(len, given)) + sum(sizes), "the text with its gaps")
        row: list[int | None] = []
        for ids, size in zip(given, [*sizes, 0]):
            row += [*ids, *[None] * size]
        rows = [Row.gaps(row, seed) for seed in request.seeds]
        done = decode(self.denoiser, self._process, rows, self._settings(request.said), observe)
        found = [self._filled(row, sizes, text) for text in done]
        return found[0] if request.samples is None else found

    def _filled(self, row: list[int | None], sizes: list[int], done: Decoded) -> Text:
        written = iter([token for token, given in zip(done.tokens, row) if given is None])
        decode_ids = self.tokenizer.decode
        gaps = tuple(decode_ids([next(written) for _ in range(size)]) for size in sizes)
        return Text(decode_ids(done.tokens), done.tokens, done.finish_reason, done.counts, done, gaps)

    def _after(self, prompts: list[list[int]], eos_id: int, request: Generate, observe: Observer | None) -> list[Text]:
        longest, wanted = max(map(len, prompts), default=0), request.max_tokens
        settings = replace(self._settings(request.said), eos_id=eos_id)
        if longest + (wanted or 1) > self.context:
            settings = self._beyond(settings, longest, wanted)
        grows = settings.grow is not None
        rows = [self._blank(ids, wanted, seed, grows=grows) for ids in prompts for seed in request.seeds]
        return [
            Text(self.tokenizer.decode(d.tokens), d.tokens, d.finish_reason, d.counts, d)
            for d in decode(self.denoiser, self._process, rows, settings, observe)
        ]

    def _beyond(self, settings: Decoding, longest: int, wanted: int | None) -> Decoding:
        """The settings for texts that exceed the context; UserError where the model or its rule cannot write any."""
        if self.boundless and settings.kind != SPECULATING:
            return settings if settings.grow is not None else settings.saying({"grow": "blocks"})
        if longest >= self.context:
            raise UserError(f"prompt: {longest} tokens fill the model's context of {self.context}; shorten it")
        self._fits(longest + (wanted or 1), f"{longest} tokens of prompt and max_tokens={wanted}")
        return settings

    def _blank(self, ids: list[int], wanted: int | None, seed: int, *, grows: bool) -> Row:
        """What is to be written after a prompt: a text that grows may fill the context, others are short."""
        left = max(self.context - len(ids), USUAL if self.boundless else 0)
        if grows:
            return Row.after(ids, 0, seed, room=wanted or left)
        return Row.after(ids, wanted or min(USUAL, left), seed)

    # -- scoring

    def score(self, text: str, prompt: str = "", *, draws: int = 16, seed: int = 0, progress: Any = None) -> Score:
        """-log p(text | prompt): exact for autoregressive models, else an upper bound with its standard error.

        A text longer than the context is scored in windows; with a prompt both must fit it. draws: network passes a
        window. The end-of-text token is not scored.
        """
        ids, before = self.tokenizer.encode_plain(text), self.tokenizer.encode_plain(prompt)
        if not ids:
            raise UserError("text: is empty; give some text to score")
        rows = [self._row(before, ids)] if before else windows(ids, self.context, batch=8, pad_id=self.tokenizer.pad_id)
        estimator = self.method.estimator(draws)
        return score_batches(self.denoiser, rows, estimator, seed=seed, n_bytes=n_bytes(text), progress=progress)

    def _row(self, before: list[int], ids: list[int]) -> Batch:
        self._fits(len(before) + len(ids), "prompt and text")
        tokens = torch.tensor([before + ids])
        scored = torch.arange(tokens.shape[1])[None] >= len(before)
        return Batch(tokens, torch.zeros_like(tokens), torch.arange(tokens.shape[1])[None], scored)

    # -- keeping

    def save(self, folder: str | Path) -> None:
        """A folder in Hugging Face layout that `load` reads."""
        extra = {k: v for k, v in self.config.items() if k not in ("architectures", "model_type", "model")}
        save_model(folder, self.denoiser.network, extra, self.tokenizer.save)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the saved folder to the Hugging Face hub; returns its address."""
        import tempfile

        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as scratch:
            self.save(Path(scratch) / "model")
            api = HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=repo_id, folder_path=Path(scratch) / "model"))

    # -- small things

    @property
    def subject(self) -> Subject:
        """The model as the tests of `evaluation` ask it."""
        return Subject(self.denoiser, self._process, self.tokenizer, self._settings({}))

    @property
    def _process(self) -> Process:
        return self.method.process(self.symbols, self.denoiser.network)

    @property
    def _one_sided(self) -> bool:
        return one_sided(self.denoiser)

    def _settings(self, fields: dict[str, Any]) -> Decoding:
        """The method's own way of writing, with what the user says on top."""
        known = {"eos_id": self.tokenizer.eos_id, "vocabulary": self.vocabulary}
        return self.method.decoding().saying(known | fields)

    def _fits(self, length: int, what: str) -> None:
        if length > self.context:
            raise UserError(f"prompt: {what} make {length} tokens, the model's context is {self.context}; shorten it")


def load(
    model: str | Path | None = None, *, device: str = "auto", dtype: str = "auto", trust: bool = False
) -> LanguageModel:
    """A run's or model's folder, a hub id, or (nothing named) the small model that comes with the package.

    trust: import a method that the model's config names as `package.module:Class`; only for models of your own.
    """
    folder = model_folder(str(DEFAULT if model is None else model))
    return LanguageModel(folder, device=device, dtype=dtype, trust=trust)
