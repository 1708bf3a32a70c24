"""Published decoding loops, token for token at every step, through our one loop.

The references are networks of 18 MB, too many for the repository: set UNMASK_FIXTURES to the folder that holds `models`
and `decode`. A case is the canvas before and after every pass of a published generate() at temperature 0; passes in
which the reference writes nothing are not made here. What differs on purpose is named in the test.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unmask.decoding.canvas import Canvas, Row
from unmask.decoding.sampler import Sampler
from unmask.decoding.settings import Decoding
from unmask.denoiser import Denoiser
from unmask.models.attention import BlockCausal
from unmask.published import LoadedDenoiser, load_denoiser

FIXTURES = Path(os.environ.get("UNMASK_FIXTURES", "/nonexistent"))
pytestmark = pytest.mark.skipif(
    not (FIXTURES / "decode").is_dir(), reason="UNMASK_FIXTURES names no folder with reference trajectories"
)
Json = dict[str, Any]
How = Callable[[Json], Decoding]


@dataclass(frozen=True)
class Case:
    said: Json
    data: dict[str, Tensor]
    denoiser: LoadedDenoiser

    @property
    def prompts(self) -> list[list[int]]:
        """Without their padding, which is on the left."""
        mask = self.data.get("attention_mask", torch.ones_like(self.data["prompt"]))
        return [row[kept].tolist() for row, kept in zip(self.data["prompt"], mask.bool())]

    @property
    def length(self) -> int:
        """New tokens; of a model that writes whole blocks, to the end of the last."""
        if "canvases" in self.data:
            return self.data["canvases"].shape[2] - self.data["prompt"].shape[1]
        size = self.said["block_length"]
        return -(-(self.said["prompt_len"] + self.said["gen_length"]) // size) * size - self.said["prompt_len"]

    def canvases(self, row: int) -> list[list[int]]:
        """Of one row, without its padding, and without those that a pass left as they were."""
        start = self.data["prompt"].shape[1] - len(self.prompts[row])
        each = [canvas[row, start:].tolist() for canvas in self.data["canvases"]]
        return [each[0], *[after for before, after in itertools.pairwise(each) if after != before]]


@cache
def network(name: str, mask_id: int) -> LoadedDenoiser:
    return load_denoiser(FIXTURES / name, mask_id=mask_id)


def case(name: str, *, lets_the_mask: bool = False) -> Case:
    """lets_the_mask: the published loops let a mask have a probability of being text, which takes from the others'.
    Here it never has. On random weights that moves a confidence in its third digit, which can decide."""
    said = json.loads((FIXTURES / "decode" / f"{name}.json").read_text())
    denoiser = load_denoiser(FIXTURES / said["model"], mask_id=said["mask_id"]) if lets_the_mask else None
    if denoiser is not None:
        denoiser.banned = torch.empty(0, dtype=torch.int64)
    denoiser = denoiser or network(said["model"], said["mask_id"])
    if isinstance(denoiser.rule, BlockCausal):
        denoiser.rule = BlockCausal(said["block_length"])
    return Case(said, load_file(FIXTURES / "decode" / f"{name}.safetensors"), denoiser)


def written(case: Case, settings: Decoding) -> tuple[list[list[list[int]]], Sampler]:
    """Every row's canvas after each of its passes."""
    story: list[list[list[int]]] = [[] for _ in case.prompts]
    sampler = Sampler(
        case.denoiser,
        case.denoiser.process,
        settings,
        lambda event: [story[frame.row].append(frame.tokens) for frame in event.frames] and None,
    )
    sampler([Row.after(prompt, case.length) for prompt in case.prompts])
    return story, sampler


def whole(said: Json, **more: Any) -> Decoding:
    return Decoding.preset("llada", steps=said["steps"], block=said["block_length"], **more)


def fast(said: Json) -> Decoding:
    """Fast-dLLM's three loops and dllm's copy of them."""
    which = {name: said[name] for name in ("threshold", "factor") if name in said}
    return whole(said, cache=said["cache"] or "none", **which)


