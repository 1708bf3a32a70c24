"""`draft_for`: a causal model in `transformers` writes, and a diffusion model of ours drafts for it, faster together.

writer = unmask.draft_for("owner/causal-model", "runs/joint")
writer.generate("def area(", max_tokens=64).text
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .decoding.drafting import Drafting, drafters
from .decoding.outcome import Counts, Decoded
from .decoding.propose import Proposal
from .decoding.settings import Decoding
from .decoding.speculate import check_followed
from .errors import UserError
from .lm import LanguageModel, Text, load
from .noise.tokens import Masking
from .request import Generate


class Read:
    """A text as a model of `transformers` has read it, with its key/value cache."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self.model, self.cache = model, DynamicCache()

    def read(self, tokens: Sequence[int], wanted: int) -> Tensor:
        ids = torch.tensor([list(tokens)], device=self.model.device)
        said = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=wanted)
        logits: Tensor = said.logits[0, -wanted:].float()
        return logits

    def forget(self, count: int) -> None:
        if count:
            self.cache.crop(-count)


class DraftedModel:
    """model writes exactly what it writes alone: at temperature 0 its best tokens, above it with the seed's draws."""

    def __init__(self, model: Any, tokenizer: Any, drafter: LanguageModel, size: int | None = None) -> None:
        """size: tokens drafted at a time; default a block of the drafter's."""
        process = drafter.method.process(drafter.symbols, drafter.denoiser.network)
        if not isinstance(process, Masking):
            raise UserError(f"drafter: {drafter.name} was not trained on masks; use a joint, block or masked model")
        _check_tokenizers(tokenizer, drafter)
        self.model, self.tokenizer, self.drafter = model, tokenizer, drafter
        self.drafters = drafters(drafter.denoiser, size)
        ends = model.generation_config.eos_token_id
        self.ends = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    @property
    def context(self) -> int:
        return min(self.model.config.get_text_config().max_position_embeddings, self.drafter.context)

    def generate(self, prompt: str = "", **options: Any) -> Text | list[Text]:
        """Up to max_tokens (default 64) new tokens; options: seed, samples, temperature, top_p, top_k."""
        request = Generate.of(options)
        settings = Decoding().saying(request.said)
        check_followed(settings, "a model that is drafted for")
        ids: list[int] = self.tokenizer(prompt)["input_ids"]
        most = request.max_tokens or min(64, self.context - len(ids))
        if not ids:
            raise UserError("prompt: is empty, and this model's texts have no start token; write a word")
        if len(ids) + most > self.context:
            raise UserError(f"prompt: {len(ids)} tokens and max_tokens={most} exceed the context of {self.context}")
        proposal = Proposal(settings.temperature, settings.top_p, settings.top_k)
        drafting = Drafting(lambda: Read(self.model), self.drafters, self._vocab, proposal, self.ends)
        found = [self._text(drafting, ids, most, seed) for seed in request.seeds]
        return found[0] if request.samples is None else found

    def _text(self, drafting: Drafting, prompt: list[int], new: int, seed: int) -> Text:
        said = drafting.write(prompt, new, seed)
        stopped = bool(said.tokens) and said.tokens[-1] in self.ends
        tokens = said.tokens[:-1] if stopped else said.tokens
        counts = Counts(len(said.drafted), said.queries, len(tokens), said.seconds)
        done = Decoded(
            tokens=tokens,
            canvas=[*prompt, *said.tokens],
            settled_at=[*[-1] * len(prompt), *said.passes],
            confidence=[*[1.0] * len(prompt), *said.sure],
            finish_reason="stop" if stopped else "length",
            counts=counts,
            drafts=said.checks,
        )
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return Text(text, tokens, done.finish_reason, counts, done)

    @property
    def _vocab(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)


def draft_for(
    model: Any, drafter: str | Path | LanguageModel, *, tokenizer: Any = None, size: int | None = None
) -> DraftedModel:
    """model: a folder, a hub id or a loaded model of `transformers` (then with its tokenizer); drafter: a joint, block
    or masked model of ours with the same tokenizer. UserError where their tokens differ."""
    lm = drafter if isinstance(drafter, LanguageModel) else load(drafter)
    if isinstance(model, str | Path):
        tokenizer = tokenizer or _loaded("AutoTokenizer", model)
        model = _loaded("AutoModelForCausalLM", model, dtype="auto").to(lm.device)
    if tokenizer is None:
        raise UserError("tokenizer: a loaded model does not bring its own; give it too")
    return DraftedModel(model.eval(), tokenizer, lm, size)


def _loaded(kind: str, name: str | Path, **options: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(str(name), **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"model: `transformers` cannot load {str(name)!r} ({reason}); name a causal model") from error


def _check_tokenizers(theirs: Any, drafter: LanguageModel) -> None:
    """Every token of theirs is the same token of the drafter's, which may have more, a mask for one."""
    known = drafter.tokenizer.vocabulary()
    for token, number in sorted(theirs.get_vocab().items(), key=lambda pair: pair[1]):
        if known.get(token) != number:
            raise UserError(
                f"drafter: {token!r} is token {number} of the model and {known.get(token, 'none')} of {drafter.name}; "
                "both need the same tokenizer"
            )
