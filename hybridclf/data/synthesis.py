"""Folders of generated images, one subfolder per class: the baseline of training on synthetic data."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..atomic import make_folder, write_whole
from ..errors import InvalidInputError
from ..utils.manifests import differences, read_manifest
from ..utils.progress import progress_bar

__all__ = ["MANIFEST", "synthesize"]

MANIFEST = "synthesis.json"
"""File in the folder that says what its images are generated from."""


def synthesize(
    generate: Callable[[Sequence[str], Sequence[int]], Sequence[Image.Image]],
    labels: Sequence[str],
    per_class: int,
    folder: Path,
    *,
    made_by: dict[str, Any],
    seed: int = 0,
    batch_size: int = 1,
    progress: bool = False,
) -> int:
    """Generate images of every class into FOLDER/CLASS/00000.png and so on; those that are there stay.

    Image i of a class has a seed of its own, so that an interrupted run gives the same images as a whole one.

    Parameters
    ----------
    generate : function
        Function from labels `[B]` and seeds `[B]` to B images.
    labels : sequence of C str
        Class names, which become folders.
    per_class : int
        Images of each class.
    folder : Path
        A new folder, or one that was begun by the same call.
    made_by : dict
        All that decides the images beside labels and seed, as plain JSON.
    seed : int
        Decides all seeds.
    batch_size : int
        Images in one call.
    progress : bool
        Show a progress bar.

    Returns
    -------
    int
        Number of images that were generated now.

    Raises
    ------
    InvalidInputError
        For labels that are no names of folders, or a folder begun by another call.
    OSError
        If the disk refuses.

    References
    ----------
    Row "Synthetic SD Data" of Table 1, and Appendix F.4, of arXiv 2303.16203.
    """
    _check_names(labels)
    _begin(folder, {**made_by, "seed": seed, "labels": list(labels)})
    wanted = [(label, c, i) for i in range(per_class) for c, label in enumerate(labels)]
    missing = [one for one in wanted if not _path(folder, one[0], one[2]).exists()]
    with progress_bar(
        total=len(wanted), initial=len(wanted) - len(missing), desc="synthesize", unit="image", show=progress
    ) as bar:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            seeds = [int(np.random.SeedSequence([seed, c, i]).generate_state(1)[0]) for _, c, i in batch]
            images = generate([label for label, _, _ in batch], seeds)
            for (label, _, i), image in zip(batch, images, strict=True):
                path = _path(folder, label, i)
                write_whole(path, path.with_suffix(".part"), lambda file, image=image: image.save(file, "png"))  # type: ignore[misc]
            bar.update(len(batch))
    return len(missing)


def _path(folder: Path, label: str, number: int) -> Path:
    return folder / label / f"{number:05}.png"


def _check_names(labels: Sequence[str]) -> None:
    bad = [label for label in labels if not label or label.startswith(".") or set(label) & set('/\\:*?"<>|\0')]
    if bad or len({label.casefold() for label in labels}) < max(2, len(labels)):
        what = f"got {bad[0]!r}" if bad else f"got {list(labels)}"
        raise InvalidInputError(
            f"labels become folders: give at least two different names without / or a like sign; {what}"
        )


def _begin(folder: Path, manifest: dict[str, Any]) -> None:
    """Make the folders and write the manifest; refuse a folder that has another one, or other content."""
    path = folder / MANIFEST
    if path.exists():
        if different := list(differences(read_manifest(path), manifest)):
            raise InvalidInputError(f"{folder} holds other synthetic images: {'; '.join(different)}; give a new folder")
    elif folder.exists() and any(folder.iterdir()):
        raise InvalidInputError(f"{folder} is not empty, and holds no {MANIFEST}; give a new folder")
    for label in manifest["labels"]:
        make_folder(folder / label)
    content = (json.dumps(manifest, indent=1) + "\n").encode()
    write_whole(path, path.with_suffix(".part"), lambda file: file.write(content))
