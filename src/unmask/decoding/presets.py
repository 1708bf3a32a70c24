"""Published ways of writing, as settings: each says what its paper or code does by default, and any of it can be
changed. Knows no code; the names are those of the tables in `settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DREAM: dict[str, Any] = {"quota": "proportional"}
FAST: dict[str, Any] = {"rule": "confidence", "block": 32, "threshold": 0.9}
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9}

PRESETS: dict[str, Mapping[str, Any]] = {
    # one canvas of masks, a fixed number of tokens a pass
    "llada": {"rule": "confidence"},
    "llada-random": {"rule": "random"},
    "dream-origin": {"rule": "ancestral"},
    "dream-maskgit": DREAM | {"rule": {"kind": "after_cuts", "of": "confidence"}},
    "dream-margin": DREAM | {"rule": {"kind": "after_cuts", "of": "margin"}},
    "dream-entropy": DREAM | {"rule": {"kind": "after_cuts", "of": "entropy"}},
    # as many tokens a pass as the model is sure of
    "fast-dllm": FAST,
    "fast-dllm-prefix": FAST | {"cache": "prefix"},
    "fast-dllm-dual": FAST | {"cache": "dual"},
    "fast-dllm-factor": {"rule": "confidence", "block": 32, "factor": 1.0},
    "eb": {"rule": "entropy", "quota": {"kind": "entropy_bound", "bound": 0.1}},
    "klass": {"rule": "confidence", "quota": {"kind": "stable", "threshold": 0.9, "kl": 0.01, "passes": 2}},
    "dparallel": {"rule": "entropy", "block": 32, "quota": {"kind": "certain", "entropy": 0.5}},
    # a canvas as long as the text turns out to need
    "daedal": FAST | {"grow": "daedal"},
    # the reverse process, and samplers that take back what they wrote
    "mdlm": {"rule": "ancestral", "temperature": 1.0},
    "first-hitting": {"rule": "first_hitting", "temperature": 1.0},
    "psi": {"rule": "psi", "temperature": 1.0},
    "remdm": SAMPLED | {"rule": {"kind": "remdm_cap", "eta": 0.008}},
    "remdm-rescale": SAMPLED | {"rule": {"kind": "remdm_rescale", "eta": 0.015}},
    "remdm-conf": SAMPLED | {"rule": "remdm_conf"},
    "remdm-loop": SAMPLED | {"rule": {"kind": "remdm_loop", "on": 0.55, "off": 0.05, "filled": 0.9, "eta": 0.02}},
    "wino": {
        "rule": "confidence",
        "block": 128,
        "quota": {"kind": "wide", "threshold": 0.6},
        "revise": {"kind": "verify", "threshold": 0.9},
    },
    "take-back": {
        "rule": "confidence",
        "block": 32,
        "threshold": 0.9,
        "revise": {"kind": "take_back", "threshold": 0.4},
    },
    # scores, and canvases of random tokens
    "sedd": {"rule": "analytic", "temperature": 1.0},
    "sedd-euler": {"rule": "euler", "temperature": 1.0},
    "diffusion-gemma": {"rule": {"kind": "entropy_renoise", "bound": 0.1}, "block": 256, "block_steps": 48},
    # models that see their text in blocks, of the model's own size
    "bd3lm": SAMPLED | {"rule": "first_hitting"},
    "sdar": {"rule": "confidence", "threshold": 0.9},
    "sdar-static": {"rule": "confidence"},
    "sdar-sequential": {"rule": "left_to_right"},
    "llada2": {"rule": "confidence", "threshold": 0.95},
    "llada2.1": {
        "rule": "confidence",
        "threshold": 0.7,
        "revise": {"kind": "edit", "threshold": 0.5, "passes": 16},
    },
    "llada2.1-speed": {
        "rule": "confidence",
        "threshold": 0.5,
        "revise": {"kind": "edit", "threshold": 0.0, "passes": 16},
    },
}
