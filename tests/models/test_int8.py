"""8-bit products: near the exact ones, the same for a row in any company; what is saved or learnt stays as it is."""

import pytest
import torch
import torch.nn.functional as F

from unmask.errors import UserError
from unmask.evaluation.rounding import rounding_of
from unmask.lm import load
from unmask.models import int8
from unmask.models.int8 import use_int8
from unmask.models.linear import Linear, unpacked

here = pytest.mark.skipif(
    torch.backends.quantized.engine not in int8.ENGINES, reason="8-bit products are for x86 processors"
)


def rounded(width=96, out=40):
    torch.manual_seed(0)
    network = torch.nn.ModuleDict({"head": Linear(width, out)}).eval()
    use_int8(network)
    return network["head"], torch.randn(33, width)


@here
def test_a_product_is_near_the_exact_one_and_a_row_is_alone():
    head, x = rounded()
    with torch.inference_mode():
        whole, exact = head(x), F.linear(x, head.weight, head.bias)
        assert 0 < (whole - exact).norm() / exact.norm() < 0.03
        for rows in (1, 2, 3, 5, 16):
            assert torch.equal(head(x[:rows]), whole[:rows])
            assert torch.equal(head(x[-rows:] * 1.0), whole[-rows:])
        assert torch.equal(head(torch.zeros(2, 96)), head.bias.expand(2, -1))


@here
def test_gradients_and_the_switch_see_exact_products():
    head, x = rounded()
    assert torch.equal(head(x), F.linear(x, head.weight, head.bias))
    with torch.inference_mode(), unpacked():
        assert torch.equal(head(x), F.linear(x, head.weight, head.bias))


@here
def test_the_packaged_model_in_8_bits():
    exact, small = load(), load(dtype="int8")
    text = "for i in range(10):\n    print(i)\n" * 4
    before, after = exact.score(text).bits_per_byte, small.score(text).bits_per_byte
    assert before != after
    assert abs(before - after) < 0.03
    cost = rounding_of(small.denoiser, [small.tokenizer.encode_plain(text)])
    assert 0 < cost.divergence < 0.01
    assert cost.agreement > 0.9
    for (name, mine), (_, theirs) in zip(small.denoiser.named_parameters(), exact.denoiser.named_parameters()):
        assert torch.equal(mine, theirs), name
    assert small.fill("def area(width, height):\n    ", "\n    return result\n", tokens=6).tokens


def test_other_machines_are_told(monkeypatch):
    monkeypatch.setattr(int8, "ENGINES", ())
    with pytest.raises(UserError, match="dtype=int8"):
        use_int8(torch.nn.ModuleDict({"head": Linear(4, 4)}))
