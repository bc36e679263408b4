"""`hybridclf calibrate`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidInputError
from .shared import AsJson, Device, Quiet, console, running, text

if TYPE_CHECKING:
    from ..estimator import HybridClassifier
    from ..evaluating.sample import Sample, TrainedOn

DATA = "Folder with a subfolder of images per class, Parquet file, CSV of path and label, or datasets:NAME?split=test."


def calibrate(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the model.", file_okay=False)],
    model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Embedded or saved model; default: cifar10, photographs.")
    ] = None,
    proposer: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Your own tier 1 by name, before the model's tier 2.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Makes a prompt of a label, which goes where {} is.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=2, help="Candidates that tier 1 hands over.")] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Posterior at which a race ends; default: the model's own.")
    ] = None,
    max_trials: Annotated[
        int | None, typer.Option(min=1, help="Trials of a candidate at most; default: the model's own.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that stopping early may cost at most: 0.005 is half a point."),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Probability that it costs more than --max-loss; default: 0.05."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=40, help="Images at most; default: 2,000, and all with --max-loss.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of what belongs together; default: group, if any.")
    ] = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Fit a model's fusion to your own images, or to your own tier 1, for use with: hybridclf classify --model OUT

    Re-ranking is on in OUT if these images show that it pays, and off otherwise. They have to be new to both tiers, and
    other than those that accuracy is reported on. hybridclf evaluate recommends top-k, confidence and trials.
    """
    with running(quiet, lambda: "interrupted; nothing is kept"):
        from ..evaluating.sample import notes_on, read_sample
        from ..fitting.cross_fit import MAX_RECORDED_IMAGES
        from ..pair_training.out_folder import check_free
        from ..plugins import portable
        from .classifier import behind, choose_classifier, images_trained_on

        _check(proposer, model, max_loss, delta)
        check_free(out.resolve(), data)
        if proposer is not None:
            portable(proposer, out.resolve())  # what cannot be saved is refused now
        if proposer is not None and model is not None:
            clf = behind(proposer, model, data, None, template, device)
        else:
            clf = choose_classifier(model, template=template, device=device)
        race = {"confidence": confidence, "max_trials": max_trials}
        _set(clf, {name: value for name, value in race.items() if value is not None}, top_k)
        seen = images_trained_on(model)
        most = images if images is not None or max_loss is not None else MAX_RECORDED_IMAGES
        options: dict[str, Any] = {"n_images": most, "group": group, "seen": seen, "progress": not quiet}
        sample = read_sample(data, clf.classes_.tolist(), clf.image_shape_, side=clf._least_side, **options)
        notes = notes_on(sample, data)
        clf.set_params(verbose=not quiet)
        clf.calibrate(sample.images, sample.y, max_loss, 0.05 if delta is None else delta, groups=sample.groups)
        clf.set_params(verbose=False).save(out)
        _keep_digests(out, model, seen, sample)
    worth, bound = clf.worth_, clf.guarantee_
    if as_json:
        found = {"model": str(out), "n_images": len(sample.y), "notes": notes, "asks_tier_2": clf.fusion_.pays}
        found["worth"] = worth and asdict(worth) | {"sentence": str(worth)}
        found["guarantee"] = bound and asdict(bound)
        typer.echo(json.dumps(found))
        return
    sentences = [*(() if quiet else notes), *(str(one) for one in (worth, bound) if one is not None)]
    if max_loss is not None and bound is None:
        sentences.append("There is no bound: tier 2 is asked about none of the images that it would be tested on.")
    for sentence in sentences if quiet else [*sentences, f"Written: {out}"]:
        console().print(text(sentence), soft_wrap=True)


def _check(proposer: str | None, model: str | None, max_loss: float | None, delta: float | None) -> None:
    """Check options that would be refused, or have no effect, once all images are read."""
    from ..utils.bounds import check_number

    if proposer is not None and model is None:
        raise InvalidInputError("--proposer needs a model whose tier 2 it is put before: give --model NAME or DIR, too")
    if delta is not None and max_loss is None:
        raise InvalidInputError("--delta is the probability of losing more than --max-loss: give that, too")
    if max_loss is not None:
        check_number("--max-loss", max_loss, above=0, below=1)
        check_number("--delta", 0.05 if delta is None else delta, above=0, below=1)


def _set(clf: "HybridClassifier", race: dict[str, Any], top_k: int | None) -> None:
    """Change what was given of a race's settings, and the number of candidates; all else is the model's."""
    from ..reranking.allocation import Race

    if race:
        clf.set_params(allocation=replace(clf.allocation if isinstance(clf.allocation, Race) else Race(), **race))
    if top_k is not None:
        clf.set_params(top_k=top_k)


def _keep_digests(out: Path, model: str | None, seen: "TrainedOn", sample: "Sample") -> None:
    """Write down which images the model was trained and calibrated on, so that no figure is of these."""
    import numpy as np

    from ..data.holding_out import pack
    from ..pair_training.checkpoint import save_json
    from .classifier import tiers_trained_on

    (out / "training").mkdir()
    trained = tiers_trained_on(model).known
    fitted = {*seen.known, *sample.digests} - trained
    digests = {"trained_on": trained, "fitted_on": fitted}
    packed = {name: pack(np.array(sorted(known), dtype=np.uint32)) for name, known in digests.items()}
    save_json(out / "training" / "log.json", packed | {"hashed_shape": seen.shape})
