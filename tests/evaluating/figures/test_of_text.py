"""Figures that ask a model of text again: prompt templates, and guidance."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf import HybridClassifier
from hybridclf.evaluating.figures import make_figure
from hybridclf.evaluating.figures.asking import Asking
from hybridclf.evaluating.figures.guidance import WEIGHTS
from hybridclf.evaluating.figures.prompts import RECORDED, TEMPLATES
from hybridclf.evaluating.recording import record
from hybridclf.evaluating.study import Study
from hybridclf.fitting.validation import class_numbers

MISREAD = "a photo of a {}."


@pytest.fixture(scope="module")
def study(gaussian_denoiser: type, make_world: Callable[..., Any]) -> Study:
    class OfText(gaussian_denoiser):  # type: ignore[misc]
        """Means by label, of which one template makes the opposite; no prompt has the mean of all."""

        template = "{}"

        def with_prompts(self, prompts: str) -> Any:
            other = OfText(self.means, self.s)
            other.template = prompts
            return other

        def condition(self, labels: Any) -> dict[str, torch.Tensor]:
            every = np.mean(list(self.means.values()), axis=0)
            factor = -1 if self.template == MISREAD else 1
            means = [every if label == "" else factor * self.means[label] for label in labels]
            return {"mean": torch.from_numpy(np.stack(means)).to(self.dtype)}

    world = make_world(n=90, kind=OfText)
    clf: HybridClassifier = world.clf
    items, y = clf._read(world.images), class_numbers(world.labels, clf.classes_)
    return Study(clf, items, record(clf, items, y, trials=8, top_k=6), np.arange(len(y)) % 3 == 0)


def test_prompts(study: Study) -> None:
    figure = make_figure("prompts", study)
    rows = {row["prompts"]: row for row in figure.rows}
    assert list(rows) == [RECORDED, *(f'"{t}"' for t in TEMPLATES), f"mean of these {len(TEMPLATES)}"]
    assert rows['"{}"']["accuracy"] == rows[RECORDED]["accuracy"]
    assert rows[f'"{MISREAD}"']["difference"][2] < 0


def test_guidance(study: Study) -> None:
    """Against predictions that are guided one by one."""
    figure = make_figure("guidance", study)
    rows = {row["guidance"]: row for row in figure.rows}
    assert list(rows) == [f"w = {w:g}" for w in WEIGHTS]
    ask, denoiser = Asking(study), study.clf.denoiser_

    def guided(w: float) -> Any:
        def predict(x_t: Any, t: Any, row: Any, condition: Any) -> Any:
            nothing = {"mean": denoiser.condition([""])["mean"].expand_as(condition["mean"])}
            return (1 + w) * denoiser.predict(x_t, t, row, condition) - w * denoiser.predict(x_t, t, row, nothing)

        names = ("shape", "dtype", "device", "cost_unit", "encode", "condition", "noise_levels")
        return SimpleNamespace(predict=predict, **{name: getattr(denoiser, name) for name in names})

    for w in (-0.5, 2):
        expected = ask.right(ask.errors(denoiser=guided(w))[..., 0])
        assert rows[f"w = {w:g}"]["accuracy"][0] == pytest.approx(expected.mean())
