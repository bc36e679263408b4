"""Turns of clients: fair queueing of their images."""

from collections.abc import Iterable

__all__ = ["Turns"]


class Turns:
    """Numbers by which images of different clients are ordered, lower ones first.

    A client's next image is one after its last, answered or not, and not before those of all others. Clients a and b
    have images of the turns 4, 5, 6 and 4 here. The next of a has 7, of b 5, of a third one 4.

    Parameters
    ----------
    capacity : int
        Clients that are remembered, at least.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._last: dict[str, int] = {}

    def take(self, client: str, here: Iterable[int]) -> int:
        """Take a client's next turn, where the images that wait or are under way have these."""
        turns = list(here)
        first = min(turns, default=0)
        if not turns:
            self._last.clear()
        elif len(self._last) > self._capacity:  # forget clients whose next turn is the first anyway
            self._last = {other: turn for other, turn in self._last.items() if turn >= first}
        self._last[client] = turn = max(first, self._last.get(client, -1) + 1)
        return turn
