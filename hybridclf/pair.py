"""Training a pair on labelled images: a small proposer, a late-conditioned U-Net, and the fusion of the two."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from .allocation import FixedTrials, Race
from .catalog import model_folder
from .checkpoint import writing
from .devices import as_device, has_bf16
from .errors import InvalidInputError, MissingDependencyError, SavedModelError
from .estimator import HybridClassifier
from .fusion import Fusion
from .labelled import DIGITS, LabelledImages, load_labelled
from .loss_picture import plot_losses
from .models import LateConditionedDenoiser, LateUNet
from .pair_training import PairSettings, Part, Task, denoiser_part, proposer_part, worth_compiling
from .persistence import read_description, restore_denoiser
from .ports import Trainable
from .training_run import TrainingRun
from .writing import sync_folder, sync_tree

__all__ = ["PairSettings", "n_to_fit_on", "train_pair"]

HELD_OUT = 500
"""Held-out images that the fusion is fitted on, and others that the result is measured on, at most."""

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

    Images are decoded once and held in memory, 4 GiB of them at most: more are refused. In training they are shifted
    by up to an eighth, rotated and scaled a little, a square of some is blanked and, digits apart, they are mirrored.
    A checkpoint is written about once a minute.

    Parameters
    ----------
    source : path or "digits"
        As for `labelled.load_labelled`.
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
    chosen = _settings(source, given if run is None else run.log["settings"])
    where = as_device(device)
    images = load_labelled(source, chosen.image_size, progress)
    compiles = worth_compiling(chosen.minutes, where)
    digest = _digest(images)
    task = Task.of(images, where, source != DIGITS, chosen, compiles)
    trainable = task.new_trainable()
    if run is None and chosen.start_from is not None:
        network = _take_over(Path(chosen.start_from), digest, task, trainable)
    else:
        network = task.new_denoiser(run.log["settings"].get("network") if run else None)
    values = (where.type, has_bf16(where), compiles, digest, network.config)
    facts: dict[str, Any] = dict(zip(FACTS, values, strict=True))
    parts = proposer_part(task, trainable.network), denoiser_part(task, network)
    if run is None:  # all that can be refused has been
        first = {part.name: part.trainer for part in parts if chosen.start_from is not None}
        run = TrainingRun.start(out, asdict(chosen) | facts, first)
    run.require(facts)
    run.log["unreadable"] = list(images.unreadable)
    _train(run, task, trainable, parts, progress)
    return HybridClassifier.load(out)


def _take_over(folder: Path, images: str, task: Task, trainable: Trainable) -> LateUNet:
    """Give a new tier 1 the weights of a pair in a folder, which may not have seen what is held out now; its tier 2.

    Raises
    ------
    InvalidInputError
        If it holds no pair of these classes and sizes, one of another tier 1, or one that was trained on the images, of
        that digest, that are now held out.
    """
    try:
        saved = read_description(folder)
        classes = saved["classes"]["values"]
        if classes != task.classes.tolist():
            raise InvalidInputError(f"{folder} tells {classes} apart, not {task.classes.tolist()}")
        _check_split(folder, images, task)
        trainable.load(folder / "proposer")
        earlier = restore_denoiser(folder, saved["denoiser"], torch.device("cpu")).network
        if earlier.config["shape"] != list(task.shape):
            raise SavedModelError(f"it is for images of {earlier.config['shape']}")
        network = task.new_denoiser(earlier.config)
        network.load_state_dict(earlier.state_dict())
        return network
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError, SavedModelError) as error:
        raise InvalidInputError(
            f"{folder} is no pair to start from: {error}; give the folder of one that was trained here, for images of "
            f"{task.settings.image_size} pixels"
        ) from error


def _check_split(folder: Path, images: str, task: Task) -> None:
    """Check that a pair that was trained on these very images held out the same ones."""
    log = folder / "training" / "log.json"
    before = json.loads(log.read_text(encoding="utf-8"))["settings"] if log.exists() else {}
    now = asdict(task.settings)
    differs = [name for name in ("validation_fraction", "seed") if before.get(name) != now[name]]
    if before.get("images") == images and differs:
        names = " and ".join(f"{name} {before.get(name)}" for name in differs)
        raise InvalidInputError(
            f"{folder} was trained on images that would be held out now; hold out those that it did: {names}"
        )


def _settings(source: str | Path, given: dict[str, Any]) -> PairSettings:
    """Settings from what was given, or stored together with facts."""
    own = {"image_size": 8} if source == DIGITS else {}
    return PairSettings(**own | {name: value for name, value in given.items() if name not in FACTS})


def _digest(images: LabelledImages) -> str:
    """A short text that differs where the images or their labels do."""
    digest = hashlib.blake2b("\n".join(images.classes).encode(), digest_size=16)
    for array in (images.y, images.pixels):
        digest.update(array.data)
    return digest.hexdigest()


def _train(run: TrainingRun, task: Task, trainable: Trainable, parts: Sequence[Part], progress: bool) -> None:
    """Both tiers one after the other, then the fusion; from what there is already."""
    proposer, denoiser = (run.train(part.name, part.trainer, part.seconds, part.held_out, progress) for part in parts)
    _finish(run, task, trainable, proposer, denoiser, progress)


def _finish(
    run: TrainingRun, task: Task, trainable: Trainable, proposer: nn.Module, network: nn.Module, progress: bool
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


def _calibrated(spec: str, network: Any, task: Task, progress: bool) -> HybridClassifier:
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
    return clf.fit(*task.some_held_out(slice(n_to_fit_on(task))))


def n_to_fit_on(task: Task) -> int:
    """How many held-out images, the first ones, the fusion is fitted on: not more than half, but one of each class."""
    return max(min(HELD_OUT, len(task.held_out) // 2), len(task.classes))


def _validate(clf: HybridClassifier, task: Task) -> dict[str, float]:
    """Accuracy of each tier alone and of both on held-out images that the fusion was not fitted on, if any are left."""
    images, labels = task.some_held_out(slice(max(n_to_fit_on(task), len(task.held_out) - HELD_OUT), None))
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
