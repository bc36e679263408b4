"""Pictures: what is in them, and that nothing in them is cut off."""

import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from hybridclf.demo import plots, style
from hybridclf.demo.report import Reliability, Row, Trace
from hybridclf.errors import MissingDependencyError
from hybridclf.metrics import Interval, equal_count_bins, expected_calibration_error


def make_row(method: str, value: float, evaluations: float) -> Row:
    return Row(
        method=method,
        accuracy=Interval(value, value - 0.01, min(value + 0.006, 1.0)),
        hybrid_gain=Interval(0.0, -0.01, 0.01),
        calibration_error=None,
        evaluations=evaluations,
        rows=evaluations / 10,
        images_per_second=100.0,
        no_evaluation=float(evaluations == 0),
    )


TABLE = (
    make_row("tier 1: logistic regression", 0.961, 0),
    make_row("RBF-SVC", 0.988, 0),
    make_row("tier 2: FixedTrials 256", 0.994, 2560),
    make_row("tier 2: Staged (5,1)/(50,250)", 0.993, 1500),
    make_row("hybrid: Race 0.99", 0.992, 8.3),
)


def make_reliability(method: str, seed: int) -> Reliability:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(8, 1, size=400)
    right = rng.random(400) < confidence
    return Reliability(method, expected_calibration_error(confidence, right), equal_count_bins(confidence, right))


TRACE = Trace(
    name="test image 1389",
    image=np.arange(64.0).reshape(8, 8) / 4,
    label=5,
    proposed=8,
    winner=5,
    stopped_by="confident",
    confidence=0.99,
    candidates=(8, 5, 3),
    evaluations=np.array([0, 3, 5, 7]),
    posterior=np.array([[0.6, 0.3, 0.1], [0.4, 0.5996, 0.0004], [0.1, 0.8996, 0.0004], [0.0, 1.0, 0.0]]),
    alive=np.array([[True] * 3, [True] * 3, [True, True, False], [True, True, False]]),
)

DRAWINGS: dict[str, Callable[[], Figure]] = {
    "cost": lambda: plots.cost_against_accuracy(TABLE, 899),
    "free methods only": lambda: plots.cost_against_accuracy(TABLE[:2], 899),
    "reliability": lambda: plots.reliability_diagram([make_reliability("tier 1", 0), make_reliability("hybrid", 1)]),
    "race": lambda: plots.race(TRACE),
    "no race": lambda: plots.race(
        replace(TRACE, evaluations=TRACE.evaluations[:1], posterior=TRACE.posterior[:1], alive=TRACE.alive[:1])
    ),
    "race without a threshold": lambda: plots.race(replace(TRACE, confidence=None, stopped_by="budget")),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_nothing_is_cut_off(name: str) -> None:
    figure = DRAWINGS[name]()
    file = BytesIO()
    figure.savefig(file, format="png")
    width, height = Image.open(file).size
    assert min(width, height) > 600
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible() and text.axes in figure.axes:
            box = text.get_window_extent()
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside or is_hidden_tick(text, figure), text.get_text()


def is_hidden_tick(text: Text, figure: Figure) -> bool:
    """Ticks outside an axis's limits keep their labels but are not drawn."""
    ticks = [t for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for t in axis.get_major_ticks()]
    return any(text in (t.label1, t.label2) for t in ticks)


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_cost_shows_every_method_at_its_cost() -> None:
    figure = plots.cost_against_accuracy(TABLE, 899)
    (axes,) = figure.axes
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"}
    assert {(row.evaluations, 100 * row.accuracy.value) for row in TABLE if row.evaluations} <= points
    assert len(points) == len(TABLE)
    assert axes.get_xscale() == "log"
    assert axes.get_xticklabels()[0].get_text() == "none"
    for row in TABLE:
        assert row.method.split(": ")[-1] in texts(figure)


def test_reliability_shows_every_bin() -> None:
    methods = [make_reliability("tier 1", 0), make_reliability("hybrid", 1)]
    figure = plots.reliability_diagram(methods)
    for method, axes in zip(methods, figure.axes, strict=True):
        points = [(x[0], y[0]) for x, y in (line.get_data() for line in axes.lines if line.get_marker() == "o")]
        expected = np.clip(np.c_[method.bins.confidence, method.bins.accuracy], *plots.ENDS)
        np.testing.assert_allclose(points, expected)
        assert "400 images in 10 bins of equal counts" in axes.get_title(loc="left")
    for method in methods:
        assert f"{method.calibration_error:.3f}" in texts(figure)


def test_a_method_has_one_colour_everywhere() -> None:
    cost, reliability = (
        plots.cost_against_accuracy(TABLE, 899),
        plots.reliability_diagram([make_reliability("tier 1", 0), make_reliability("hybrid", 1)]),
    )
    drawn = {line.get_color() for axes in reliability.axes for line in axes.lines if line.get_marker() == "o"}
    assert drawn == {style.BLUE, style.VERMILLION}
    of_methods = [line.get_color() for line in cost.axes[0].lines if line.get_marker() == "o"]
    assert set(of_methods) == {style.colour_of(row.method) for row in TABLE}
    assert style.colour_of("hybrid, 256 trials") == style.colour_of("Race with prior") == style.VERMILLION
    assert style.colour_of("something else") == style.INK


def test_race_follows_each_candidate_to_its_end() -> None:
    figure = plots.race(TRACE)
    picture, race = figure.axes
    np.testing.assert_array_equal(picture.images[0].get_array(), TRACE.image)
    lines = {line.get_label(): line.get_xdata().tolist() for line in race.lines if not line.get_label().startswith("_")}
    assert lines == {"5": [0, 3, 5, 7], "8": [0, 3, 5, 7], "3, dropped after 3": [0, 3]}
    assert race.get_title(loc="left") == "5 wins after 7 evaluations: sure enough"
    for line in ("true label: 5", "tier 1 said: 8", "hybrid says: 5", "Test image 1389"):
        assert line in texts(figure)


def test_pictures_leave_the_users_settings_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    for draw in DRAWINGS.values():
        draw()
    assert dict(matplotlib.rcParams) == before


def test_without_matplotlib_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    calls: list[Callable[[], Any]] = [style.require_matplotlib, *DRAWINGS.values()]
    for draw in calls:
        with pytest.raises(MissingDependencyError, match=r'type: pip install .*"?matplotlib'):
            draw()
