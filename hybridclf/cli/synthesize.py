"""`hybridclf synthesize`."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InvalidInputError
from .shared import Quiet, running


def synthesize(
    out: Annotated[Path, typer.Argument(metavar="OUT", file_okay=False, help="Folder; gets a subfolder per class.")],
    denoiser: Annotated[str, typer.Option(metavar="SPEC", help="Pipeline, such as diffusers:FOLDER.")],
    labels: Annotated[str, typer.Option(metavar="A,B,…", help="Classes to generate images of.")],
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 100,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Makes a prompt of a label, which goes where {} is.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images generated at a time.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Decides the images.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Quiet = False,
) -> None:
    """Generate a training set with a diffusion model's own sampler, for use with: hybridclf train OUT

    It is the papers' baseline: does the model know more as a classifier, or as a source of training images? Interrupt
    it when you like: the same command goes on.
    """
    with running(quiet, lambda: "interrupted; images are kept: repeat the command to go on"):
        from .. import plugins
        from ..data.synthesis import synthesize as synthesize_into

        names = [name.strip() for name in labels.split(",")]
        model = plugins.offer("denoiser", denoiser, {"prompts": template, "device": device})
        if not hasattr(model, "generate"):
            raise InvalidInputError(f"{denoiser!r} cannot generate images; give a diffusers pipeline, diffusers:FOLDER")
        made_by = {"denoiser": denoiser, "template": template}
        n = synthesize_into(
            model.generate,
            names,
            per_class,
            out,
            made_by=made_by,
            seed=seed,
            batch_size=batch_size,
            progress=not quiet,
        )
        if not quiet:
            typer.echo(f"{n:,} images were generated in {out}; train on them: hybridclf train {out} MODEL")
