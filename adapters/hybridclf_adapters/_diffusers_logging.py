"""Remarks of diffusers and transformers, silenced where ours say the same."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the remarks of diffusers and transformers in a `with` block, as ours say the same."""
    import diffusers
    import transformers

    loggings = (diffusers.utils.logging, transformers.utils.logging)
    before = [logging.get_verbosity() for logging in loggings]
    for logging in loggings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, verbosity in zip(loggings, before, strict=True):
            logging.set_verbosity(verbosity)