def dream(said: Json) -> Decoding:
    name = {"maskgit_plus": "maskgit", "topk_margin": "margin"}.get(said["alg"], said["alg"])
    return Decoding.preset(f"dream-{name}", steps=said["steps"], top_p=said["top_p"] or 1.0)


CASES: dict[str, How] = {
    "llada_01_single_block_full_steps": whole,
    "llada_02_two_blocks": whole,
    "llada_03_uneven_3blocks_3steps": whole,
    "llada_04_uneven_one_block_6steps": whole,
    "llada_05_batch2_leftpad": whole,
    "llada_06_cfg1.5": lambda said: whole(said, guidance=said["cfg_scale"]),
    "llada_07_logits_eos_inf": lambda said: whole(said, ban=[said["eos_id"]]),
    "llada_08_confidence_eos_eot_inf": lambda said: whole(said, late=[said["eos_id"], said["eot_id"]]),
    "fastdllm_01_nocache_steps": fast,
    "fastdllm_02_prefix_steps": fast,
    "fastdllm_03_dual_steps": fast,
    "fastdllm_04_nocache_threshold": fast,
    "fastdllm_05_prefix_threshold": fast,
    "fastdllm_06_dual_threshold": fast,
    "fastdllm_07_factor_nocache": fast,
    "fastdllm_08_factor_prefix": fast,
    "fastdllm_09_factor_dual": fast,
    "dllm_01_quota_steps_nocache": lambda said: Decoding(
        rule="confidence", quota="expected", block=said["block_length"], block_steps=said["steps"] // 3
    ),
    "dream_01_maskgit_plus": dream,
    "dream_02_topk_margin": dream,
    "dream_03_entropy": dream,
    "dream_04_entropy_uneven": dream,
    "dream_05_maskgit_plus_batch2_leftpad": dream,
    "dream_07_maskgit_plus_more_steps_than_tokens": dream,
}


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_the_published_one(name: str) -> None:
    found = case(name)
    story, sampler = written(found, CASES[name](found.said))
    for row, own in enumerate(story):
        expected = found.canvases(row)
        assert own == expected[1:]
    assert sampler.counts.forwards == max(map(len, story)), "and no pass more"


def test_dreams_nucleus_where_the_mask_is_left_its_probability() -> None:
    found = case("dream_06_entropy_top_p", lets_the_mask=True)
    story, _ = written(found, dream(found.said))
    assert story[0] == found.canvases(0)[1:]


def test_fewer_passes_where_the_reference_runs_one_for_nothing() -> None:
    """Fast-dLLM goes on for a pass after its first one has written the whole block."""
    found = case("fastdllm_06_dual_threshold")
    _, sampler = written(found, fast(found.said))
    assert (sampler.counts.forwards, found.said["nfe"]) == (4, 6)


def test_masks_inside_a_prompt_are_all_written() -> None:
    """LLaDA's loop lets them compete for a quota that counts the block's masks only, and ends with masks left over."""
    found = case("llada_09_mask_inside_prompt")
    prompt, mask = found.prompts[0], found.said["mask_id"]
    row = Row.after(prompt, found.length)
    row = replace(row, open=[token == mask for token in prompt] + [True] * found.length)
    (text,) = Sampler(found.denoiser, found.denoiser.process, whole(found.said))([row])
    assert mask in found.data["output"][0].tolist()
    assert mask not in text.canvas
    assert text.counts.forwards == found.said["steps"], "shared out over two blocks: ten open positions"


# -- models that see their text in blocks

