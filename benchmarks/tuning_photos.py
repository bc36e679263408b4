"""Tuning a class-conditional U-Net to photographs: `python -m benchmarks.tuning_photos DATA WORK` (some hours).

DATA holds the training and test images of flowers5 and tinypets9. A small `UNet2DModel` learns all of their fourteen
classes by denoising alone, as such models are published; then it is tuned to one set's classes by a LoRA, new
embeddings of the classes, or both, with and without the wrong-class term. All are asked which class a test photograph
is of, in the same trials; those of the other set show what was forgotten. WORK keeps the model, which goes on training
where it was interrupted. A row that is in `benchmarks/results/tuning-photos.json` is not made again.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from tqdm import tqdm

from benchmarks.tuned import tuned
from hybridclf import FixedTrials, Reranker
from hybridclf.data.datasets import load_labelled
from hybridclf.metrics import accuracy, accuracy_difference
from hybridclf.pair_training.checkpoint import load_tensors, save_json, save_tensors
from hybridclf.training.trainer import Trainer, TrainerConfig
from hybridclf_adapters.diffusers import load

RESULTS = Path(__file__).parent / "results" / "tuning-photos.json"
SETS = ("flowers5", "tinypets9")
SIDE, TRIALS, ASKED = 16, 8, 200
"""Side of the images in pixels, trials of every class, and test images of a set."""

BATCH_SIZE, LEARNING_RATE = 64, 1e-3
SAVE_EVERY = 100
"""Steps of the base model between checkpoints."""


@dataclass(frozen=True)
class Photos:
    """Labelled photographs: uint8 images `[n, S, S, 3]`, and names of classes `[n]`."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def read(cls, path: Path, most: int | None = None) -> "Photos":
        """Read a file, or so many images of it, drawn at random with equally many of each class."""
        data = load_labelled(path, SIDE)
        labels = np.array(data.classes)[data.y]
        rng = np.random.default_rng(0)
        index = np.arange(len(labels)) if most is None else _balanced(labels, most, rng)
        return cls(data.pixels[index], labels[index])


