"""Effective robustness: the line, the distance from it, and the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import linregress
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from hybridclf import InvalidInputError, evaluate
from hybridclf.evaluating.robustness import BaselineResult, effective_robustness, fit_line, read_baselines
from hybridclf.evaluating.shift import AS_GIVEN
from hybridclf.evaluating.shifted import Shifted
from hybridclf.metrics import Interval, accuracy


def made(n: int = 8) -> list[BaselineResult]:
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.5, 0.95, n)
    shifted = expit(0.8 * logit(clean) - 1 + 0.1 * rng.standard_normal(n))
    return [BaselineResult(f"b{i}", *both) for i, both in enumerate(zip(clean.tolist(), shifted.tolist(), strict=True))]


def test_the_line_is_that_of_scipy() -> None:
    baselines, at = made(), np.array([0.3, 0.7, 0.9])
    found = linregress(logit([b.clean for b in baselines]), logit([b.shifted for b in baselines]))
    np.testing.assert_allclose(fit_line(baselines)(at), expit(found.intercept + found.slope * logit(at)))


def test_the_interval_covers() -> None:
    """Accuracies drawn on the line: the interval has zero in it about 19 times of 20."""
    line, rng, n = fit_line(made()), np.random.default_rng(1), 400
    true = 0.8, float(line(np.array(0.8)))
    covered = 0
    for _ in range(200):
        clean, shifted = (of(right, n) for right in rng.binomial(n, true))
        found = effective_robustness(line, clean, shifted, n)
        covered += found.low <= 0 <= found.high
    assert 180 <= covered <= 199
    above = effective_robustness(line, of(320, n), of(round(true[1] * n) + 40, n), n)
    assert above.value == pytest.approx(0.1, abs=0.5 / n) and above.low > 0
    assert np.isfinite(effective_robustness(line, of(n, n), of(0, n), n).low)


def of(right: int, n: int) -> Interval:
    return accuracy(np.arange(n) < right)


def test_the_interval_allows_for_groups() -> None:
    """Of 40 films of ten frames each, of which all are right or none, there are 40 answers and not 400."""
    line, films = fit_line(made()), np.arange(400) // 10
    clean, shifted = (accuracy(films < right, groups=films) for right in (32, 20))
    grouped = effective_robustness(line, clean, shifted, 400)
    alone = effective_robustness(line, of(320, 400), of(200, 400), 400)
    assert grouped.value == alone.value
    assert grouped.high - grouped.low == pytest.approx(np.sqrt(10) * (alone.high - alone.low), rel=0.1)


@pytest.mark.parametrize("baselines", [[], made(1), [BaselineResult("a", 0.5, 0.4), BaselineResult("b", 0.5, 0.3)]])
def test_a_line_takes_two(baselines: list[BaselineResult]) -> None:
    with pytest.raises(InvalidInputError, match="at least two baselines of different clean accuracy"):
        fit_line(baselines)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "known.csv"
    path.write_text("name,clean,shifted\nresnet50,75,62.5\nvit,0.5,80\n")
    assert read_baselines(path) == [BaselineResult("resnet50", 0.75, 0.625), BaselineResult("vit", 0.005, 0.8)]
    path.write_text("name,clean,shifted\nresnet50,0.761,0.633\n", encoding="utf-8-sig")  # as Excel saves it
    assert read_baselines(path) == [BaselineResult("resnet50", 0.761, 0.633)]
    for content in ("name,clean\na,1\n", "name,clean,shifted\na,many,2\n", "name,clean,shifted\na,50,0\n"):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match=r"known\.csv"):
            read_baselines(path)


def test_a_report(world: Any) -> None:
    rng = np.random.default_rng(3)
    noisy = world.images + 0.8 * rng.standard_normal(world.images.shape)
    rows = world.images.reshape(120, -1)
    few = NearestCentroid().fit(rows[:60, :4], world.labels[:60])
    many = LogisticRegression(C=0.01).fit(rows[:60], world.labels[:60])
    report = evaluate(
        world.clf,
        world.images,
        world.labels,
        trials=4,
        shifted=[Shifted("noisy", noisy, world.labels)],
        baselines={"few": _First(few), "many": many},
        known_baselines=[BaselineResult("known", 0.9, 0.5)],
    )
    by_name = {(row.source, row.method): row for row in report.shifts}
    baselines = [
        *(BaselineResult(n, *(by_name[s, n].accuracy.value for s in (AS_GIVEN, "noisy"))) for n in ("few", "many")),
        BaselineResult("known", 0.9, 0.5),
    ]
    line = fit_line(baselines)
    hybrid = report.verdict.difference.method
    before, after = by_name[AS_GIVEN, hybrid], by_name["noisy", hybrid]
    expected = effective_robustness(line, before.accuracy, after.accuracy, before.n)
    assert after.beyond_line is not None and after.beyond_line.value == pytest.approx(expected.value)
    assert by_name["noisy", "few"].beyond_line is None and before.beyond_line is None
    figure = report.figures[-1]
    assert figure.name == "robustness" and len(figure.rows) == 3 and figure.svg.startswith("<svg")
    assert "beyond" in str(report)


def test_intervals_of_baselines_and_of_shifted_images_allow_for_groups(world: Any) -> None:
    """A baseline that answers as tier 1 has its interval, as given and, beside it, in the main table."""
    X, y, films = world.images, world.labels, np.arange(120) // 2
    named = {"own": world.clf.proposer_, "again": world.clf.proposer_}
    twice = np.repeat(np.arange(120), 2)
    shifted = [Shifted("same", X, y, units=films), Shifted("alone", X, y), Shifted("copies", X[twice], y[twice])]
    report = evaluate(world.clf, X, y, trials=4, groups=films, shifted=shifted, baselines=named)
    by_name = {(row.source, row.method): row.accuracy for row in report.shifts}
    assert by_name[AS_GIVEN, "own"] == by_name[AS_GIVEN, "tier 1"]
    right = world.clf.proposer_.predict(X.reshape(120, -1)) == y
    expected = {
        "same": accuracy(right, groups=films),
        "alone": accuracy(right),
        "copies": accuracy(right[twice], groups=twice),
    }
    for source, interval in expected.items():
        assert by_name[source, "tier 1"] == by_name[source, "own"] == interval


def test_baselines_without_a_line(world: Any) -> None:
    """Refused before anything is asked, or, where only the answers tell, said in the report."""
    shifted = [Shifted("same", world.images, world.labels)]
    one = BaselineResult("one", 0.9, 0.5)
    with pytest.raises(InvalidInputError, match="at least two baselines, and one is given"):
        evaluate(world.clf, world.images, world.labels, trials=4, shifted=shifted, known_baselines=[one])
    with pytest.raises(InvalidInputError, match="give shifted images or corrupt as well"):
        evaluate(world.clf, world.images, world.labels, trials=4, known_baselines=[one, one])
    report = evaluate(world.clf, world.images, world.labels, trials=4, shifted=shifted, known_baselines=[one, one])
    assert "no line can be drawn" in report.about["notes"][-1]
    assert not any(row.beyond_line for row in report.shifts)


class _First:
    """A classifier of the first four numbers of a row."""

    def __init__(self, model: Any) -> None:
        self.model, self.classes_ = model, model.classes_

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self.model.predict_proba(X[:, :4])
