"""Downloads from the hub that fail within seconds, and with one message, where there is no network."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from hybridclf.errors import SavedModelError

__all__ = ["asking_hub"]

SECONDS = 5.0
"""How long the hub may take to say that it is there."""


@contextmanager
def asking_hub(spec: str, advice: str) -> Iterator[None]:
    """Look at the hub's cache alone where the hub cannot be reached; its client, and transformers' through it, would
    ask again for a minute.

    Parameters
    ----------
    spec : str
        What is loaded.
    advice : str
        Ends the message: what to type instead.

    Raises
    ------
    SavedModelError
        For a file that is not in the cache either.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers()
    try:
        yield
    except OSError as error:
        if not constants.HF_HUB_OFFLINE:
            raise
        why = "HF_HUB_OFFLINE is set" if before else f"{constants.ENDPOINT} cannot be reached"
        raise SavedModelError(
            f"{spec!r} cannot be loaded: it needs a download, {why}, and the cache does not have all of it; {advice}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers() -> bool:
    """Whether there is a hub at the other end, whatever it answers."""
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # those of whichever HTTP library the hub's client has
        return False
    return True
