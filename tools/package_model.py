"""Put a trained run into the package as its default model, in bfloat16.

unmask train packaged && python tools/package_model.py runs/packaged
"""

import sys
from pathlib import Path

import torch

import unmask

MOST_BYTES = 8_000_000


def main(run: str) -> None:
    lm = unmask.load(run, device="cpu", dtype="fp32")
    if not lm.config.get("training", {}).get("finished"):
        sys.exit(f"{run}: the run has not come to its end; type `unmask train` again to go on with it")
    lm.denoiser.network.to(torch.bfloat16)
    lm.config["name"] = "unmask-stdlib-small"
    target = Path(unmask.__file__).parent / "assets" / "default"
    lm.save(target)
    size = sum(p.stat().st_size for p in target.iterdir())
    assert size <= MOST_BYTES, f"{size} bytes are more than {MOST_BYTES}: train a smaller model"
    print(f"{target}: {size / 1e6:.2f} MB, {lm.parameters / 1e6:.2f}M parameters")


if __name__ == "__main__":
    main(sys.argv[1])
