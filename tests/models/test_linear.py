"""Packed products are torch's, follow the weights as they change, and sum a row alike whatever stands beside it."""

import copy
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F

from unmask.models import linear
from unmask.models.linear import Linear, unpacked

packed = pytest.mark.skipif(not linear._allowed[0], reason="torch was built without oneDNN's packed products")


def layer(width=48, out=40, bias=True):
    torch.manual_seed(0)
    return Linear(width, out, bias=bias).eval(), torch.randn(70, width)


@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_product_is_torchs(bias):
    made, x = layer(bias=bias)
    with torch.inference_mode():
        torch.testing.assert_close(made(x), F.linear(x, made.weight, made.bias))
        torch.testing.assert_close(made(x.view(7, 10, -1)), F.linear(x, made.weight, made.bias).view(7, 10, -1))


@pytest.mark.skipif(torch.bfloat16 not in linear._DTYPES, reason="no bfloat16 in this processor's hardware")
def test_a_packed_product_in_bfloat16_is_torchs():
    made, x = layer()
    made, x = made.bfloat16().eval(), x.bfloat16()
    with torch.inference_mode():
        torch.testing.assert_close(made(x), F.linear(x, made.weight, made.bias))
        assert linear._packing(made.weight).made is not None


def test_what_is_learnt_is_not_packed():
    made, x = layer()
    with torch.no_grad():
        made.eval()(x)
    made(x).square().sum().backward()
    assert made.weight.grad is not None
    with torch.no_grad():
        made.weight.sub_(made.weight.grad)
        torch.testing.assert_close(made(x), F.linear(x, made.weight, made.bias))
        made.weight.data = torch.ones_like(made.weight)
        torch.testing.assert_close(made(x), F.linear(x, made.weight, made.bias))


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_trained_is_never_read_from_an_old_copy(fused):
    """A fused optimiser changes weights without counting their versions; a training step reads the head without
    gradients. Both together once left a model untaught."""
    made, x = layer()
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.1, fused=fused)
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(made.eval()(x), F.linear(x, made.weight, made.bias))
        made.train()
        made(x).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert torch.equal(made(x), F.linear(x, made.weight, made.bias)), "while it is taught"


@packed
@pytest.mark.parametrize("width", [16, 48, 129])
def test_a_row_is_the_same_to_the_last_bit_beside_any_others(width):
    made, x = layer(width)
    with torch.inference_mode():
        whole = made(x)
        for rows in (1, 2, 3, 4, 5, 17, 32):
            for start in (0, 1, len(x) - rows):
                assert torch.equal(made(x[start : start + rows]), whole[start : start + rows])


@packed
def test_a_copy_is_kept_as_long_as_its_weights():
    made, x = layer()
    with torch.inference_mode():
        made(x)
    product = weakref.ref(linear._packing(made.weight).made)
    twin = copy.deepcopy(made)
    sent = pickle.loads(pickle.dumps(made))
    assert product() is not None
    del made
    assert product() is None
    for other in (twin, sent):
        with torch.inference_mode():
            torch.testing.assert_close(other(x), F.linear(x, other.weight, other.bias))


def test_the_switch_leads_back_to_torchs_own():
    made, x = layer()
    with torch.inference_mode(), unpacked():
        assert torch.equal(made(x), F.linear(x, made.weight, made.bias))
