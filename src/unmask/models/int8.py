"""Products in 8-bit integers, for speed on a processor: weights are rounded once, each row of activations as it comes.

A weight's row is a scale times whole numbers up to 127, an activation's row one times whole numbers up to 63: the sum
of two products then fits into 16 bits, as processors without wider instructions add them. Sums of integers are exact in
any order, and every row has a scale of its own, so a row is the same to the last bit whatever stands beside it. The
float weights stay where they are: what is trained, saved and exported is they.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ..errors import UserError
from .linear import Linear, Product, pack_as

WEIGHTS, ACTIVATIONS = 127, 63  # the largest whole numbers
ENGINES = ("x86", "fbgemm")  # that round activations outside and multiply rows on their own
_OPS, PRODUCT = torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32"


def use_int8(network: nn.Module) -> None:
    """Every matrix of the blocks, and the head, in 8 bits wherever no gradient is kept. What a network makes of times
    stays as it is: small, and felt everywhere."""
    weight = next(network.parameters())
    if torch.backends.quantized.engine not in ENGINES or not hasattr(_OPS, PRODUCT) or weight.device.type != "cpu":
        raise UserError("dtype=int8: is for x86 processors only; use auto, fp32 or bf16 here")
    for name, part in network.named_modules():
        if isinstance(part, Linear) and name.startswith(("blocks.", "head")) and "modulate" not in name:
            pack_as(part.weight, _rounded)


def _rounded(weight: Tensor) -> Product:
    scale = weight.abs().amax(1).clamp(min=1e-30).double() / WEIGHTS
    with warnings.catch_warnings():  # torch means to drop tensors of whole numbers some day: no other way in is as fast
        warnings.simplefilter("ignore", UserWarning)
        whole = torch.quantize_per_channel(weight, scale, torch.zeros(len(weight), dtype=torch.int64), 0, torch.qint8)
        packed = _OPS.linear_prepack(whole, None)

    def product(x: Tensor, bias: Tensor | None) -> Tensor:
        size = x.abs().amax(-1, keepdim=True).clamp_(min=1e-30)
        out: Tensor = getattr(_OPS, PRODUCT)(x / size, 1 / ACTIVATIONS, ACTIVATIONS + 1, packed).mul_(size)
        return out if bias is None else out.add_(bias)

    return product
