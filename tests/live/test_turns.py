"""Turns of clients."""

from hybridclf.live.turns import Turns


def test_turns_are_those_of_the_example() -> None:
    turns = Turns(100)
    turns._last = {"a": 6, "b": 4}
    here = [4, 5, 6, 4]
    assert [turns.take(client, here) for client in ("a", "b", "c", "c")] == [7, 5, 4, 5]


def test_a_client_that_comes_back_is_behind_its_last_image() -> None:
    turns = Turns(100)
    assert turns.take("two", []) == 0 and turns.take("two", [0]) == 1
    # one image of another client at a time: its numbers rise beyond that of the image that waits
    assert [turns.take("one", [1]) for _ in range(3)] == [1, 2, 3]


def test_only_clients_that_matter_are_remembered() -> None:
    turns = Turns(3)
    for i in range(100):
        turns.take(f"client {i}", [i])
    assert len(turns._last) <= 4
    assert turns.take("anyone", []) == 0 and list(turns._last) == ["anyone"]
