"""Matrix products whose weights are packed once for a processor's kernels, as long as nothing is learnt.

A product begins by copying the weights into the order in which its kernel reads them. For the few rows that a decoding
step asks for, that is up to half of the work. oneDNN lets one copy serve every call. It also sums a row in the same
order however many there are beside it, which the usual kernels do not below four rows: a text is the same to the last
bit alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Callable[[Tensor, Tensor | None], Tensor]  # x (..., D), bias (V,) or None -> (..., V)
Packer = Callable[[Tensor], Product]  # weight (V, D) -> the product with its packed copy

_OPS = torch.ops.mkldnn
_allowed = [torch.backends.mkldnn.is_available() and hasattr(_OPS, "_reorder_linear_weight")]
_DTYPES = {torch.float32}  # what a processor multiplies without emulating it
if _allowed[0] and _OPS._is_mkldnn_bf16_supported():
    _DTYPES.add(torch.bfloat16)
_PACKING = "_unmask_packing"  # of a weight: its Packing


class Packing:
    """What is known of a weight beside its numbers. rests: nobody changes it now; packer: how it is packed; made: the
    product, and of which version of the weight where."""

    __slots__ = ("made", "packer", "rests", "state")

    def __init__(self) -> None:
        self.rests, self.state = False, (0, 0)
        self.packer: Packer = _reordered
        self.made: Product | None = None

    def __reduce__(self) -> tuple[type[Packing], tuple[()]]:
        return Packing, ()  # whoever gets the weight packs it anew

    def product(self, weight: Tensor) -> Product:
        """Packed when first asked for, and anew once the weights have changed."""
        state = weight.data_ptr(), weight._version
        if self.made is None or self.state != state:
            self.state, self.made = state, self.packer(weight.detach())
        return self.made


class Linear(nn.Linear):
    """Its weights are at rest from `eval()` to the next `train()`: then, and only then, they may be packed. Not every
    optimiser counts the versions of what it changes, so that a copy could not tell by itself that it is out of date."""

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)

    def train(self, mode: bool = True) -> Linear:
        super().train(mode)
        packing = _packing(self.weight)
        packing.rests = not mode
        packing.made = None if mode else packing.made
        return self


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., D) times weight (V, D) transposed, plus bias (V,) -> (..., V)."""
    if not _packs(x, weight):
        return F.linear(x, weight, bias)
    return _packing(weight).product(weight)(x, bias)


def pack_as(weight: Tensor, packer: Packer) -> None:
    """From now on, products with this weight that are packed at all are packed so."""
    packing = _packing(weight)
    packing.packer, packing.made = packer, None


@contextmanager
def unpacked() -> Iterator[None]:
    """Inside, every product is torch's own, as in the implementations that we are measured against."""
    was, _allowed[0] = _allowed[0], False
    try:
        yield
    finally:
        _allowed[0] = was


def _packs(x: Tensor, weight: Tensor) -> bool:
    """Only on a processor and in what it has hardware for, and only weights at rest, where no gradient is kept."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not (_allowed[0] and _packing(weight).rests):
        return False
    usual = x.dtype == weight.dtype and x.dtype in _DTYPES and weight.is_cpu
    return usual and not torch.is_autocast_enabled("cpu")


def _packing(weight: Tensor) -> Packing:
    """It goes with the weight; looking for it elsewhere would take as long as a small product."""
    known: Packing | None = getattr(weight, _PACKING, None)
    if known is None:
        known = Packing()
        setattr(weight, _PACKING, known)
    return known


def _reordered(weight: Tensor) -> Product:
    copy = _OPS._reorder_linear_weight(weight)
    return lambda x, bias: _OPS._linear_pointwise(x, copy, bias, "none", [], "")
