"""Settings of a training, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import InvalidInputError
from ..utils.bounds import check_number, check_whole, is_whole

__all__ = ["PairSettings", "stored_settings"]


@dataclass(frozen=True)
class PairSettings:
    """Settings of a training.

    Attributes
    ----------
    minutes : float
        Time for everything, above 0: reading, both tiers, fusion and measurement.
    proposer : str
        Tier 1: spec string of a pretrained network with features, or of a scikit-learn classifier; "timm:convnet", a
        new network as large as the time allows; or "auto", a pretrained one if one can be had, unless a short trial
        finds a new one significantly better (`comparison.compare`).
    wrong_class_weight : float
        Weight of the wrong-class term in the denoiser's loss, at least 0; 0 leaves it out.
    image_size : int
        Side in pixels of tier 2's images, 8 or a multiple of 16; images are stretched to a square of it. A pretrained
        tier 1 gets larger ones.
    validation_fraction : float
        Share of the images held out for the fusion and for measuring the result, in (0, 1).
    seed : int
        Seed of all random choices, in [0, 2**32).
    start_from : str or None
        Pair whose weights new networks start from: the folder of one trained here, or the name of an embedded model. If
        its classes are others, the weights by class are random. None: all weights are random.
    group : str or None
        Parquet column of groups that are held out together, such as the film that a frame is from. None: "group", if
        there is one.
    """

    minutes: float = 30.0
    proposer: str = "auto"
    wrong_class_weight: float = 1.0
    image_size: int = 32
    validation_fraction: float = 0.1
    seed: int = 0
    start_from: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        check_number("minutes", self.minutes, above=0)
        check_number("wrong_class_weight", self.wrong_class_weight, at_least=0)
        check_number("validation_fraction", self.validation_fraction, above=0, below=1)
        check_whole("seed", self.seed, 0)
        for name in ("seed", "image_size"):  # numpy's numbers are no JSON
            if is_whole(getattr(self, name), 0):
                object.__setattr__(self, name, int(getattr(self, name)))
        if self.seed >= 2**32:
            raise InvalidInputError(f"seed must be below 2**32, got {self.seed}")
        # the U-Net halves a side twice, and patches leave 16 positions
        if not is_whole(self.image_size, 1) or (self.image_size != 8 and self.image_size % 16):
            raise InvalidInputError(
                f"image_size must be 8, 16, 32, 48, 64 or another multiple of 16, got {self.image_size!r}"
            )


def stored_settings(log: Mapping[str, Any]) -> PairSettings:
    """Settings of a training from its log, which mixes them with facts."""
    return PairSettings(
        **{field.name: v for field in fields(PairSettings) if (v := log["settings"].get(field.name)) is not None}
    )
