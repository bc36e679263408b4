"""Images of a training, split into those to train on and those held out."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import block_means
from ..data.datasets import LabelledImages, channel_statistics
from ..data.duplicates import duplicate_groups
from ..data.holding_out import digests, join_groups, split, spread
from ..data.overlaps import overlapping
from ..errors import InvalidInputError
from .settings import PairSettings
from .start_from import Start

__all__ = ["TrainingData", "conflicts", "overlaps"]

HELD_OUT = 500
"""Most held-out images to fit the fusion on, and most others to measure the result on."""

LOOKED_AT = (300, 5000)
"""Most held-out and training images of 32 pixels that are searched for overlapping crops; of larger ones fewer."""


@dataclass(frozen=True)
class TrainingData:
    """Images of both trainings, split and on the training device.

    Copies of one picture and images of one group are in the same split.

    Attributes
    ----------
    pixels, y : Tensor `[n, S, S, 3]` uint8, `[n]`
        Training images for tier 2, and their class numbers.
    digests, groups : uint32 array `[n]`, int array `[n]`
        Hashes of the training images, and their groups.
    held_out, held_out_y : Tensor `[m, S, S, 3]` uint8, `[m]`
        Held-out images for tier 2, and their class numbers.
    held_out_at, held_out_groups : int array `[m]`
        Their positions among all images, and their groups.
    photos, held_out_photos : uint8 array `[n, kS, kS, 3]`, `[m, kS, kS, 3]`
        The same images for tier 1, k times as large.
    fit_on, measure_on : int array
        Positions among the held-out images: to fit the fusion on, and to measure the result on.
    classes : array `[C]`
        Class names.
    mean, scale : float array `[3]`
        Mean and standard deviation of the training images' channels.
    mirror : bool
        Mirrored images show the same class.
    compiles : bool
        Networks may be compiled.
    settings : PairSettings
        Settings of the training.
    start : Start or None
        Pair whose weights new networks start from.
    conflicts : tuple of str
        Nearly equal pictures under two labels, a sentence each.
    overlaps : tuple of str
        Held-out images that show a part of a training image, a sentence each.
    """

    pixels: Tensor
    y: Tensor
    digests: np.ndarray
    groups: np.ndarray
    held_out: Tensor
    held_out_y: Tensor
    held_out_at: np.ndarray
    held_out_groups: np.ndarray
    photos: np.ndarray
    held_out_photos: np.ndarray
    fit_on: np.ndarray
    measure_on: np.ndarray
    classes: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    mirror: bool
    compiles: bool
    settings: PairSettings
    start: Start | None = None
    conflicts: tuple[str, ...] = ()
    overlaps: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        images: LabelledImages,
        device: torch.device,
        mirror: bool,
        settings: PairSettings,
        compiles: bool = False,
        seen: np.ndarray | None = None,
        start: Start | None = None,
    ) -> "TrainingData":
        """Split images into training and held-out ones, and move them to the device.

        Parameters
        ----------
        images : LabelledImages
            All images, their side a multiple of the settings' image size.
        device : torch.device
            Training device.
        mirror : bool
            Mirrored images show the same class.
        settings : PairSettings
            Settings of the training.
        compiles : bool
            Networks may be compiled.
        seen : uint32 array, optional
            Digests of images that an earlier training saw; they are not held out.
        start : Start, optional
            Pair whose weights new networks start from.

        Raises
        ------
        InvalidInputError
            If classes or groups cannot be split so.
        """
        digest = digests(images.pixels)
        copies, groups, kept, out = _hold_out(images, digest, mirror, settings, seen)
        # the fusion and the measurement never share an image, nor copies of one
        fit_on = _half(images.y[out], groups[out])
        # copies, for which `largest_multiple` leaves room
        photos, held_out_photos = images.pixels[kept], images.pixels[out]
        factor = images.pixels.shape[1] // settings.image_size
        pixels, held_out = block_means(photos, factor), block_means(held_out_photos, factor)
        names = np.array(images.names, dtype=object)
        mean, scale = channel_statistics(pixels)
        return cls(
            pixels=torch.from_numpy(pixels).to(device),
            y=torch.from_numpy(images.y[kept]).to(device),
            digests=digest[kept],
            groups=groups[kept],
            held_out=torch.from_numpy(held_out).to(device),
            held_out_y=torch.from_numpy(images.y[out]).to(device),
            held_out_at=out,
            held_out_groups=groups[out],
            photos=photos,
            held_out_photos=held_out_photos,
            fit_on=fit_on,
            measure_on=np.setdiff1d(np.arange(len(out)), fit_on)[:HELD_OUT],
            classes=np.array(images.classes),
            mean=mean,
            scale=scale,
            mirror=mirror,
            compiles=compiles,
            settings=settings,
            start=start,
            conflicts=conflicts(images, copies),
            overlaps=overlaps(held_out, pixels, names[out], names[kept], settings.seed),
        )

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.pixels.device

    def encode(self, pixels: Tensor) -> Tensor:
        """Standardise images `[n, S, S, 3]` to float32 `[n, 3, S, S]`."""
        mean, scale = (torch.from_numpy(v).float().to(pixels.device).view(3, 1, 1) for v in (self.mean, self.scale))
        return (pixels.permute(0, 3, 1, 2).float() - mean) / scale

    def some_held_out(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Select held-out images at positions `[m]` in tier 1's size, with their labels."""
        return self.held_out_photos[chosen], self.classes[self.held_out_y.cpu().numpy()[chosen]]

    def sample(self, n: int) -> np.ndarray:
        """Draw the positions of at most n training images in random order, one of each class first."""
        order = np.random.default_rng(self.settings.seed).permutation(len(self.y))
        first = np.unique(self.y.cpu().numpy()[order], return_index=True)[1]
        return np.concatenate([order[first], np.delete(order, first)])[: max(0, n)]

    @property
    def shrink(self) -> int:
        """Times that a side of tier 1's images is a side of tier 2's."""
        return self.photos.shape[1] // self.settings.image_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an encoded image."""
        return 3, self.settings.image_size, self.settings.image_size


