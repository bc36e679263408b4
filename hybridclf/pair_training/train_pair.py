"""Training of a pair on labelled images: a small proposer, a late-conditioned U-Net, and their fusion."""

import hashlib
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import plugins
from ..data import duplicates, holding_out
from ..data.datasets import DIGITS, LabelledImages, largest_multiple, load_labelled, typical_side
from ..data.holding_out import digests, pack, unpack
from ..data.listing import list_labelled
from ..denoising import objectives, weighting
from ..devices import as_device, has_bf16
from ..errors import InvalidInputError, TrainingError
from ..estimator import HybridClassifier
from ..fitting import calibration, corruptions, cross_fit, drift, outliers, recording, tier_fitter, worth
from ..ports import FeatureModel
from ..pretrained.catalog import model_folder
from ..reranking import fusion, novelty
from ..training import augmentation, losses, optimizer, trainer
from ..training import denoiser as denoiser_training
from . import finish, linear_head, networks, pretrained_tier_1, provenance, recipe, time_budget, timing, training_data
from .comparison import compare
from .networks import same_unet
from .out_folder import check_free
from .planning import new_denoiser, new_proposer, plan_time
from .recipe import DENOISER_SHARE, PATIENCE, PROPOSER_SHARE, Job, denoiser_job, proposer_job, worth_compiling
from .run import TrainingRun
from .settings import PairSettings, stored_settings
from .start_from import Start, trained_on
from .tier_1 import AUTO, NEW, Chosen, NetworkTier1, Tier1, choose, fitted_tier_1
from .tier_1_time import Share
from .time_budget import TimeBudget, TimePlan
from .training_data import TrainingData

__all__ = ["PairSettings", "stored_settings", "train_pair", "trained_on"]

FACTS = ("device", "bf16", "compiles", "images", "network", "side")
"""Names of the facts that decide a training beside its settings: device and its abilities, data, U-Net, tier 1's size.
"""


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
    choice; other images, file names and order do not. Training images of the pair in `start_from` are never held out,
    if their pixels are those that it saw.

    Images are decoded once, or twice where "auto" finds a new network better than a pretrained one, and kept in
    memory, at most 4 GiB of them. In training they are shifted by up to an eighth of a side, rotated and scaled
    slightly, partly blanked and, except for digits, mirrored; a new tier 1 sees half of them with a little noise. A
    checkpoint is written about once a minute.

    Parameters
    ----------
    source : path or "digits"
        Source of the images, as in `datasets.load_labelled`.
    out : path
        New or empty folder, or the folder of the training to resume. In the end `HybridClassifier.load` takes it; its
        subfolder "training" has the log.
    resume : bool
        Resume the training in `out` with its own settings. The result equals that of an uninterrupted training, unless
        one of them is cut short because steps take longer than planned.
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
    # absolute paths, as the training may be resumed from another folder
    if "start_from" in given:
        given["start_from"] = str(model_folder(given["start_from"]).resolve())
    if "proposer" in given:
        given["proposer"] = plugins.absolute(given["proposer"])
    run = TrainingRun.resume(out, {k: v for k, v in given.items() if v not in (AUTO, NEW)}) if resume else None
    if run is None:
        check_free(out, source)  # before minutes of decoding
    own = {"image_size": 8} if source == DIGITS else {}
    chosen = PairSettings(**own | given) if run is None else stored_settings(run.log)
    where = as_device(device)
    budget = TimeBudget(chosen.minutes, {} if run is None else run.log.get("seconds", {}))
    with budget.spending("reading") if run is None else nullcontext():
        read = _prepared(source, chosen, where, run, budget, progress)
        budget.count()  # the networks are as large as the time that is left allows
        tiers = _make_tiers(read, budget, run)
    data, second = tiers.data, tiers.jobs[0]
    network: Any = second.trainer.network
    values = (where.type, has_bf16(where), data.compiles, read.digest, network.config, data.photos.shape[1])
    facts: dict[str, Any] = dict(zip(FACTS, values, strict=True))
    plan = plan_time(budget, data, tiers.tier_1, second) if run is None else TimePlan.from_dict(run.log["plan"])
    if progress:
        planned = f"{plan}" if run is None else f"Going on with the training in {out}; at its start: {plan}"
        chosen_as = read.tier_1.note if run is None else run.log.get("tier_1")
        notes = (chosen_as, data.start and data.start.note, planned, plan.too_short, plan.too_few)
        print(*filter(None, notes), sep="\n", file=sys.stderr)
    if run is None:  # every check has passed, so that a refused training leaves no folder
        first = {job.name: job.trainer for job in tiers.jobs if data.start is not None}
        more = {"seconds": budget.spent, "plan": asdict(plan)}
        run = TrainingRun.start(out, asdict(data.settings) | facts, first, **more, **_provenance(read))
    run.require(facts)
    run.log |= {"unreadable": list(read.unreadable), "seconds": budget.spent}
    run.log |= {"conflicts": list(data.conflicts), "overlaps": list(data.overlaps)}
    run.budget = budget
    _train(run, data, tiers.tier_1, second, budget, plan, progress)
    return HybridClassifier.load(out)


