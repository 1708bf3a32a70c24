"""Every number of the reference implementations, through the package's own code: each file, each entry.

The references are 3 MB beside 18 MB of networks, too many for the repository: set UNMASK_FIXTURES to the folder that
holds `objective` and `models`. Those that need no network are here (`data_files/objective/whole`), and a few positions
of the others (`test_published_noise`, `test_published_weights`, `test_masked`).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import replay_bd3lm
import replay_duo
import replay_llada
import replay_mdlm
import replay_schedules
import replay_sedd
import torch
from references import ALL, SMALL, Reference

REPLAYS: dict[str, Callable[[Reference], None]] = {
    "llada_pretrain": replay_llada.pretraining,
    "llada_sft": replay_llada.tuning,
    "llada_loglikelihood": replay_llada.likelihood,
    "dllm_llada_sft": replay_llada.dllm_llada,
    "dllm_dream_sft": replay_llada.dllm_dream,
    "dream_cart": replay_llada.cart,
    "mdlm_nelbo": replay_mdlm.nelbo,
    "bd3lm_bs4": replay_bd3lm.everything,
    "bd3lm_bs8": replay_bd3lm.everything,
    "sedd_absorb": replay_sedd.absorb,
    "sedd_uniform": replay_sedd.uniform,
    "duo_udlm_nelbo": replay_duo.uniform,
    "duo_mdlm_posterior": replay_duo.masked,
    "mdlm_schedules": replay_schedules.mdlm,
    "bd3lm_schedules": replay_schedules.bd3lm,
    "duo_schedules": replay_schedules.duo,
    "sedd_schedules": replay_schedules.sedd,
}
there = pytest.mark.skipif(not ALL.is_dir(), reason="UNMASK_FIXTURES names no folder with reference objectives")


@there
def test_no_file_is_forgotten() -> None:
    assert set(REPLAYS) == {path.stem for path in ALL.glob("*.safetensors")}


@there
@pytest.mark.parametrize("name", REPLAYS)
@torch.no_grad()
def test_every_entry(name: str) -> None:
    case = Reference(ALL, name)
    REPLAYS[name](case)
    assert not case.unread, f"nobody looked at {sorted(case.unread)}"


@pytest.mark.parametrize("name", sorted(path.stem for path in SMALL.glob("*.safetensors")))
@torch.no_grad()
def test_what_needs_no_network(name: str) -> None:
    case = Reference(SMALL, name)
    REPLAYS[name](case)
    assert not case.unread, f"nobody looked at {sorted(case.unread)}"