def _balanced(labels: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of n labels, in turn one of each class."""
    rank = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        rank[rng.permutation(own)] = np.arange(len(own))
    return np.argsort(rank, kind="stable")[:n]


@dataclass(frozen=True)
class Setting:
    """One tuning: the set, training photographs, rank of the LoRA, new embeddings of classes, weight of the term."""

    name: str
    photos: int
    rank: int
    words: bool
    wrong_class_weight: float
    n_steps: int = 300

    def __str__(self) -> str:
        kind = " and ".join([*(["LoRA"] if self.rank else []), *(["classes"] if self.words else [])])
        return f"{self.photos} of {self.name}, {kind}{'' if self.wrong_class_weight else ', no wrong-class term'}"


KINDS = ((8, False), (0, True), (8, True))
"""LoRA, classes, and both."""


def settings() -> Iterator[Setting]:
    """All tunings: by set, from most photographs to fewest, with and without the wrong-class term."""
    for name, photos, weight in product(SETS, (1000, 300, 100), (1.0, 0.0)):
        yield from (Setting(name, photos, *kind, weight) for kind in KINDS)


def base_model(data: Path, work: Path, n_steps: int) -> Path:
    """Train the class-conditional U-Net, and save it as a pipeline of diffusers."""
    folder, state = work / "base", work / "base-training.safetensors"
    if (folder / "model_index.json").exists():
        return folder
    photos = [Photos.read(data / f"{name}-train.parquet") for name in SETS]
    images, labels = (np.concatenate(both) for both in zip(*((own.images, own.labels) for own in photos), strict=True))
    names, y = np.unique(labels, return_inverse=True)
    x0 = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    trainer = _base_trainer(x0.contiguous(), torch.from_numpy(y), len(names), scheduler, n_steps)
    if state.exists():
        trainer.load_state_dict(load_tensors(state))
    losses: list[float] = []
    bar = tqdm(desc="base model", total=n_steps, initial=trainer.step)
    for loss in trainer.run():
        losses.append(float(loss))
        bar.update()
        bar.set_postfix(loss=np.mean(losses[-100:]), refresh=False)
        if trainer.step % SAVE_EVERY == 0:
            save_tensors(state, trainer.state_dict())
    DDPMPipeline(trainer.average, scheduler).save_pretrained(work / "base-part")
    index = work / "base-part" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": dict(enumerate(names.tolist()))}))
    os.replace(work / "base-part", folder)
    return folder


def _base_trainer(x0: torch.Tensor, y: torch.Tensor, n_classes: int, scheduler: Any, n_steps: int) -> Trainer:
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIDE,
        layers_per_block=1,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_class_embeds=n_classes,
    )

    def loss(network: Any, x0: torch.Tensor, y: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Mean squared error in ε of images, half of them mirrored."""
        x0 = torch.where(torch.rand(len(x0), 1, 1, 1, generator=rng) < 0.5, x0.flip(3), x0)
        t = torch.randint(scheduler.config.num_train_timesteps, (len(x0),), generator=rng)
        noise = torch.randn(x0.shape, generator=rng)
        x_t = scheduler.add_noise(x0, noise, t)
        return (network(x_t, t, class_labels=y, return_dict=False)[0] - noise).square().mean()

    config = TrainerConfig(batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, weight_decay=0.01, ema_decay=0.995)
    return Trainer(network, x0, y, loss, config, n_steps, 0)


def answers(denoiser: Any, tests: dict[str, Photos]) -> dict[str, np.ndarray]:
    """True where the right class of a set has the lowest error, bool `[n]` by set."""
    stage = Reranker(denoiser, allocation=FixedTrials(TRIALS), batch_size=256)
    found = {}
    for name, photos in tests.items():
        classes = np.unique(photos.labels)
        results = stage.rerank(photos.images, [classes.tolist()] * len(photos.images))
        errors = np.stack([result.evidence.sum(axis=0) for result in results])
        found[name] = classes[errors.argmin(axis=1)] == photos.labels
    return found


def row(setting: Setting | None, right: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> dict[str, Any]:
    """Accuracy by set with intervals, and paired differences from the model before."""
    return {
        "setting": None if setting is None else asdict(setting),
        "name": "before" if setting is None else str(setting),
        "accuracy": {name: asdict(accuracy(hits)) for name, hits in right.items()},
        "gain": {name: asdict(accuracy_difference(hits, before[name])) for name, hits in right.items()},
    }


def tuned_answers(denoiser: Any, setting: Setting, photos: Photos, tests: dict[str, Photos]) -> dict[str, np.ndarray]:
    """Answers after a tuning; the denoiser is as before in the end."""
    classes = np.unique(photos.labels)
    numbers = np.searchsorted(classes, photos.labels)
    candidates = [[c, *(other for other in range(len(classes)) if other != c)] for c in numbers.tolist()]
    recipe = {name: getattr(setting, name) for name in ("rank", "words", "wrong_class_weight", "n_steps")}
    recipe |= {"strengths": (1.0,), "title": str(setting)}
    (found,) = [
        answers(denoiser, tests) for _ in tuned(denoiser, photos.images, classes.tolist(), candidates, **recipe)
    ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("work", type=Path, metavar="WORK")
    parser.add_argument("--steps", type=int, default=1500, help="of the base model")
    args = parser.parse_args()
    denoiser = load(str(base_model(args.data, args.work, args.steps)), device="cpu")
    tests = {name: Photos.read(args.data / f"{name}-test.parquet", ASKED) for name in SETS}
    rows = {one["name"]: one for one in (json.loads(RESULTS.read_text()) if RESULTS.exists() else [])}
    before = answers(denoiser, tests)
    rows["before"] = row(None, before, before)
    for setting in settings():
        if str(setting) in rows:
            continue
        photos = Photos.read(args.data / f"{setting.name}-train.parquet", setting.photos)
        one = row(setting, tuned_answers(denoiser, setting, photos, tests), before)
        rows[str(setting)] = one
        print(setting, {k: round(100 * v["value"], 1) for k, v in one["gain"].items()}, flush=True)
        save_json(RESULTS, list(rows.values()))


if __name__ == "__main__":
    main()
