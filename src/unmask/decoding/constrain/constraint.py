"""A language that the written text must be of, as the user says it: a regular expression or a JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from .automaton import Automaton, automaton
from .chains import OPEN
from .keeper import Keeper, Sight
from .regex import read
from .schema import read_schema
from .tokens import Vocabulary


@dataclass(frozen=True)
class Constraint:
    """said: the option that it came with, as the user wrote it; matches: "new" or "whole", what must be of it."""

    field: str
    said: str
    automaton: Automaton
    matches: str

    @classmethod
    def of(cls, regex: str | None, schema: str | Mapping[str, Any] | bool | None, matches: str) -> Constraint | None:
        """UserError where it cannot be read or kept to."""
        if regex is not None and schema is not None:
            raise UserError("regex, json_schema: two languages for one text; drop one")
        if matches not in ("new", "whole"):
            raise UserError(f"matches={matches!r} is unknown; use new (what is written) or whole (the given text too)")
        if regex is not None:
            return cls("regex", regex, automaton(read(regex), "regex"), matches)
        if schema is None:
            return None
        said = schema if isinstance(schema, str) else json.dumps(schema)
        return cls("json_schema", said, automaton(read_schema(schema), "json_schema"), matches)

    def keeper(self, vocabulary: Vocabulary | None, eos_id: int | None, banned: Tensor, size: int) -> Keeper:
        """Over the `size` tokens of a model, but for the banned ones; eos_id None: no text ends before its last."""
        if vocabulary is None:
            raise UserError(
                f"{self.field}: needs to know how tokens are spelled; load the model with its tokenizer (unmask.load), "
                "or pass vocabulary=Vocabulary(tokenizer.spelled)"
            )
        tokens = vocabulary.lift(self.automaton, eos_id, size).to(banned.device)
        allowed = torch.ones(size, dtype=torch.bool, device=banned.device).index_fill(0, banned, False)
        return Keeper(tokens, allowed, whole=self.matches == "whole", may_end=eos_id is not None)

    def refusal(self, why: str) -> UserError:
        return UserError(f"{self.field}: {why}, or leave {self.field} out")

    def check(self, keeper: Keeper, tokens: Sequence[int], open: Sequence[bool], infill: bool) -> None:
        """UserError where a row cannot be written so that it matches, whatever the model says."""
        device = keeper.tokens.sort.device
        written = torch.tensor([open], device=device)
        text = torch.tensor([tokens], device=device).masked_fill(written, OPEN)
        sight = Sight(text, written, torch.ones_like(written), torch.tensor([infill], device=device))
        if any(open) and not bool(keeper.possible(sight)):
            raise UserError(f"{self.field}: {self._why(keeper, written, infill)}")

    def _why(self, keeper: Keeper, written: Tensor, infill: bool) -> str:
        n = int(written.sum())
        many = f"{n} token{'s' if n > 1 else ''}"
        shown = self.said if len(self.said) <= 60 else self.said[:57] + "..."
        if keeper.whole and not bool(written.all()):
            return f"the given text with {many} to be written cannot match {shown!r}; change the text or the number"
        least = keeper.reach.fewest(4 * n + 64)
        exactly = "" if keeper.may_end and not infill else "exactly "
        if least is None or least <= n:
            return f"no text of {exactly}{many} matches {shown!r}; ask for another number of tokens"
        return f"no text of {exactly}{many} matches {shown!r}, which needs at least {least}; ask for more tokens"
