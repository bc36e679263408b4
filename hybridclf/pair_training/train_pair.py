"""Training a pair on labelled images: a small proposer, a late-conditioned U-Net, and the fusion of the two."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from ..atomic import sync_folder, sync_tree
from ..data import duplicates, holding_out
from ..data.datasets import DIGITS, LabelledImages, load_labelled
from ..data.holding_out import pack, unpack
from ..denoising import objectives, weighting
from ..devices import as_device, has_bf16
from ..errors import InvalidInputError, MissingDependencyError, SavedModelError
from ..estimator import HybridClassifier
from ..fitting import calibration, cross_fit, worth
from ..models import LateConditionedDenoiser, LateUNet
from ..persistence import read_description, restore_denoiser
from ..ports import Trainable
from ..pretrained.catalog import model_folder
from ..reranking import fusion, novelty
from ..reranking.allocation import FixedTrials, Race
from ..reranking.fusion import Fusion
from ..training import augmentation, losses, optimizer, trainer
from ..training import denoiser as denoiser_training
from . import provenance, recipe
from .checkpoint import writing
from .loss_plot import plot_losses
from .recipe import Job, PairSettings, TrainingData, denoiser_job, proposer_job, worth_compiling
from .run import TrainingRun

__all__ = ["PairSettings", "stored_settings", "train_pair", "trained_on"]

TRIALS = 32
"""Trials of tier 2 alone where it is measured."""

TOP_K, RACE = 5, Race(confidence=0.95, max_trials=4)
"""Classes that tier 2 compares, and how sure an answer is: a pair is saved with these, and may be given others.

