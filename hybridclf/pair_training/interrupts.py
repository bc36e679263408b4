"""Ctrl-C in a training: the step is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupts_noted"]


@contextmanager
def interrupts_noted() -> Iterator[threading.Event]:
    """Set an event at the first Ctrl-C, in a `with` block, so that the step is finished; a second one interrupts it.

    A handler other than Python's own is left in place.
    """
    noted = threading.Event()
    # signal handlers belong to the main thread
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield noted
        return

    def note(*_: Any) -> None:
        noted.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
