from hypothesis import given
from hypothesis import strategies as st

from unmask.serving.turns import Turns


def test_clients_take_turns():
    turns = Turns()
    for client, one in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)):
        turns.add(client, one)
    assert [turns.next() for _ in range(len(turns))] == [1, 4, 5, 2, 6, 3]
    assert len(turns) == 0


def test_one_that_waits_can_go():
    turns = Turns()
    turns.add("a", 1)
    turns.add("a", 2)
    assert turns.drop("a", 1)
    assert not turns.drop("a", 1)
    assert not turns.drop("b", 2)
    assert (turns.next(), len(turns)) == (2, 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_nothing_is_lost_and_each_client_keeps_its_order(script):
    turns, added, taken = Turns(), [], []
    for number, (client, add) in enumerate(script):
        if add:
            turns.add(client, (client, number))
            added.append((client, number))
        elif len(turns):
            taken.append(turns.next())
    taken += [turns.next() for _ in range(len(turns))]
    assert sorted(taken) == sorted(added)
    for client in "abc":
        mine = [number for owner, number in taken if owner == client]
        assert mine == sorted(mine)
