"""`hybridclf evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import InvalidInputError
from .shared import AsJson, Device, Quiet, console, running, text

if TYPE_CHECKING:
    from ..estimator import HybridClassifier
    from ..evaluating.caption_report import CaptionReport
    from ..evaluating.report import Report
    from ..evaluating.robustness import BaselineResult
    from ..evaluating.sample import TrainedOn

DATA = (
    "Folder with a subfolder of images per class, Parquet file, CSV of path and label, datasets:NAME?split=test, "
    "digits, or JSONL of captions."
)


def evaluate(
    data: Annotated[str, typer.Argument(metavar="DATA", help=DATA)],
    model: Annotated[
        str | None, typer.Option(metavar="NAME|DIR", help="Embedded or saved model; default: cifar10, photographs.")
    ] = None,
    proposer: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Tier 1 by name, before the model's tier 2 or --denoiser.")
    ] = None,
    denoiser: Annotated[str | None, typer.Option(metavar="SPEC", help="Tier 2 by name, beside --proposer.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Labels to tell apart; DATA with images of other classes is refused. Default: the model's, or DATA's.",
        ),
    ] = None,
    template: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Makes a prompt of a label, which goes where {} is.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Images to choose settings on; default: 30 % of DATA; of captions, none."),
    ] = None,
    shifted: Annotated[
        list[str] | None, typer.Option(metavar="DATA", help="Other images of the same classes; may be repeated.")
    ] = None,
    corrupt: Annotated[
        bool, typer.Option("--corrupt", help="Ask about corrupted copies too, by severity (needs kornia).")
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC|CSV", help="Classifier, or CSV of name, clean, shifted accuracy (repeatable)."),
    ] = None,
    images: Annotated[int | None, typer.Option(min=40, help="Images at most, every class in its proportion.")] = None,
    trials: Annotated[int | None, typer.Option(min=2, help="Trials to record; default: 64, of captions 32.")] = None,
    top_k: Annotated[int | None, typer.Option(min=2, help="Candidates to record; default: all, 20 at most.")] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that stopping early may cost at most: 0.005 is half a point."),
    ] = None,
    delta: Annotated[float, typer.Option(min=0, max=1, help="Probability that it costs more than --max-loss.")] = 0.05,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that names images that belong together, such as the frames of one film: all of them are "
            "calibrated on, or all tested on. Default: the column group, if there is one, but for --shifted.",
        ),
    ] = None,
    figure: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Figure of the papers to add (repeatable), or all of them.")
    ] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the recording and the report.")] = Path(
        "evaluation"
    ),
    device: Device = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Find out whether re-ranking pays on your own labelled images, at what cost, and with which settings.

    Both tiers are asked once; interrupt it when you like, and repeat the command to go on. OUT gets report.html.
    Of a .jsonl file of images and captions: which caption belongs to which image? OUT then gets captions.html.
    """
    with running(quiet, lambda: "interrupted; what is recorded is kept: repeat the command to go on"):
        tiers = {"model": model, "proposer": proposer, "denoiser": denoiser, "device": device}
        if data.lower().endswith(".jsonl"):
            others: dict[str, Any] = {"labels": labels, "template": template, "top-k": top_k, "group": group}
            others |= {"shifted": shifted or None, "corrupt": corrupt or None, "figure": figure or None}
            others |= {"baseline": baseline or None, "max-loss": max_loss}
            used: dict[str, Any] = {"calibrate": calibrate, "images": images, "trials": trials}
            return _match_captions(data, tiers, others, out, quiet, as_json, **used)

        from ..demo.style import require_matplotlib
        from ..evaluating import evaluate as evaluate_classifier
        from ..evaluating.figures import figure_names
        from ..evaluating.page import require_jinja2
        from ..utils.bounds import check_number
        from .classifier import images_trained_on

        require_matplotlib(), require_jinja2(), figure_names(figure or ())  # before the minutes are spent
        if max_loss is not None:
            check_number("--max-loss", max_loss, above=0, below=1)
            check_number("--delta", delta, above=0, below=1)
        names = None if labels is None else [name.strip() for name in labels.split(",")]
        clf = _classifier(data, group, names, template, tiers)
        named, known = _baselines(baseline or (), clf, template, device)
        seen = None if denoiser is not None else images_trained_on(model)
        inputs = _read(clf, data, calibrate, shifted or (), images, group, seen, progress=not quiet)
        if trials is not None:
            inputs["trials"] = trials
        report = evaluate_classifier(
            clf,
            **inputs,
            corrupt=corrupt,
            baselines=named,
            known_baselines=known,
            top_k=top_k,
            max_loss=max_loss,
            delta=delta,
            folder=out / "recording",
            figures=figure or (),
            progress=not quiet,
        )
        _show(report, report.write(out), quiet, as_json)


