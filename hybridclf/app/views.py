"""Views of a race: bars and facts as HTML, and the map over the picture."""

from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image, ImageColor

from ..demo.explanations import FOR_A, FOR_B
from ..demo.plots import REASONS
from ..demo.style import BLUE, VERMILLION
from ..ports import Label
from .races import STOPPED, Finish, Moment

__all__ = ["CSS", "finish_html", "message_html", "moment_html", "overlay"]

MOST_ROWS = 10
"""Classes in a list of bars."""

OPAQUE, STRONG = 0.9, 0.98
"""Opacity of the map where it is strongest, and the share of its pixels that are weaker than that."""

UNUSUAL = 0.05
"""P-value up to which a picture is said to be unusual."""

CSS = f"""
.gradio-container {{ max-width: 1100px !important; margin: 0 auto !important; }}
.hc {{ font-size: 16px; line-height: 1.4; }}
.hc h2 {{ font-size: 24px; margin: 0 0 4px; overflow-wrap: anywhere; }}
.hc p {{ margin: 0 0 12px; overflow-wrap: anywhere; }}
.hc ol {{ list-style: none; margin: 0 0 12px; padding: 0; }}
.hc li {{ display: grid; grid-template-columns: minmax(96px, 26%) 1fr 62px; gap: 8px; align-items: center;
  padding: 3px 0; }}
.hc .name {{ display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden;
  overflow-wrap: anywhere; text-align: right; font-size: 15px; line-height: 1.2; }}
.hc .track {{ position: relative; height: 20px; border-radius: 3px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }}
.hc .bar {{ position: absolute; inset: 0 auto 0 0; border-radius: 2px; background: #999; transition: width 0.25s; }}
.hc .mark {{ position: absolute; top: -3px; bottom: -3px; width: 3px; margin-left: -1px; background: {BLUE};
  outline: 1px solid var(--background-fill-primary); }}
.hc .share {{ font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }}
.hc .lead .bar {{ background: {VERMILLION}; }}
.hc .lead .name {{ font-weight: 600; }}
.hc .out .name {{ text-decoration: line-through; opacity: 0.6; }}
.hc .out .bar {{ opacity: 0.4; }}
.hc .key i {{ display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin: 0 5px -1px 0; }}
.hc .key span {{ margin-right: 14px; white-space: nowrap; }}
.hc dl {{ display: grid; grid-template-columns: 1fr 1fr; gap: 8px 18px; margin: 0 0 8px; }}
.hc dt {{ font-size: 13px; opacity: 0.75; }}
.hc dd {{ margin: 0; font-weight: 600; overflow-wrap: anywhere; }}
.hc .error {{ border-left: 4px solid {VERMILLION}; padding: 8px 12px; background: var(--background-fill-secondary); }}
.hc .sums .track {{ height: 16px; }}
.hc .sums .bar {{ inset: 0 auto; }}
.hc .sums .zero {{ position: absolute; left: 50%; top: -3px; bottom: -3px; width: 1px; background: currentColor; }}
"""


def message_html(message: str, error: bool = False) -> str:
    """A sentence in place of a race."""
    return f'<div class="hc"><p{" class=error role=alert" if error else ""}>{escape(message)}</p></div>'


def moment_html(moment: Moment) -> str:
    """Bars of the candidates at a moment of their race."""
    trials = f"{moment.evaluations} evaluations in {_trials(moment.trials)} so far"
    rows = range(min(len(moment.candidates), MOST_ROWS))
    return (
        f'<div class="hc" id="hc-race" data-trials="{moment.trials}"><h2>Racing …</h2><p>{trials}</p>'
        + _bars(moment.candidates, moment.prior, moment.posterior, moment.alive, rows)
        + _key("before the first trial", "now")
        + "</div>"
    )


def finish_html(finish: Finish) -> str:
    """Verdict, prior against posterior of the likeliest classes, cost and novelty."""
    first, before = finish.order[0], int(finish.prior.argmax())
    name, share = _text(finish.labels[first]), _percent(finish.posterior[first])
    heading = f"None of these; the nearest is {name}" if finish.rejected else f"{name}, {share}"
    said = f"{_text(finish.labels[before])}, {_percent(finish.prior[before])}"
    facts = {
        "tier 1 alone said": said,
        "evaluations of tier 2": f"{finish.result.evaluations} in {_trials(finish.result.rows)}",
        "the race ended": _reason(finish.result.stopped_by, finish.result.evaluations),
        "novelty": _novelty_words(finish.novelty),
    }
    listed = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in facts.items())
    everyone = np.ones(len(finish.labels), dtype=bool)
    return (
        f'<div class="hc" id="hc-finish"><h2>{heading}</h2><dl>{listed}</dl>'
        + _bars(finish.labels, finish.prior, finish.posterior, everyone, finish.order[:MOST_ROWS])
        + _key("tier 1 alone", "both tiers")
        + _reasons(finish)
        + "</div>"
    )


