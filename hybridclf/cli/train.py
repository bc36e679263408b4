"""`hybridclf train`."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..errors import InvalidInputError
from .shared import Quiet, console, running, text


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
    group: Annotated[
        str | None, typer.Option(help="Parquet column of what is held out together; default: group, if there is one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Train a classifier on your own images, for use with: hybridclf classify --model OUT

    Interrupt it when you like: --resume goes on as if nothing had happened. Losses and a picture are in OUT/training.
    """
    with running(quiet, lambda: _how_to_go_on(data, out, device)):
        from ..pair_training.train_pair import train_pair

        _check_name(out)
        # None stands for "not given": the default, or the earlier setting of a resumed training
        settings = {
            "minutes": minutes,
            "wrong_class_weight": wrong_class_weight,
            "image_size": image_size,
            "validation_fraction": val,
            "start_from": start_from,
            "group": group,
        }
        clf = train_pair(data, out, resume=resume, device=device, progress=not quiet, **settings)
    log = json.loads((out / "training" / "log.json").read_text(encoding="utf-8"))
    if not quiet:
        _print_unreadable(log["unreadable"])
    _print_worth(log["validation"])
    if clf.worth_ is not None:
        console().print(text(str(clf.worth_)), soft_wrap=True)
    if not quiet:
        console().print(text(f"Written: {out}"), soft_wrap=True)


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


def _print_unreadable(files: list[str]) -> None:
    if files:
        console().print(f"Left out, as unreadable: {len(files)} files{', the first ones' if len(files) > 5 else ''}")
    for file in files[:5]:
        console().print(text(file), soft_wrap=True)


def _print_worth(found: dict[str, Any]) -> None:
    """Print the result on held-out images."""
    screen = console()
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