class _Read(NamedTuple):
    """All that is read before a training: tier 1's choice, the images, and what decides the result beside them."""

    tier_1: Chosen
    data: TrainingData
    digest: str
    recipe: dict[str, Any]
    seen: np.ndarray | None
    unreadable: tuple[str, ...]


def _provenance(read: _Read) -> dict[str, Any]:
    """Log entries on what decided a training, and on the images that it saw."""
    entries = {"recipe": read.recipe, "tier_1": read.tier_1.note, "trained_on": pack(read.data.digests)}
    return entries | ({"seen": pack(read.seen)} if read.seen is not None else {})


def _prepared(
    source: str | Path,
    settings: PairSettings,
    device: torch.device,
    run: TrainingRun | None,
    budget: TimeBudget,
    progress: bool,
) -> _Read:
    """Choose tier 1 and read the images; where "auto" finds a pretrained network, a new one is tried beside it.

    A new network sees images in tier 2's size. They are read again, and those that spoke for it are trained on then,
    since the result may not be measured on them.
    """
    read = _read(source, settings, device, run, progress)
    model, start, chooses = read.tier_1.model, read.data.start, run is None and settings.proposer == AUTO
    if not chooses or not isinstance(model, FeatureModel) or (start is not None and start.same_classes):
        return read
    budget.count()
    found = compare(model, read.data, budget.left, progress)
    note = f"{read.tier_1.note}: {found.reason}"
    if found.new_is_better:
        new, tried = replace(read.data.settings, proposer=NEW), read.data.held_out_at[found.asked]
        try:
            pretrained, read = read.tier_1.specs[0], _read(source, new, device, None, progress, tried)
            note = f"{read.tier_1.note}, not {pretrained}: {found.reason}"
        except InvalidInputError:
            note += ", but without these images too few could be held out for it"
    return read._replace(tier_1=read.tier_1._replace(note=note))


def _read(
    source: str | Path,
    settings: PairSettings,
    device: torch.device,
    run: TrainingRun | None,
    progress: bool,
    tried: np.ndarray | None = None,
) -> _Read:
    """Choose tier 1, and read and split the images.

    Those at the positions `tried`, and those that the pair to start from saw, are not held out.
    """
    start = None
    if run is None and settings.start_from is not None:
        classes = list_labelled(source, settings.group).classes
        start = Start.of(Path(settings.start_from), classes, settings.image_size)
    tier_1, side = _choose(source, settings, device, run, start)
    images = load_labelled(source, side, progress, settings.group)
    digest, decided = _digest(images), provenance.versions() | provenance.constants(_modules())
    if run is not None:
        run.require({"images": digest})
        run.require_recipe(decided)
    parts = [] if start is None else [_seen(start, images, source, settings.group)]
    if run is not None and "seen" in run.log:
        parts.append(unpack(run.log["seen"]))
    if tried is not None and len(tried):
        parts.append(digests(images.pixels[tried]))
    seen = np.unique(np.concatenate(parts)) if parts else None
    settings = replace(settings, proposer=tier_1.specs[0])
    compiles = worth_compiling(settings.minutes, device)
    data = TrainingData.of(images, device, source != DIGITS, settings, compiles, seen, start)
    return _Read(tier_1, data, digest, decided, seen, images.unreadable)