Of 2,000 held-out images of CIFAR-10, 99.2 % had their class among the five. With a fusion fitted on a quarter of them,
the others were answered as well (89.3 %) as with 16 trials at most (89.4 %) or 64 of all ten classes (89.0 %), for 4.1
evaluations and 1.2 rows per image instead of 12.1 and 3.8, or 640 and 64.
"""

FACTS = ("device", "bf16", "compiles", "images", "network")
"""What a training depends on beside its settings: device and what that is capable of, a digest of the data, tier 2."""


def train_pair(
    source: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> HybridClassifier:
    """Train a classifier on labelled images, both tiers and their fusion, into a folder.

    Some images are held out, for the fusion and to measure the result. Copies of one picture (re-encoded, resized, a
    little noisy, mirrored) and images of one `group` are held out together. Which ones they are follows from the
    pictures and the seed, and not from other images, their order or names; what the pair in `start_from` was trained on
    never is.

    Images are decoded once and held in memory, 4 GiB of them at most: more are refused. In training they are shifted
    by up to an eighth, rotated and scaled a little, a square of some is blanked and, digits apart, they are mirrored.
    A checkpoint is written about once a minute.

    Parameters
    ----------
    source : path or "digits"
        As for `datasets.load_labelled`.
    out : path
        A new or empty folder, or the one of a training that is to be resumed. In the end `HybridClassifier.load` takes
        it; how the training went is in its subfolder "training".
    resume : bool
        Whether to go on with the training in `out`, by its settings; the result is that of one without interruption.
    device : str
        "auto" (a GPU if there is one) or what torch calls the device.
    progress : bool
        Whether to show progress bars.
    **settings
        Fields of `PairSettings`; None and what is left out stand for the default, or for what `out` has if resumed.
        The image size of digits is 8 by default.

    Returns
    -------
    HybridClassifier
        As read from `out`.

    Raises
    ------
    InvalidInputError
        For settings out of range, or images that cannot be trained on.
    TrainingError
        If `out` holds something else, is to be resumed with other settings, or cannot be written.
    """
    out, given = Path(out).resolve(), {name: value for name, value in settings.items() if value is not None}
    if "start_from" in given:
        given["start_from"] = str(model_folder(given["start_from"]).resolve())
    run = TrainingRun.resume(out, given) if resume else None
    if run is None:
        TrainingRun.check_free(out)
    own = {"image_size": 8} if source == DIGITS else {}
    chosen = PairSettings(**own | given) if run is None else stored_settings(run.log)
    where = as_device(device)
    images = load_labelled(source, chosen.image_size, progress, chosen.group)
    compiles = worth_compiling(chosen.minutes, where)
    digest, decided = _digest(images), provenance.versions() | provenance.constants(_modules())
    if run is not None:
        run.require({"images": digest})
        run.require_recipe(decided)
    seen = _seen(chosen, images.classes) if run is None else run.log.get("seen")
    task = TrainingData.of(images, where, source != DIGITS, chosen, compiles, None if seen is None else unpack(seen))
    trainable = task.new_trainable()
    if run is None and chosen.start_from is not None:
        network = _take_over(Path(chosen.start_from), task, trainable)
    else:
        network = task.new_denoiser(run.log["settings"].get("network") if run else None)
    values = (where.type, has_bf16(where), compiles, digest, network.config)
    facts: dict[str, Any] = dict(zip(FACTS, values, strict=True))
    parts = proposer_job(task, trainable.network), denoiser_job(task, network)
    if run is None:  # all that can be refused has been
        first = {part.name: part.trainer for part in parts if chosen.start_from is not None}
        more = {"recipe": decided, "trained_on": pack(task.digests)} | ({"seen": seen} if seen else {})
        run = TrainingRun.start(out, asdict(chosen) | facts, first, **more)
    run.require(facts)
    run.log["unreadable"] = list(images.unreadable)
    _train(run, task, trainable, parts, progress)
    return HybridClassifier.load(out)


def _modules() -> list[ModuleType]:
    """The modules whose constants decide what a training comes to."""
    fitting = [calibration, cross_fit, fusion, novelty, objectives, weighting, worth]
    training = [augmentation, denoiser_training, losses, optimizer, trainer]
    return [sys.modules[__name__], duplicates, holding_out, recipe, *training, *fitting]


def trained_on(folder: Path) -> np.ndarray:
    """Digests uint32 of the images that a pair in a folder was trained on, and the pairs that it started from.

    Raises
    ------
    SavedModelError
        If its log does not say.
    """
    path = folder / "training" / "log.json"
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
        return np.union1d(unpack(log["trained_on"]), unpack(log.get("seen", "")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedModelError(
            f"{path} does not say which images it was trained on, that they may not be held out"
        ) from error


def _seen(chosen: PairSettings, classes: list[str]) -> str | None:
    """The packed digests of what the pair to start from was trained on, if there is one."""
    if chosen.start_from is None:
        return None
    folder = Path(chosen.start_from)
    with _a_pair_to_start_from(folder, chosen):
        known = read_description(folder)["classes"]["values"]
        if known != classes:
            raise InvalidInputError(f"{folder} tells {known} apart, not {classes}")
        return pack(trained_on(folder))


@contextmanager
def _a_pair_to_start_from(folder: Path, chosen: PairSettings) -> Iterator[None]:
    """Turn what goes wrong in reading a folder into an error that says what to give instead."""
    try:
        yield
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError, SavedModelError) as error:
        raise InvalidInputError(
            f"{folder} is no pair to start from: {error}; give the folder of one that was trained here, for images of "
            f"{chosen.image_size} pixels"
        ) from error


def _take_over(folder: Path, task: TrainingData, trainable: Trainable) -> LateUNet:
    """Give a new tier 1 the weights of a pair in a folder; its tier 2.

    Raises
    ------
    InvalidInputError
        If it holds no pair of these sizes, or one of another tier 1.
    """
    with _a_pair_to_start_from(folder, task.settings):
        saved = read_description(folder)
        trainable.load(folder / "proposer")
        earlier = restore_denoiser(folder, saved["denoiser"], torch.device("cpu")).network
        if earlier.config["shape"] != list(task.shape):
            raise SavedModelError(f"it is for images of {earlier.config['shape']}")
        network = task.new_denoiser(earlier.config)
        network.load_state_dict(earlier.state_dict())
        return network


def stored_settings(log: Mapping[str, Any]) -> PairSettings:
    """Settings from the log of a training, where facts are among them."""
    return PairSettings(
        **{field.name: v for field in fields(PairSettings) if (v := log["settings"].get(field.name)) is not None}
    )


def _digest(images: LabelledImages) -> str:
    """A short text that differs where the images, their labels or groups do."""
    digest = hashlib.blake2b("\n".join(images.classes).encode(), digest_size=16)
    for array in (images.y, images.groups, images.pixels):
        digest.update(array.data)
    return digest.hexdigest()


def _train(run: TrainingRun, task: TrainingData, trainable: Trainable, parts: Sequence[Job], progress: bool) -> None:
    """Both tiers one after the other, then the fusion; from what there is already."""
    proposer, denoiser = (
        run.train(part.name, part.trainer, part.seconds, part.held_out, progress, part.loss) for part in parts
    )
    _finish(run, task, trainable, proposer, denoiser, progress)


def _finish(
    run: TrainingRun, task: TrainingData, trainable: Trainable, proposer: nn.Module, network: nn.Module, progress: bool
) -> None:
    """Fit the fusion, measure and save: first beside, then in its place as a whole."""
    folder = run.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with writing(folder):
            folder.mkdir()
            spec = trainable.save(proposer, folder / "proposer")
        clf = _calibrated(spec, network, task, progress)
        run.log["validation"] = _validate(clf, task)
        if clf.worth_ is not None:
            run.log["worth"] = asdict(clf.worth_) | {"sentence": str(clf.worth_)}
        with writing(folder):
            clf.set_params(device="auto", verbose=False).save(folder)
        run.write()
        with writing(run.folder), suppress(MissingDependencyError):  # the picture is an extra
            plot_losses(run.log["losses"]).savefig(run.folder / "loss.png")
        _publish(folder, run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, run: TrainingRun) -> None:
    """Move a saved model to where it belongs, and remove the checkpoints."""
    with writing(run.out):
        sync_tree(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "model.json"):  # which says it is complete
            if path.name == "model.json":
                sync_folder(run.out)
            target = run.out / path.name
            if target.is_dir():  # of an attempt that was interrupted here
                shutil.rmtree(target)
            path.replace(target)
        sync_folder(run.out)
        for part in run.log["n_steps"]:
            run.checkpoint(part).unlink(missing_ok=True)


def _calibrated(spec: str, network: Any, task: TrainingData, progress: bool) -> HybridClassifier:
    """The two tiers as one classifier, with a fusion from held-out images; weights as they are kept: halves."""
    network = network.to(memory_format=torch.contiguous_format).half().float()
    denoiser = LateConditionedDenoiser(
        network, task.classes, task.mean, task.scale, device=task.device, mirror=task.mirror
    )
    clf = HybridClassifier(
        spec,
        denoiser,
        top_k=TOP_K,
        allocation=RACE,
        device=str(task.device),
        verbose=progress,
        random_state=task.settings.seed,
    )
    return clf.fit(*task.some_held_out(task.fit_on))


def _validate(clf: HybridClassifier, task: TrainingData) -> dict[str, float]:
    """Accuracy of each tier alone and of both on held-out images that the fusion was not fitted on, if any are left."""
    images, labels = task.some_held_out(task.measure_on)
    if not len(labels):
        return {"n": 0}
    candidates, stage = [clf.classes_.tolist()] * len(labels), clf.reranker(FixedTrials(TRIALS), Fusion())
    alone = stage.rerank(images, candidates, progress=clf.verbose)
    posterior, results = clf.decide(images)
    answers = {
        "tier_1": clf.proposer_.predict(images),
        "tier_2": np.array([result.ranking[0] for result in alone]),
        "hybrid": clf.classes_[posterior.argmax(axis=1)],
    }
    figures = {name: float((answer == labels).mean()) for name, answer in answers.items()}
    cost = {"evaluations": float(np.mean([r.evaluations for r in results])), "tier_2_trials": TRIALS}
    return {"n": len(labels), **figures, **cost}