def _bars(
    labels: Sequence[Label], prior: np.ndarray, posterior: np.ndarray, alive: np.ndarray, rows: Sequence[int]
) -> str:
    """A bar of the posterior per class, with a mark at the prior; dropped classes are struck out."""
    leader = int(np.where(alive, posterior, -1.0).argmax())
    items = [
        f'<li class="{"lead" if i == leader else "" if alive[i] else "out"}"><span class="name" '
        f'title="{_text(labels[i])}">{_text(labels[i])}</span><span class="track"><span class="bar" '
        f'style="width:{100 * posterior[i]:.1f}%"></span><span class="mark" style="left:{100 * prior[i]:.1f}%">'
        f'</span></span><span class="share">{_percent(posterior[i])}</span></li>'
        for i in rows
    ]
    return f"<ol>{''.join(items)}</ol>"


def _key(prior: str, posterior: str) -> str:
    marks = ((BLUE, f"line: {prior}"), (VERMILLION, f"bar: {posterior}"))
    return f'<p class="key">{"".join(f"<span><i style=background:{c}></i>{words}</span>" for c, words in marks)}</p>'


def _reasons(finish: Finish) -> str:
    """Contributions of both tiers for the first class and against the second, as bars to the right and left."""
    if finish.explanation is None:
        return ""
    why = finish.explanation
    a, b = _text(why.a), _text(why.b)
    parts = {"tier 1": why.prior, "tier 2" if why.asked else "tier 2 (not asked)": why.evidence, "sum": why.log_odds}
    scale = max(map(abs, parts.values())) or 1.0
    items = [
        f'<li><span class="name">{name}</span><span class="track"><span class="bar" style="width:{width:.1f}%;'
        f'left:{50 if value > 0 else 50 - width:.1f}%;background:{FOR_A if value > 0 else FOR_B}"></span>'
        f'<span class="zero"></span></span><span class="share">{value:+.2f}</span></li>'
        for name, value in parts.items()
        for width in (50 * abs(value) / scale,)
    ]
    marks = ((FOR_A, f"for {a}"), (FOR_B, f"for {b}"))
    key = "".join(f"<span><i style=background:{colour}></i>{words}</span>" for colour, words in marks)
    return (
        f'<h2>Why {a} and not {b}</h2><p>Log-odds, a sum of both tiers.</p><ol class="sums">{"".join(items)}</ol>'
        f'<p class="key">{key}</p>'
    )


def overlay(picture: Image.Image, error_map: np.ndarray) -> Image.Image:
    """The map `[H, W]` over a picture of that size in grey: orange where it looks like a, purple where like b."""
    grey = np.repeat(np.asarray(picture.convert("L"), dtype=float)[..., None], 3, axis=2)
    strength = (error_map / (np.quantile(np.abs(error_map), STRONG) or 1.0)).clip(-1, 1)
    colours = np.array([ImageColor.getrgb(FOR_B), ImageColor.getrgb(FOR_A)], dtype=float)
    alpha = OPAQUE * np.abs(strength)[..., None]
    mixed = (1 - alpha) * grey + alpha * colours[(strength > 0).astype(int)]
    return Image.fromarray(mixed.round().astype(np.uint8))


def _reason(stopped_by: str, evaluations: int) -> str:
    if stopped_by == "confident" and not evaluations:
        return "before it began: tier 1 is sure enough"
    return {STOPPED: "you stopped it"}.get(stopped_by) or REASONS.get(stopped_by, stopped_by)


def _novelty_words(p: float | None) -> str:
    if p is None:
        return "no test: not calibrated for it"
    return f"p = {p:.2g}" + (", unlike what the model knows" if p <= UNUSUAL else ", usual")


def _trials(n: int) -> str:
    return "1 trial" if n == 1 else f"{n} trials"


def _text(label: Label) -> str:
    return escape(str(label))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
