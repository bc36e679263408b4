"""`hybridclf train`."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import InvalidInputError
from .shared import AsJson, Quiet, console, running, text

LISTED = 5
"""Most files, classes and confusions on the screen; all of them are in the log."""

OVERLAP = (
    "Held-out images that overlap images trained on, so that the figures flatter; list the files in a CSV of path, "
    "label and group, the picture that each is from"
)
"""Title of crops of one picture that are on both sides."""

FIGURES = ("validation", "worth", "fine_tuning", "seconds", "plan")
SENTENCES = ("tier_1", "advice", "conflicts", "overlaps", "unreadable")
"""Entries of the log that --json prints."""


def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Folder with a subfolder of images per class, Parquet file, CSV of path and label, "
            "datasets:NAME?split=train, or digits.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the model.", file_okay=False)],
    minutes: Annotated[float | None, typer.Option(min=0, help="Time for everything; default: 30.")] = None,
    proposer: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Tier 1: timm:NAME, timm:local-dir:FOLDER or open_clip:NAME (pretrained), sklearn:NAME, timm:convnet "
            "(new), or auto: pretrained, unless a short trial finds a new one clearly better.",
        ),
    ] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Pair whose weights to start from, such as cifar10.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT.")] = False,
    wrong_class_weight: Annotated[
        float | None,
        typer.Option(min=0, help="Weight of the loss's term that raises errors under wrong classes; default: 1."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Side of tier 2's images, stretched to it: 8 or a multiple of 16; default: 32."),
    ] = None,
    val: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the images held out; default: 0.1.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of what is held out together; default: group, if there is one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random choices; default: 0.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier on your own images, for use with: hybridclf classify --model OUT

    Interrupt it when you like: --resume goes on as if nothing had happened. Losses and a picture are in OUT/training.
    """
    with running(quiet, lambda: _how_to_go_on(data, out, device)):
        if not quiet:
            typer.echo("Preparing: loading libraries, choosing tier 1, reading images and timing steps.", err=True)
        from ..pair_training.train_pair import train_pair

        _check_name(out)
        # None stands for "not given": the default, or the earlier setting of a resumed training
        settings = {
            "minutes": minutes,
            "proposer": proposer,
            "wrong_class_weight": wrong_class_weight,
            "image_size": image_size,
            "validation_fraction": val,
            "start_from": start_from,
            "group": group,
            "seed": seed,
        }
        clf = train_pair(data, out, resume=resume, device=device, progress=not quiet, **settings)
    log = json.loads((out / "training" / "log.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(
            json.dumps({name: log[name] for name in (*FIGURES, *SENTENCES) if name in log} | {"model": str(out)})
        )
        return
    if not quiet:
        _print_files("Left out, as unreadable", log["unreadable"])
        _print_files("Nearly the same picture under two labels; look whether one is wrong", log["conflicts"])
        _print_files(OVERLAP, log.get("overlaps", []))
    _print_result(log["validation"])
    # the table is of other images
    worth = clf.worth_ and f"On the images for the fusion, which the training was stopped by, too: {clf.worth_}"
    tuned = log.get("fine_tuning", {}).get("sentence")
    for sentence in filter(None, (tuned, worth, log["advice"])):
        console().print(text(sentence), soft_wrap=True)
    if not quiet:
        spent = sum(log["seconds"].values()) / 60
        console().print(text(f"{spent:.1f} minutes. Written: {out}"), soft_wrap=True)


def _check_name(out: Path) -> None:
    """Refuse a name that is no UTF-8, from which safetensors cannot read the weights in the end."""
    try:
        str(out.resolve()).encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{out} has bytes in its name that are no UTF-8; choose another OUT") from error


def _how_to_go_on(data: str, out: Path, device: str) -> str:
    if not (out / "training" / "log.json").exists():
        return "interrupted before the training began; nothing is kept"
    command = ["hybridclf", "train", data, str(out), "--resume", *(["--device", device] if device != "auto" else [])]
    return f"interrupted; go on with: {shlex.join(command)}"


def _print_files(title: str, files: list[str]) -> None:
    """Print how many files there are of a kind, and the first ones."""
    if files:
        console().print(f"{title}: {len(files)}{', the first ones' if len(files) > LISTED else ''}")
    for file in files[:LISTED]:
        console().print(text(file), soft_wrap=True)


def _print_result(found: dict[str, Any]) -> None:
    """Print the result on held-out images."""
    screen, used = console(), found["held_out"]
    screen.print(
        f"{used['trained_on']} images to train on, {used['all']} held out: {used['fusion']} for the fusion, "
        f"{used['measured']} for the figures below"
    )
    if not found["n"]:
        screen.print("No held-out images were left to measure the result on; hold out more with --val.")
        return
    asked = found["evaluations"] > 0
    table = Table(f"on {found['n']} held-out images", "accuracy, %", "95 % interval", box=SIMPLE_HEAD, pad_edge=False)
    names = {
        "tier_1": "tier 1 alone",
        "tier_2": f"tier 2 alone, {found['tier_2_trials']} trials",
        "hybrid": f"hybrid, {found['evaluations']:.1f} evaluations per image" if asked else "hybrid, tier 2 not asked",
    }
    for key, name in names.items():
        table.add_row(name, f"{100 * found[key]:.1f}", _interval(found["intervals"][key]))
    screen.print(table)
    if used["measured_classes"] < used["classes"]:
        screen.print(
            f"These images are of {used['measured_classes']} of {used['classes']} classes; the others may be harder. A "
            "class is measured from two held-out images of different groups on: add images, or give a larger --val."
        )
    _print_weakest(found["classes"])
    confused = [f"{each['class']} as {each['answer']} ({each['n']})" for each in found["confusions"][:LISTED]]
    if confused:
        screen.print(text(f"Most often confused: {', '.join(confused)}"), soft_wrap=True)


def _print_weakest(classes: dict[str, dict[str, Any]]) -> None:
    """Print the hybrid's accuracy for the classes where it is lowest."""
    weakest = sorted(classes.items(), key=lambda item: item[1]["hybrid"])[:LISTED]
    title = "class" if len(classes) <= LISTED else f"the {LISTED} weakest of {len(classes)} classes"
    table = Table(title, "images", "hybrid, %", "95 % interval", box=SIMPLE_HEAD, pad_edge=False)
    for name, of in weakest:
        table.add_row(text(name), str(of["n"]), f"{100 * of['hybrid']:.1f}", _interval(of["interval"]))
    console().print(table)


def _interval(interval: dict[str, float]) -> str:
    return f"{100 * interval['low']:.1f} to {100 * interval['high']:.1f}"
