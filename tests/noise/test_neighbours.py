"""Near symbols by order and by vectors, as matrices of jumps."""

import torch

from unmask.noise.neighbours import in_order, in_space, jumps


def test_groups_in_order_are_runs_in_a_ring():
    classes, edges = in_order(range(10), 12, groups=5, near=2)
    assert classes[:10] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert edges == ((1, 4), (0, 2), (1, 3), (2, 4), (0, 3))
    assert in_order([3, 5, 7], 9, groups=256, near=8)[0][3:8:2] == [0, 1, 2]


def test_groups_in_space_hold_what_points_the_same_way():
    rng = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(8, 0)
    vectors = centres * (1 + torch.rand(32, 1, generator=rng)) + 0.05 * torch.randn(32, 4, generator=rng)
    classes, edges = in_space(range(32), vectors, groups=4, near=2)
    for start in range(0, 32, 8):
        assert len(set(classes[start : start + 8])) == 1
    assert sorted(set(classes)) == [0, 1, 2, 3]
    assert [len(row) for row in edges] == [2] * 4
    assert all(here not in row for here, row in enumerate(edges))
    assert in_space(range(32), vectors, groups=4, near=2) == (classes, edges)


def test_jumps_are_probabilities_and_leave_even_symbols_even():
    classes, edges = in_order(range(12), 13, groups=6, near=4)
    real = torch.arange(13) < 12
    moves = jumps(torch.tensor(classes), real, edges, 0.25)
    torch.testing.assert_close(moves.sum(1), torch.ones(6).double())
    torch.testing.assert_close(moves.mean(0), torch.full((6,), 1 / 6).double())
    assert (moves[0, [1, 2, 4, 5]] > 2 * moves[0, 3]).all()


def test_nothing_moves_to_a_group_of_barred_symbols():
    classes, edges = [0, 1, 2], ((1, 2), (0, 2), (0, 1))
    moves = jumps(torch.tensor(classes), torch.tensor([True, True, False]), edges, 0.5)
    assert (moves[:, 2] == 0).all()
    torch.testing.assert_close(moves.sum(1), torch.ones(3).double())
