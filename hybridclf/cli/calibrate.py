"""`hybridclf calibrate`."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .shared import AsJson, Device, Quiet, console, running, text

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
    top_k: Annotated[int | None, typer.Option(min=1, help="Candidates that tier 1 hands over.")] = None,
    confidence: Annotated[float | None, typer.Option(help="Posterior at which a race ends; default: 0.95.")] = None,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Trials of a candidate at most.")] = None,
    max_loss: Annotated[
        float | None, typer.Option(help="Accuracy that stopping early may cost at most: 0.005 is half a point.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Probability that it costs more than --max-loss.")] = 0.05,
    images: Annotated[int | None, typer.Option(min=40, help="Images at most, every class in its proportion.")] = None,
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
        from ..pair_training.run import TrainingRun
        from ..reranking.allocation import Race
        from .classifier import behind, choose_classifier, images_trained_on

        TrainingRun.check_free(out.resolve(), data)
        if proposer is not None and model is not None:
            clf = behind(proposer, model, None, template, device)
        else:
            clf = choose_classifier(model, template=template, proposer=proposer, device=device)
        race = {"confidence": confidence, "max_trials": max_trials}
        changed: dict[str, Any] = {name: value for name, value in race.items() if value is not None}
        if changed:
            clf.set_params(
                allocation=replace(clf.allocation if isinstance(clf.allocation, Race) else Race(), **changed)
            )
        if top_k is not None:
            clf.set_params(top_k=top_k)
        known, seen = clf.classes_.tolist(), images_trained_on(model)
        options: dict[str, Any] = {"n_images": images, "group": group, "seen": seen, "progress": not quiet}
        sample = read_sample(data, known, clf.image_shape_, **options)
        notes = notes_on(sample, data)
        clf.set_params(verbose=not quiet)
        together = any(group is not None for group in sample.given_groups)
        clf.calibrate(sample.images, sample.y, max_loss, delta, groups=sample.groups if together else None)
        clf.set_params(verbose=False).save(out)
    worth, bound = clf.worth_, clf.guarantee_
    if as_json:
        found = {"model": str(out), "n_images": len(sample.y), "notes": notes, "asks_tier_2": clf.fusion_.pays}
        found["worth"] = worth and asdict(worth) | {"sentence": str(worth)}
        found["guarantee"] = bound and asdict(bound)
        typer.echo(json.dumps(found))
        return
    sentences = [*(() if quiet else notes), *(str(one) for one in (worth, bound) if one is not None)]
    for sentence in sentences if quiet else [*sentences, f"Written: {out}"]:
        console().print(text(sentence), soft_wrap=True)
