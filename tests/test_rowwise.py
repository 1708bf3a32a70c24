"""A row comes out the same to the last bit alone and among others."""

import pytest
import torch

from unmask.rowwise import sigmoid, times


@pytest.mark.parametrize("threads", [1, 2])
@torch.no_grad()
def test_a_row_is_the_same_among_others(threads):
    rng = torch.Generator().manual_seed(0)
    x, matrix = torch.randn(70, 24, generator=rng), torch.randn(24, 100, generator=rng)
    torch.set_num_threads(threads)
    try:
        product, curve = times(x, matrix), sigmoid(x[:, :7])
        for n in range(1, 70):
            assert torch.equal(times(x[:n], matrix), product[:n])
            assert torch.equal(sigmoid(x[:n, :7]), curve[:n])
    finally:
        torch.set_num_threads(1)


def test_values_and_shapes():
    x, matrix = torch.randn(2, 3, 5), torch.randn(5, 4)
    torch.testing.assert_close(times(x, matrix), x @ matrix)
    torch.testing.assert_close(times(x[0, 0], matrix), x[0, 0] @ matrix)
    with torch.no_grad():
        torch.testing.assert_close(times(x, matrix), x @ matrix)
        torch.testing.assert_close(times(x[0, 0], matrix), x[0, 0] @ matrix)
        torch.testing.assert_close(sigmoid(20 * x), torch.sigmoid(20 * x))