def _seen(start: Start, images: LabelledImages, source: str | Path, group: str | None) -> np.ndarray:
    """Digests of the images that the pair to start from saw, in its size and in that of these images.

    Without a class in common there are none to expect, and the images are not read once more.
    """
    if start.side == images.pixels.shape[1] or not set(start.classes) & set(images.classes):
        return start.seen
    small = load_labelled(source, start.side, group=group)
    return np.union1d(start.seen, digests(images.pixels[np.isin(digests(small.pixels), start.seen)]))


class _Tiers(NamedTuple):
    """Both tiers before their training: the images, tier 1, and the jobs of the networks, tier 2's first."""

    data: TrainingData
    tier_1: Tier1
    jobs: tuple[Job, ...]


def _make_tiers(read: _Read, budget: TimeBudget, run: TrainingRun | None) -> _Tiers:
    """Make both tiers: of the run to resume, or new ones, of the pair to start from or as large as the time allows."""
    data, trainable = read.data, None
    if read.tier_1.model is None:
        spec, trainable = new_proposer(read.tier_1.specs, data, PROPOSER_SHARE * budget.left)
        data = replace(data, settings=replace(data.settings, proposer=spec))
    seconds = DENOISER_SHARE * budget.left
    network = new_denoiser(data, seconds) if run is None else same_unet(data, run.log["settings"]["network"])
    second = denoiser_job(data, network)
    if trainable is None:
        return _Tiers(data, fitted_tier_1(read.tier_1.model, data), (second,))
    first = proposer_job(data, trainable.network)
    return _Tiers(data, NetworkTier1(trainable, first), (second, first))


def _choose(
    source: str | Path, settings: PairSettings, device: torch.device, run: TrainingRun | None, start: Start | None
) -> tuple[Chosen, int]:
    """Choose tier 1, and the side in pixels to read images in: a multiple of tier 2's."""
    if run is not None:
        return choose(settings.proposer, 0, str(device)), run.log["settings"].get("side", settings.image_size)
    earlier = start if start is not None and start.same_classes else None
    spec = earlier.proposer if earlier is not None and settings.proposer == AUTO else settings.proposer
    typical = 0 if source == DIGITS else typical_side(source, settings.group)
    tier_1 = choose(spec, typical, str(device), None if start is None else start.proposer)
    # images are told apart by their pixels, so what a pair has seen is known in the size that it was read in alone
    if earlier is not None:
        return tier_1, earlier.side
    wanted = min(tier_1.side, typical)
    return tier_1, largest_multiple(source, settings.image_size, wanted, settings.group)


def _modules() -> list[ModuleType]:
    """Modules whose constants decide the result of a training."""
    fitting = [calibration, recording, corruptions, cross_fit, drift, outliers, tier_fitter, worth]
    evidence = [fusion, novelty, objectives, weighting]
    training = [augmentation, denoiser_training, losses, optimizer, trainer]
    ours = [finish, linear_head, networks, pretrained_tier_1, recipe, time_budget, timing, training_data]
    return [*ours, duplicates, holding_out, *training, *fitting, *evidence]


def _digest(images: LabelledImages) -> str:
    """Hash the images, labels and groups to a short text."""
    digest = hashlib.blake2b("\n".join(images.classes).encode(), digest_size=16)
    for array in (images.y, images.groups, images.pixels):
        digest.update(array.data)
    return digest.hexdigest()


def _train(
    run: TrainingRun,
    data: TrainingData,
    tier_1: Tier1,
    job: Job,
    budget: TimeBudget,
    plan: TimePlan,
    progress: bool,
) -> None:
    """Train both tiers one after the other, from their checkpoints, then fit the fusion and save."""
    try:
        with budget.spending("tier_1"):
            tier_1.train(run, Share(plan.tier_1, plan.longest), progress)
        with budget.spending("tier_2"):
            # what tier 1 really took is known now; a training that has begun keeps its number of steps
            seconds = max(0.0, budget.left - plan.finishing)
            network = run.train(job.name, job.trainer, seconds, job.held_out, progress, job.loss, PATIENCE)
        finish.finish(run, data, tier_1, network, budget, plan.too_short, progress)
    except BaseException:
        with suppress(TrainingError):  # a full disk may be why the training ends
            run.write()  # the seconds since the last checkpoint are spent, too
        raise
