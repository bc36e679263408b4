"""`hybridclf train`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .shared import console, one_line_errors, text


def train(
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Folder with a subfolder of images per class, Parquet file, or digits."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the model.", file_okay=False)],
    minutes: Annotated[float | None, typer.Option(help="Time to train for; default: 30.")] = None,
    start_from: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Pair for the same classes to go on from.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT.")] = False,
    wrong_class_weight: Annotated[
        float | None, typer.Option(help="Of the denoiser's wrong-class term; default: 1, 0: none.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side that images are stretched to: 8 or a multiple of 16; default: 32.")
    ] = None,
    val: Annotated[float | None, typer.Option(help="Share of the images held out; default: 0.1.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a classifier on your own images, for use with: hybridclf classify --model OUT

    Interrupt it when you like: --resume goes on as if nothing had happened. Losses and a picture are in OUT/training.
    """
    with one_line_errors():
        from ..pair import train_pair

        settings = {
            "minutes": minutes,
            "wrong_class_weight": wrong_class_weight,
            "image_size": image_size,
            "validation_fraction": val,
            "start_from": start_from,
        }
        train_pair(data, out, resume=resume, device=device, progress=True, **settings)
    _print_training(json.loads((out / "training" / "log.json").read_text(encoding="utf-8")))
    console().print(f"Written: {out}", highlight=False, markup=False, soft_wrap=True)


def _print_training(log: dict[str, Any]) -> None:
    """What was left out, and what the result is worth on held-out images."""
    screen, found = console(), log["validation"]
    if log["unreadable"]:
        listed = "; ".join(log["unreadable"][:5])
        screen.print(text(f"Left out, as unreadable: {len(log['unreadable'])} files ({listed})"))
    if not found["n"]:
        screen.print("No held-out images were left to measure the result on; hold out more with --val.")
        return
    table = Table(f"on {found['n']} held-out images", "accuracy, %", box=SIMPLE_HEAD, pad_edge=False)
    names = {
        "tier_1": "tier 1 alone",
        "tier_2": f"tier 2 alone, {found['tier_2_trials']} trials",
        "hybrid": f"hybrid, {found['evaluations']:.1f} evaluations per image",
    }
    for key, name in names.items():
        table.add_row(name, f"{100 * found[key]:.1f}")
    screen.print(table)
