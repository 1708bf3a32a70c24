"""Options that many verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str | None, typer.Option(help="auto (bf16 in hardware, else fp32), fp32, bf16, or int8 to write.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Regex = Annotated[str | None, typer.Option(help="What is written matches this, for certain, as re.fullmatch has it.")]
JsonSchema = Annotated[str | None, typer.Option(help="What is written is JSON of this schema: a file, or the schema.")]
File = Annotated[str | None, typer.Option("--recipe", "-r", help="Options as a YAML file.")]