def _match_captions(
    data: str, tiers: dict[str, Any], others: dict[str, Any], out: Path, quiet: bool, as_json: bool, **options: Any
) -> None:
    """Report on a file of captions, for which the other options have no meaning."""
    from .captions import match_captions

    matched = match_captions(data, tiers, others, folder=out / "recording", progress=not quiet, **options)
    _show(matched, matched.write(out), quiet, as_json)


def _classifier(
    data: str, group: str | None, labels: list[str] | None, template: str | None, tiers: dict[str, Any]
) -> "HybridClassifier":
    """Make the classifier: a model, a model's tier 2 behind a tier 1 by name, or two tiers by name."""
    from ..data.listing import list_labelled
    from .classifier import behind, choose_classifier

    model, proposer, denoiser, device = (tiers[name] for name in ("model", "proposer", "denoiser", "device"))
    if proposer is not None and denoiser is None and model is not None:
        return behind(proposer, model, data, labels, template, device)
    if labels is None and denoiser is not None and model is None:
        labels = list_labelled(data, group).classes
    return choose_classifier(model, labels, template, proposer, denoiser, None, device)


def _baselines(
    given: Sequence[str], clf: "HybridClassifier", template: str | None, device: str | None
) -> tuple[dict[str, Any], "list[BaselineResult]"]:
    """Proposers by their spec strings, which know the classifier's labels; and what CSV files say of others."""
    from ..evaluating.robustness import read_baselines
    from ..ports import TextModel
    from ..proposer import column_of, resolve_proposer

    proposers, known = {}, []
    for one in given:
        if one.lower().endswith(".csv"):
            known += read_baselines(one)
            continue
        proposer: Any = resolve_proposer(one, {"prompts": template, "device": device})
        if isinstance(proposer, TextModel):
            proposer = cast(Any, proposer).fit(None, clf.classes_.tolist())
        if not hasattr(proposer, "classes_"):
            raise InvalidInputError(
                f"{one!r} is not fitted; give a network with weights (timm:…, open_clip:…), or a CSV"
            )
        column_of(proposer, clf.classes_)  # refuses labels that it does not know before minutes are spent
        proposers[one] = proposer
    return proposers, known


def _read(
    clf: "HybridClassifier",
    data: str,
    calibrate: str | None,
    shifted: Sequence[str],
    n_images: int | None,
    group: str | None,
    seen: "TrainedOn | None",
    progress: bool,
) -> dict[str, Any]:
    """Read all images, as arguments of `evaluating.evaluate`, but those that the model was trained or calibrated on."""
    from ..evaluating.sample import notes_on, read_sample
    from ..evaluating.shifted import read_shifted

    known, shape, side = clf.classes_.tolist(), clf.image_shape_, clf._least_side
    options: dict[str, Any] = {"n_images": n_images, "group": group, "seen": seen, "progress": progress}
    samples = [
        (source, read_sample(source, known, shape, side=side, **options))
        for source in (data, calibrate)
        if source is not None
    ]
    sample = samples[0][1]
    distributions = [read_shifted(source, clf, **options) for source in shifted]
    notes = [note for source, found in samples for note in notes_on(found, source)]
    notes += [note for distribution in distributions for note in distribution.notes]
    inputs: dict[str, Any] = {}
    if calibrate is not None:
        other = samples[1][1]
        inputs["calibrate"] = (other.images, other.y, other.given_groups)
    return inputs | {
        "X": sample.images,
        "y": sample.y,
        "groups": sample.given_groups,
        "shifted": distributions,
        "notes": notes,
    }


def _show(report: "Report | CaptionReport", files: list[Path], quiet: bool, as_json: bool) -> None:
    """Print a report, and where its files are."""
    if as_json:
        typer.echo(report.to_json())
        return
    screen = console()
    screen.print(report)
    if not quiet:
        for file in files:
            screen.print(text(f"Written: {file}"), soft_wrap=True)
