"""Downloads from the hub that fail within seconds if there is no network."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from hybridclf.errors import SavedModelError

__all__ = ["asking_hub"]

SECONDS = 5.0
"""Longest wait for the hub's first answer."""


@contextmanager
def asking_hub(spec: str, advice: str) -> Iterator[None]:
    """Use the hub's cache alone in a `with` block if the hub cannot be reached.

    Parameters
    ----------
    spec : str
        Spec string, for the message.
    advice : str
        End of the message: what to type instead.

    Raises
    ------
    SavedModelError
        For a file that is not in the cache either.
    """
    # the hub's client, and transformers through it, would otherwise retry for a minute
    before = constants.HF_HUB_OFFLINE
    # a setting of the process, restored below
    constants.HF_HUB_OFFLINE = before or not _answers()
    try:
        yield
    except OSError as error:
        # the hub was reached, so this is its own answer
        if not constants.HF_HUB_OFFLINE:
            raise
        why = "HF_HUB_OFFLINE is set" if before else f"{constants.ENDPOINT} cannot be reached"
        raise SavedModelError(
            f"{spec!r} cannot be loaded: it needs a download, {why}, and the cache does not have all of it; {advice}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers() -> bool:
    """Tell whether the hub answers at all, be it by an error."""
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # the hub's client changes its HTTP library, and so the exceptions, by version
        return False
    return True
