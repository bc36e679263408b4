"""`hybridclf tune`."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import InvalidInputError
from .shared import AsJson, Device, Quiet, console, running, text

if TYPE_CHECKING:
    from ..estimator import HybridClassifier
    from ..evaluating.sample import TrainedOn
    from ..tuning.split import Digests

DATA = "Folder with a subfolder of images per class, Parquet file, CSV of path and label, or JSONL of captions."

SIDE = 768
"""Shorter edge in pixels from which images are averaged down: a thousand photographs of a camera take 4 GiB so."""

PRINTED = ("validation", "n_steps", "before", "losses", "micro_batch_size")
"""Entries of the log that --json prints."""


def tune(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the model.", file_okay=False)],
    model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Embedded or saved model, or its tier 1 beside --denoiser.")
    ] = None,
    proposer: Annotated[str | None, typer.Option(metavar="SPEC", help="Tier 1 by name, beside --denoiser.")] = None,
    denoiser: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Tier 2 to tune, such as diffusers:FOLDER?precision=bf16.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Makes a prompt of a label, which goes where {} is.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Rank of the LoRA; default: 8, 0: none.")] = None,
    words: Annotated[
        bool | None, typer.Option("--words", help="Learn new embeddings of the labels' words or classes.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Time for the training; default: 30.")] = None,
    wrong_class_weight: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the loss's term that raises errors under wrong labels; default: 1."),
    ] = None,
    val: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the images held out; default: 0.2.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of what is held out together; default: group, if there is one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random choices; default: 0.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the tuning in OUT: repeat all options.")] = False,
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tune a pretrained diffusion model to your own labels or captions, for use with: hybridclf classify --model OUT

    A LoRA, by the denoising loss and a term that tells look-alikes apart. OUT refers to the model and has a few MB.
    """
    with running(quiet, lambda: _how_to_go_on(out)):
        from ..pair_training.out_folder import check_free
        from ..tuning.settings import TuneSettings
        from ..tuning.tune import tune_logged

        options = {"rank": rank, "words": words, "minutes": minutes, "wrong_class_weight": wrong_class_weight}
        options |= {"validation_fraction": val, "seed": seed}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        settings = TuneSettings(**given)  # and OUT, before models are loaded and images read
        if not resume:
            check_free(out.resolve(), data)
        tiers = {"model": model, "proposer": proposer, "denoiser": denoiser, "template": template, "device": device}
        read = _read_captions if data.lower().endswith(".jsonl") else _read_images
        clf, inputs, digests = read(data, tiers, group, progress=not quiet)
        inputs |= {"seen": digests.are_seen, "entries": digests.entries}
        tune_logged(clf, **inputs, out=out, settings=settings, resume=resume, progress=not quiet)
    log = json.loads((out / "training" / "log.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(json.dumps({name: log[name] for name in PRINTED} | {"model": str(out)}))
        return
    _print_result(log["validation"])
    if log["before"]["tuned"] <= min(entry.get("held_out", math.inf) for entry in log["losses"]["tuned"]):
        console().print("Nothing lowered the held-out loss: the denoiser is as it was. Give more images, or --minutes.")
    if not quiet:
        console().print(text(f"Written: {out}"), soft_wrap=True)


def _how_to_go_on(out: Path) -> str:
    if not (out / "training" / "log.json").exists():
        return "interrupted before the tuning began; nothing is kept"
    return "interrupted; go on with the same command and --resume"


def _classifier(tiers: dict[str, Any], classes: list[str] | None) -> "HybridClassifier":
    """Make the classifier: a model, two tiers by name, or a model's tier 1 and a denoiser by name."""
    from ..tuning.tune import with_denoiser
    from .classifier import choose_classifier

    model, denoiser, device = tiers["model"], tiers["denoiser"], tiers["device"]
    if model is None and tiers["proposer"] is None:
        raise InvalidInputError(
            "name what to tune: --model shapes, --proposer and --denoiser, or --denoiser and the model whose tier 1 "
            "is to propose: --model OUT of hybridclf train"
        )
    if model is not None and denoiser is not None:
        clf = choose_classifier(model, None, None, None, None, None, device)
        # how many candidates and trials, was chosen for the model's own denoiser
        changed: dict[str, Any] = {"allocation": None, "top_k": None}
        if tiers["template"] is not None:
            changed["prompts"] = tiers["template"]
        return with_denoiser(clf, denoiser, **changed)
    labels = classes if model is None else None
    return choose_classifier(model, labels, tiers["template"], tiers["proposer"], denoiser, None, device)


def _read_images(
    data: str, tiers: dict[str, Any], group: str | None, progress: bool
) -> "tuple[HybridClassifier, dict[str, Any], Digests]":
    """Read labelled images, as arguments of `tune`, with their digests."""
    import numpy as np

    from ..data.listing import list_labelled
    from ..evaluating.sample import notes_on, read_sample
    from ..tuning.split import Digests

    clf = _classifier(tiers, list_labelled(data, group).classes)
    seen = _trained_on(tiers["model"])
    # hashed, but not left out: they may be trained on
    options: dict[str, Any] = {"group": group, "side": SIDE, "seen": seen._replace(known=frozenset())}
    sample = read_sample(data, clf.classes_.tolist(), clf.image_shape_, **options, progress=progress)
    digests = Digests(np.array(sample.digests, dtype=np.uint32), seen)
    notes = notes_on(sample, data)
    if n_seen := int(digests.are_seen.sum()):
        notes.append(f"{n_seen:,} images in {data} are not held out: the model was trained on them.")
    for note in notes:
        typer.echo(note, err=True)
    return clf, {"X": sample.images, "y": sample.y, "captions": None, "groups": sample.groups}, digests


def _read_captions(
    data: str, tiers: dict[str, Any], group: str | None, progress: bool
) -> "tuple[HybridClassifier, dict[str, Any], Digests]":
    """Read images with captions, as arguments of `tune`, with their digests."""
    import numpy as np

    from ..data import holding_out
    from ..data.decoding import shrunk, stretched
    from ..data.image_files import try_image
    from ..evaluating.caption_lines import read_lines
    from ..tuning.split import Digests

    if group is not None:
        raise InvalidInputError(f"--group is for labelled images, and {data} holds captions: leave it out")
    lines, left_out = read_lines(data)
    notes = [str(one) for one in left_out]
    seen = _trained_on(tiers["model"])
    images, captions, groups, hashed = [], [], [], []
    for line in lines:
        # without a wrong caption there is nothing to tell apart
        for path, right in zip(line.images, line.captions if len(line.captions) > 1 else (), strict=False):
            image = try_image(path)
            if isinstance(image, InvalidInputError):
                notes.append(f"line {line.line}: {image}")
                continue
            images.append(shrunk(image.convert("RGB"), SIDE))
            hashed += holding_out.digests(np.asarray(stretched(image, seen.shape))[None]).tolist()
            captions.append([right, *(caption for caption in line.captions if caption != right)])
            groups.append(line.line)
    for note in notes:
        typer.echo(f"left out: {note}", err=True)
    if not images:
        raise InvalidInputError(f"{data} has no image with a right and a wrong caption; give lines of that form")
    clf = _classifier(tiers, captions[0][:2])  # tiers by name are loaded with labels, whichever they are
    inputs = {"X": images, "y": None, "captions": captions, "groups": groups}
    return clf, inputs, Digests(np.array(hashed, dtype=np.uint32), seen)


def _trained_on(model: str | None) -> "TrainedOn":
    """The images that a model's tiers were trained on; none for tiers by name."""
    from ..evaluating.sample import TrainedOn
    from .classifier import tiers_trained_on

    return TrainedOn(frozenset(), None) if model is None else tiers_trained_on(model)


def _print_result(found: dict[str, Any]) -> None:
    """Print accuracies on held-out images, and what tuning gained."""
    screen = console()
    table = Table(f"on {found['n']} held-out images", "accuracy, %", "95 % interval", box=SIMPLE_HEAD, pad_edge=False)
    for name, one in found["accuracy"].items():
        table.add_row(name, f"{100 * one['value']:.1f}", f"{100 * one['low']:.1f} to {100 * one['high']:.1f}")
    screen.print(table)
    for tier, gain in found["gain"].items():
        low, high = 100 * gain["low"], 100 * gain["high"]
        screen.print(
            f"Tuning adds {100 * gain['value']:.1f} points ({low:.1f} to {high:.1f}) to the {tier}'s accuracy."
        )
