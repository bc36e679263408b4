"""Training of a pair on labelled images: a small proposer, a late-conditioned U-Net, and their fusion."""

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
"""Trials of the measurement of tier 2 alone."""

TOP_K, RACE = 5, Race(confidence=0.95, max_trials=4)
"""Number of candidates and allocation with which a pair is saved.

Of 2,000 held-out images of CIFAR-10, 99.2 % had their class among the five. With a fusion fitted on a quarter of them,
accuracy on the others was 89.3 %, with 16 trials at most 89.4 %, and with 64 trials of all ten classes 89.0 %. The cost
per image was 4.1, 12.1 and 640 evaluations, or 1.2, 3.8 and 64 rows.
"""

FACTS = ("device", "bf16", "compiles", "images", "network")
"""Names of the facts that decide a training beside its settings: device and its abilities, data and U-Net."""


def train_pair(
    source: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> HybridClassifier:
    """Train both tiers and their fusion on labelled images, into a folder.

    Some images are held out for the fusion and for measuring the result. Copies of one picture (re-encoded, resized,
    slightly noisy, mirrored) and images of one `group` are held out together. The pictures and the seed decide the
    choice; other images, file names and order do not. Training images of the pair in `start_from` are never held out.

    Images are decoded once and kept in memory, at most 4 GiB of them. In training they are shifted by up to an eighth
    of a side, rotated and scaled slightly, partly blanked and, except for digits, mirrored. A checkpoint is written
    about once a minute.

    Parameters
    ----------
    source : path or "digits"
        Source of the images, as in `datasets.load_labelled`.
    out : path
        New or empty folder, or the folder of the training to resume. In the end `HybridClassifier.load` takes it; its
        subfolder "training" has the log.
    resume : bool
        Resume the training in `out` with its own settings. The result equals that of an uninterrupted training.
    device : str
        "auto" (a GPU if there is one), or torch's name of the device.
    progress : bool
        Show progress bars.
    **settings
        Fields of `PairSettings`. A field that is None or left out has its default or, if resumed, its earlier value.
        The image size of digits is 8 by default.

    Returns
    -------
    HybridClassifier
        The pair, loaded from `out`.

    Raises
    ------
    InvalidInputError
        For settings out of range, or images that cannot be trained on.
    TrainingError
        If `out` holds something else, its training has other settings, the loss is not finite, or `out` cannot be
        written.
    """
    out, given = Path(out).resolve(), {name: value for name, value in settings.items() if value is not None}
    # an absolute path, as the training may be resumed from another folder
    if "start_from" in given:
        given["start_from"] = str(model_folder(given["start_from"]).resolve())
    run = TrainingRun.resume(out, given) if resume else None
    if run is None:
        TrainingRun.check_free(out)  # before minutes of decoding
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
    data = TrainingData.of(images, where, source != DIGITS, chosen, compiles, None if seen is None else unpack(seen))
    trainable = data.new_trainable()
    if run is None and chosen.start_from is not None:
        network = _take_over(Path(chosen.start_from), data, trainable)
    else:
        network = data.new_denoiser(run.log["settings"].get("network") if run else None)
    values = (where.type, has_bf16(where), compiles, digest, network.config)
    facts: dict[str, Any] = dict(zip(FACTS, values, strict=True))
    jobs = proposer_job(data, trainable.network), denoiser_job(data, network)
    if run is None:  # every check has passed, so that a refused training leaves no folder
        first = {job.name: job.trainer for job in jobs if chosen.start_from is not None}
        more = {"recipe": decided, "trained_on": pack(data.digests)} | ({"seen": seen} if seen else {})
        run = TrainingRun.start(out, asdict(chosen) | facts, first, **more)
    run.require(facts)
    run.log["unreadable"] = list(images.unreadable)
    _train(run, data, trainable, jobs, progress)
    return HybridClassifier.load(out)


def _modules() -> list[ModuleType]:
    """Modules whose constants decide the result of a training."""
    fitting = [calibration, cross_fit, fusion, novelty, objectives, weighting, worth]
    training = [augmentation, denoiser_training, losses, optimizer, trainer]
    return [sys.modules[__name__], duplicates, holding_out, recipe, *training, *fitting]


def trained_on(folder: Path) -> np.ndarray:
    """Read the digests, uint32, of all training images of a pair in a folder and of the pairs it started from.

    Raises
    ------
    SavedModelError
        If the log has none.
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
    """Packed digests of the training images of the pair to start from, if there is one."""
    if chosen.start_from is None:
        return None
    folder = Path(chosen.start_from)
    with _a_pair_to_start_from(folder, chosen):
        known = read_description(folder)["classes"]["values"]
        if known != classes:
            raise InvalidInputError(
                f"{folder} has the classes {known}, not {classes}; give a pair for the same classes"
            )
        return pack(trained_on(folder))


@contextmanager
def _a_pair_to_start_from(folder: Path, chosen: PairSettings) -> Iterator[None]:
    """Turn errors of reading a folder into an error that says what to give instead, in a `with` block."""
    try:
        yield
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError, SavedModelError) as error:
        raise InvalidInputError(
            f"{folder} is no pair to start from: {error}; give the folder of one that was trained here, for images of "
            f"{chosen.image_size} pixels"
        ) from error


def _take_over(folder: Path, data: TrainingData, trainable: Trainable) -> LateUNet:
    """Load the weights of a pair in a folder into a new tier 1, and return a new tier 2 with its weights.

    Raises
    ------
    InvalidInputError
        If the folder holds no pair of this image size, or its tier 1 is of another kind.
    """
    with _a_pair_to_start_from(folder, data.settings):
        saved = read_description(folder)
        trainable.load(folder / "proposer")
        earlier = restore_denoiser(folder, saved["denoiser"], torch.device("cpu")).network
        if earlier.config["shape"] != list(data.shape):
            raise SavedModelError(f"it is for images of {earlier.config['shape']}")
        # a network of the earlier size, whatever this device would train by default
        network = data.new_denoiser(earlier.config)
        network.load_state_dict(earlier.state_dict())
        return network


def stored_settings(log: Mapping[str, Any]) -> PairSettings:
    """Settings of a training from its log, which mixes them with facts."""
    return PairSettings(
        **{field.name: v for field in fields(PairSettings) if (v := log["settings"].get(field.name)) is not None}
    )


def _digest(images: LabelledImages) -> str:
    """Hash the images, labels and groups to a short text."""
    digest = hashlib.blake2b("\n".join(images.classes).encode(), digest_size=16)
    for array in (images.y, images.groups, images.pixels):
        digest.update(array.data)
    return digest.hexdigest()


def _train(run: TrainingRun, data: TrainingData, trainable: Trainable, jobs: Sequence[Job], progress: bool) -> None:
    """Train both tiers one after the other, from their checkpoints, then fit the fusion and save."""
    proposer, denoiser = (
        run.train(job.name, job.trainer, job.seconds, job.held_out, progress, job.loss) for job in jobs
    )
    _finish(run, data, trainable, proposer, denoiser, progress)


def _finish(
    run: TrainingRun, data: TrainingData, trainable: Trainable, proposer: nn.Module, network: nn.Module, progress: bool
) -> None:
    """Fit the fusion, measure and save the pair."""
    # saved beside the checkpoints first, so that `out` never holds half a model
    folder = run.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with writing(folder):
            folder.mkdir()
            spec = trainable.save(proposer, folder / "proposer")
        clf = _calibrated(spec, network, data, progress)
        run.log["validation"] = _validate(clf, data)
        if clf.worth_ is not None:
            run.log["worth"] = asdict(clf.worth_) | {"sentence": str(clf.worth_)}
        with writing(folder):
            clf.set_params(device="auto", verbose=False).save(folder)
        run.write()
        with writing(run.folder), suppress(MissingDependencyError):  # matplotlib is an extra
            plot_losses(run.log["losses"]).savefig(run.folder / "loss.png")
        _publish(folder, run)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, run: TrainingRun) -> None:
    """Move a saved model to its final folder, and remove the checkpoints."""
    with writing(run.out):
        sync_tree(folder)
        # model.json last, as its presence says that the model is complete; everything before it is on the disk by then
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "model.json"):
            if path.name == "model.json":
                sync_folder(run.out)
            target = run.out / path.name
            if target.is_dir():  # left by an earlier attempt, interrupted here
                shutil.rmtree(target)
            path.replace(target)
        sync_folder(run.out)
        for name in run.log["n_steps"]:
            run.checkpoint(name).unlink(missing_ok=True)


def _calibrated(spec: str, network: Any, data: TrainingData, progress: bool) -> HybridClassifier:
    """Join the two tiers to a classifier, its fusion fitted on held-out images."""
    # rounded to float16 as in the saved file, so that the fusion fits the weights that will be loaded
    network = network.to(memory_format=torch.contiguous_format).half().float()
    denoiser = LateConditionedDenoiser(
        network, data.classes, data.mean, data.scale, device=data.device, mirror=data.mirror
    )
    clf = HybridClassifier(
        spec,
        denoiser,
        top_k=TOP_K,
        allocation=RACE,
        device=str(data.device),
        verbose=progress,
        random_state=data.settings.seed,
    )
    return clf.fit(*data.some_held_out(data.fit_on))


def _validate(clf: HybridClassifier, data: TrainingData) -> dict[str, float]:
    """Measure the accuracy of each tier alone and of both on held-out images that the fusion was not fitted on."""
    images, labels = data.some_held_out(data.measure_on)
    if not len(labels):  # few held-out images, all needed for the fusion
        return {"n": 0}
    # tier 2 alone: all classes, no prior
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
