"""Report on all rows: accuracies, the hybrid against the better of its tiers and against others, costs, one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from figures.common import colour_of, styled
from matplotlib.figure import Figure
from significance import better_than, significant

from hybridclf.metrics import Interval, accuracy, accuracy_difference, expected_calibration_error

from .sets import Questions
from .training import METHODS

__all__ = ["cost_table", "picture", "summary", "table", "verdict"]

DRAWS = 200
"""Draws of the answers of a calibrated method."""

AGAINST = ("tier 1", "tier 2", "rival", "features", "features, hybrid")


def summary(answers: Mapping[str, np.ndarray], asked: Questions) -> dict[str, Any]:
    """Summarise the answers to one row.

    Returns
    -------
    dict
        "n"; "methods", with accuracy, its interval, calibration error, what that is by chance, and worst part of each;
        "hybrid minus", by method, with a 95 % interval; "harm p" and "gain p", one-sided against the better tier (exact
        McNemar); with features, "features, hybrid minus" them, "features harm p" and "features gain p" of the pair
        behind them against these alone.
    """
    right = {name: answers[name].argmax(axis=1) == asked.y for name in METHODS if name in answers}
    better = max(("tier 1", "tier 2"), key=lambda name: right[name].mean())
    return {
        "n": len(asked.y),
        "methods": {name: _method(answers[name], hits, asked.parts) for name, hits in right.items()},
        "evaluations": float(answers["evaluations"].mean()),
        "better tier": better,
        "hybrid minus": {
            name: _listed(accuracy_difference(right["hybrid"], right[name])) for name in AGAINST if name in right
        },
        "harm p": better_than(right[better], right["hybrid"]),
        "gain p": better_than(right["hybrid"], right[better]),
    } | _behind_features(right)


def _behind_features(right: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Difference and one-sided p-values of the pair behind features from their own classifier; empty without one."""
    if "features" not in right:
        return {}
    alone, both = right["features"], right["features, hybrid"]
    return {
        "features, hybrid minus": {"features": _listed(accuracy_difference(both, alone))},
        "features harm p": better_than(alone, both),
        "features gain p": better_than(both, alone),
    }


def _method(posterior: np.ndarray, right: np.ndarray, parts: np.ndarray | None) -> dict[str, Any]:
    confidence = posterior.max(axis=1)
    found = {
        "accuracy": _listed(accuracy(right)),
        "ece": expected_calibration_error(confidence, right),
        "ece by chance": _ece_by_chance(confidence),
    }
    if parts is not None:
        found["worst part"] = min(float(right[parts == part].mean()) for part in np.unique(parts))
    return found


def _ece_by_chance(confidence: np.ndarray) -> list[float]:
    """Mean and 95 % quantile of the calibration error of a method that is right exactly as often as it is sure."""
    rng = np.random.default_rng(0)
    errors = [expected_calibration_error(confidence, rng.random(len(confidence)) < confidence) for _ in range(DRAWS)]
    return [float(np.mean(errors)), float(np.quantile(errors, 0.95))]


def _listed(interval: Interval) -> list[float]:
    return [interval.value, interval.low, interval.high]


def verdict(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Rows with significant gain or harm, by Holm's method over all rows, and clean rows that are badly calibrated.

    With few images a calibrated method has an error of more than 0.02 by chance; "ece above chance" leaves these out.
    """
    p = {
        key: {name: row[f"{key} p"] for name, row in rows.items() if f"{key} p" in row}
        for key in ("gain", "harm", "features gain", "features harm")
    }
    clean = {name: row["methods"]["hybrid"] for name, row in rows.items() if row["kind"] == "clean"}
    above = [name for name, hybrid in clean.items() if hybrid["ece"] > 0.02]
    return {
        "rows": len(rows),
        **{key: significant(values) for key, values in p.items() if values},
        "ece above 0.02": above,
        "ece above chance": [name for name in above if clean[name]["ece"] > clean[name]["ece by chance"][1]],
    }


def table(rows: Mapping[str, Any]) -> str:
    """The rows in Markdown, accuracies in per cent."""
    used = [name for name in METHODS if any(name in row["methods"] for row in rows.values())]
    lines = [f"| row | images | {' | '.join(used)} | hybrid minus the better tier | evaluations | ECE (by chance) |"]
    lines.append("|---" * (len(used) + 5) + "|")
    for name, row in rows.items():
        shown = [row["methods"].get(method) for method in used]
        cells = ["" if one is None else f"{100 * one['accuracy'][0]:.1f}" for one in shown]
        difference = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * v for v in row["hybrid minus"][row["better tier"]]))
        hybrid = row["methods"]["hybrid"]
        end = f"{difference} | {row['evaluations']:.1f} | {hybrid['ece']:.3f} ({hybrid['ece by chance'][0]:.3f})"
        lines.append(f"| {name} | {row['n']} | {' | '.join(cells)} | {end} |")
    return "\n".join(lines)


def cost_table(costs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The costs in Markdown, by training set and method."""
    lines = ["| trained on | method | minutes | training, TFLOP | an answer, MFLOP |", "|---" * 5 + "|"]
    for training, methods in costs.items():
        for name, cost in methods.items():
            teras, megas = cost["training flops"] / 1e12, cost["flops"] / 1e6
            lines.append(f"| {training} | {name} | {cost['minutes']:.1f} | {teras:.1f} | {megas:.1f} |")
    return "\n".join(lines)


@styled
def picture(rows: Mapping[str, Any]) -> Figure:
    """Accuracy of every method by row, with 95 % intervals."""
    figure = Figure(figsize=(9, 1.6 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = list(rows)
    used = [name for name in METHODS if any(name in row["methods"] for row in rows.values())]
    for j, method in enumerate(used):
        found = {i: row["methods"][method] for i, row in enumerate(rows.values()) if method in row["methods"]}
        shown = [(i + (j - (len(used) - 1) / 2) * 0.12, one["accuracy"]) for i, one in found.items()]
        _points(axes, shown, method)
    axes.set(yticks=range(len(names)), yticklabels=names, xlabel="accuracy, % (95 % interval)")
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=len(used), fontsize=8)
    judged = {key: len(value) for key, value in verdict(rows).items() if isinstance(value, list)}
    title = f"The hybrid is above both its tiers in {judged['gain']} of {len(rows)} rows, below in {judged['harm']}"
    if "features gain" in judged:
        title += f"\nBehind features it is above these in {judged['features gain']}, below in {judged['features harm']}"
    axes.set_title(title, fontsize=10)
    return figure


def _points(axes: Any, shown: Sequence[tuple[float, list[float]]], method: str) -> None:
    y, (value, low, high) = [place for place, _ in shown], 100 * np.array([interval for _, interval in shown]).T
    errors = [value - low, high - value]
    marker = "s" if method.startswith("features") else "o"  # both hybrids have one colour
    axes.errorbar(value, y, xerr=errors, fmt=marker, markersize=4, lw=1, color=colour_of(method), label=method)
