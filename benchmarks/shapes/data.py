"""Scenes of the shapes pair on disk: pictures, captions and false captions, in parts that are drawn once."""

import json
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from hybridclf.data.shapes import caption, draw, scenes, wrong_caption

PART = 4000
CAPTIONS = 4
LATENT_EDGE = 32


@dataclass(frozen=True)
class Pictures:
    """Pictures uint8 `[n, 64, 64, 3]` and `[n, 32, 32, 3]`, and their right and wrong captions `[n, CAPTIONS, 2]`.

    Beside them the number of things `[n]` in each.
    """

    large: np.ndarray
    small: np.ndarray
    captions: np.ndarray
    n_things: np.ndarray


def load(folder: Path, n_parts: int, workers: int = 2) -> Pictures:
    """The first parts of the training data; what is not there yet is drawn, by several processes."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(folder, i) for i in range(n_parts) if not (folder / f"{i}.json").exists()]
    if missing:
        with get_context("spawn").Pool(workers) as pool:
            for _ in tqdm(pool.imap_unordered(_draw_part, missing), total=len(missing), desc="draw", unit="part"):
                pass
    large = np.concatenate([np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(n_parts)])
    small = np.concatenate([np.load(folder / f"{i}-small.npy") for i in range(n_parts)])
    captions = [json.loads((folder / f"{i}.json").read_text()) for i in range(n_parts)]
    n_things = np.concatenate([np.load(folder / f"{i}-things.npy") for i in range(n_parts)])
    return Pictures(large, small, np.concatenate([np.array(c, dtype=object) for c in captions]), n_things)


def shrink(pictures: np.ndarray) -> np.ndarray:
    """Pictures as the denoiser's adapter resizes them, uint8 `[n, 32, 32, 3]`."""
    size = (LATENT_EDGE, LATENT_EDGE)
    return np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in pictures])


def _draw_part(job: tuple[Path, int]) -> None:
    folder, i = job
    drawn = scenes(PART, random_state=i)
    pictures = np.concatenate([draw(drawn[j : j + 100]) for j in range(0, PART, 100)])
    np.save(folder / f"{i}.npy", pictures)
    np.save(folder / f"{i}-small.npy", shrink(pictures))
    np.save(folder / f"{i}-things.npy", [len(scene.things) for scene in drawn])
    first = i * PART * CAPTIONS
    pairs = [[wrong_caption(s, first + j * CAPTIONS + k) for k in range(CAPTIONS)] for j, s in enumerate(drawn)]
    part = folder / f"{i}.json.part"
    part.write_text(json.dumps(pairs))
    part.rename(folder / f"{i}.json")  # last, so that a part that has it is whole


def sentences(n: int, random_state: int) -> list[str]:
    """Captions to make a vocabulary of."""
    return [caption(s, np.random.default_rng(i)) for i, s in enumerate(scenes(n, random_state=random_state))]
