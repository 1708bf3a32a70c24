"""Which device and which number format, from what the user says and what the machine has."""

from __future__ import annotations

import torch

from .errors import UserError

DTYPES = {"fp32": torch.float32, "float32": torch.float32, "bf16": torch.bfloat16, "bfloat16": torch.bfloat16}
INT8 = "int8"  # weights are loaded in float32 and multiplied in 8 bits: `models.int8`


def pick_device(name: str = "auto") -> torch.device:
    """auto is the GPU if there is one. UserError where the named device does not exist or is of no use here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device: {name!r} is not a device; use auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):  # decoding draws in float64, which MPS has not; meta holds no numbers
        raise UserError(f"device: {name!r} is not supported; use auto, cpu, cuda or cuda:1")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {name!r} is not here (CUDA devices: {torch.cuda.device_count()}); use device=cpu")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """auto is bfloat16 where the hardware multiplies it (else it is emulated, slower than float32), else float32."""
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise UserError(f"dtype: {name!r} is unknown; use auto, fp32 or bf16")
    return DTYPES[name]


def pick_weights(name: str, device: torch.device) -> tuple[torch.dtype, bool]:
    """As `pick_dtype`, for what is only read, and whether products are to be in 8 bits."""
    if name == INT8:
        return torch.float32, True
    if name != "auto" and name not in DTYPES:
        raise UserError(f"dtype: {name!r} is unknown; use auto, fp32, bf16 or int8")
    return pick_dtype(name, device), False


def has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(bool(getattr(torch.cpu, check, bool)()) for check in checks)
