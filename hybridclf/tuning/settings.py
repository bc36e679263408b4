"""Settings of a tuning, checked."""

from dataclasses import dataclass

from ..errors import InvalidInputError
from ..utils.bounds import check_number, check_whole

__all__ = ["TuneSettings"]

MAX_RANK = 256
"""Highest rank of a LoRA; more than that is no longer small."""


@dataclass(frozen=True)
class TuneSettings:
    """Settings of a tuning.

    Attributes
    ----------
    rank : int
        Rank of the LoRA; 0 for none.
    words : bool
        Learn new embeddings of the labels' words or, of a class-conditional network, of its classes.
    wrong_class_weight : float
        Weight of the wrong-class term in the loss, at least 0; 0 leaves it out.
    minutes : float
        Time of the training itself, above 0.
    validation_fraction : float
        Share of the images held out, in (0, 1): half of them for early stopping and the fusion, half for measuring.
        It is less if tier 1 was trained on more of the others.
    seed : int
        Seed of all random choices.
    """

    rank: int = 8
    words: bool = False
    wrong_class_weight: float = 1.0
    minutes: float = 30.0
    validation_fraction: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("rank", self.rank, 0)
        check_whole("seed", self.seed, 0)
        check_number("wrong_class_weight", self.wrong_class_weight, at_least=0)
        check_number("minutes", self.minutes, above=0)
        check_number("validation_fraction", self.validation_fraction, above=0, below=1)
        if self.rank > MAX_RANK:
            raise InvalidInputError(f"rank must be at most {MAX_RANK}, got {self.rank}")
        if not self.rank and not self.words:
            raise InvalidInputError("there is nothing to tune: give a rank of at least 1, or words")