BLOCKS: dict[str, How] = {
    "llada2_01_steps": lambda said: Decoding.preset(
        "llada2",
        threshold=None,
        quota={"kind": "above", "threshold": said["threshold"], "least": said["block_length"] // said["steps"]},
    ),
    "llada2_02_threshold": lambda said: Decoding.preset("llada2", threshold=said["threshold"]),
    "sdar_02_dynamic": lambda said: Decoding.preset("sdar", threshold=said["confidence_threshold"]),
    "sdar_03_sequential": lambda said: Decoding.preset("sdar-sequential", block_steps=said["denoising_steps"]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_written_as_published(name: str) -> None:
    """With the exact cache of a block-causal model, where the references keep none, or run a pass of its own for it."""
    found = case(name)
    story, _ = written(found, BLOCKS[name](found.said))
    before = [before_pass(found), *story[0][:-1]]
    if "block_start" in found.data:
        starts, blocks = found.data["block_start"].tolist(), found.data["block_before_denoise"].tolist()
        assert [text[at : at + len(block)] for text, at, block in zip(before, starts, blocks)] == blocks
        assert len(before) == len(blocks)
        assert story[0][-1][: found.data["output"].shape[1]] == found.data["output"][0].tolist()
    else:
        windows = [[token for token in row if token >= 0] for row in found.data["canvases_before_call"][:, 0].tolist()]
        assert [text[: len(window)] for text, window in zip(before, windows)] == windows
        assert len(before) == len(windows)
        assert story[0][-1][found.said["prompt_len"] :][: found.said["gen_length"]] == found.data["output"][0].tolist()


def before_pass(found: Case) -> list[int]:
    return [*found.prompts[0], *[found.said["mask_id"]] * found.length]


def test_a_quota_never_rewrites_what_is_settled() -> None:
    """SDAR's static strategy takes the best two where one mask is left, and so writes over a token of the first block.
    Given the reference's own text before each pass, ours makes the same choice and leaves the rest alone."""
    found = case("sdar_01_static", lets_the_mask=True)
    stepper = Decoding.preset("sdar-static").stepper(found.denoiser)
    output, mask = found.data["output"][0].tolist(), found.said["mask_id"]
    passes = list(zip(found.data["block_start"].tolist(), found.data["block_before_denoise"].tolist()))
    assert output[8:12] != [205, 29, 29, 29], "what stood there before its last pass, and the one mask's token"
    for (at, block), (then, after) in itertools.pairwise(passes):
        if at != then:
            continue
        x = torch.tensor([output[:at] + block])
        open = x == mask
        canvas = Canvas.of([Row(x[0].tolist(), open[0].tolist())], len(block), 2, x.device, aligned=True)
        tick = replace(canvas.tick, x=x)
        moved = stepper.move(found.denoiser.process, tick, open, values_of(found.denoiser, x, open))
        assert moved.x[0, at:].tolist() == after


def test_every_edit_is_the_published_one() -> None:
    """LLaDA 2.1's editing, decision by decision: each canvas of the reference is given to our stepper, which must make
    the next one of it. On random weights the reference also edits text into masks, which here is never proposed;
    these positions are left out."""
    found = case("llada21_01_edit", lets_the_mask=True)
    said, mask = found.said, found.said["mask_id"]
    revise = {"kind": "edit", "threshold": said["editing_threshold"], "passes": said["max_post_steps"]}
    stepper = Decoding.preset("llada2.1", threshold=said["threshold"], revise=revise).stepper(found.denoiser)
    canvases = [[token for token in row if token >= 0] for row in found.data["canvases_before_call"][:, 0].tolist()]
    compared = 0
    for text, after in itertools.pairwise(canvases):
        if len(text) != len(after):
            continue  # the block was final
        x, begins = torch.tensor([text]), max(len(text) - said["block_length"], said["prompt_len"])
        open = (torch.arange(len(text)) >= begins)[None]
        canvas = Canvas.of([Row(text, open[0].tolist())], said["block_length"], None, x.device, aligned=True)
        draft = open & (x != mask)
        tick = replace(canvas.tick, x=x, open=open, memory={"draft": draft})
        values = values_of(found.denoiser, x, open)
        moved = stepper.move(found.denoiser.process, tick, open, values).x[0]
        theirs = torch.tensor(after)
        fair = theirs != mask
        assert torch.equal(moved[fair], theirs[fair])
        compared += int((fair & open[0] & (theirs != x[0])).sum())
    assert compared > 100


@torch.inference_mode()
def values_of(denoiser: Denoiser, x: Tensor, where: Tensor) -> Tensor:
    return denoiser(x, where.float(), where=where).logits()