def _hold_out(
    images: LabelledImages, digest: np.ndarray, mirror: bool, settings: PairSettings, seen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Group the images and split them.

    Pictures of one place or thing may all look like copies. If nothing can be held out for that reason, only equal
    images count as copies.

    Returns
    -------
    copies, groups : int array `[n]`
        Group numbers of copies, and of copies and the images' own groups together.
    kept, out : int arrays
        Positions of training and held-out images.
    """
    share, seed = settings.validation_fraction, settings.seed
    copies = duplicate_groups(images.pixels, mirror)
    groups = join_groups(images.groups, copies)
    try:
        return copies, groups, *split(images.y, groups, digest, share, seed, images.classes, seen)
    except InvalidInputError:
        # equal digests: the same pixels
        copies = np.unique(digest, return_inverse=True)[1]
        groups = join_groups(images.groups, copies)
        held_out = split(images.y, groups, digest, share, seed, images.classes, seen)
    warnings.warn(
        "so many images are nearly equal that only equal ones are held out together: on held-out images the result "
        "may look better than on new ones; name a column of groups, if there is one",
        stacklevel=2,
    )
    return copies, groups, *held_out


def conflicts(images: LabelledImages, copies: np.ndarray) -> tuple[str, ...]:
    """Pictures under several labels, a sentence each: every group of copies with more than one, by its first images."""
    found = []
    order = np.lexsort((images.y, copies))  # by group, and by label within a group
    for group in np.split(order, np.flatnonzero(np.diff(copies[order])) + 1):
        labels, first = np.unique(images.y[group], return_index=True)
        if len(labels) > 1:
            same = zip(labels.tolist(), group[first].tolist(), strict=True)
            found.append(" and ".join(f"{images.names[i]} ({images.classes[label]})" for label, i in same))
    return tuple(found)


def _half(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Choose about half of the held-out images in whole groups: at most `HELD_OUT`, one of each class first."""
    counts = np.bincount(y)
    wanted = np.maximum(1, np.round(min(0.5, HELD_OUT / len(y)) * counts)) * (counts > 0)
    # the key of a group is the position of its first image: held-out images are already in random order
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    chosen = spread(y, groups, first[group], wanted.astype(int), counts)
    one_each = np.unique(y[chosen], return_index=True)[1]
    return np.concatenate([chosen[one_each], np.delete(chosen, one_each)])


def overlaps(
    held_out: np.ndarray, trained_on: np.ndarray, names: np.ndarray, trained_names: np.ndarray, seed: int
) -> tuple[str, ...]:
    """Held-out images `[m, S, S, C]` that overlap training images `[n, S, S, C]`, a sentence each.

    Figures of such images flatter, since a part of them was trained on. Of many images some are looked at.
    """
    rng, smaller = np.random.default_rng(seed), min(1.0, (32 / held_out.shape[1]) ** 2)  # in as much time
    some, others = (
        np.sort(rng.permutation(len(images))[: int(most * smaller)])
        for images, most in zip((held_out, trained_on), LOOKED_AT, strict=True)
    )
    pairs = overlapping(held_out[some], trained_on[others])
    _, first = np.unique(pairs[:, 0], return_index=True)
    return tuple(f"{names[some[i]]} (held out) and {trained_names[others[j]]}" for i, j in pairs[first])
