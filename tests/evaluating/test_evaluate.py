"""From images to a report: what is in it, and what is refused."""

import copy
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import hybridclf
from hybridclf import HybridClassifier, Race
from hybridclf.data.arrays import Items
from hybridclf.errors import InvalidInputError, InvalidTypeError
from hybridclf.evaluating import Report, evaluate
from hybridclf.evaluating.evaluate import _joined
from hybridclf.evaluating.study import Study
from hybridclf.fitting.drift import looks_of
from hybridclf.metrics import accuracy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def report(world: Any, folder: Path) -> Report:
    notes = ["A <note>."]
    return hybridclf.evaluate(world.clf, world.images, world.labels, trials=8, folder=folder / "recording", notes=notes)


def test_every_method_is_in_the_report(report: Report) -> None:
    names = [score.method for score in report.methods]
    assert names[0] == "tier 1" and names[1:4] == [
        "tier 2: 8 trials",
        "tier 2: Staged (5, 1), (1, 8)",
        "tier 2: PairedTTest 0.002, 4 to 8 trials",
    ]
    assert names[4:] == ["hybrid, as it is", "hybrid, calibrated here"]
    assert [cost.method for cost in report.costs] == names and report.costs[0].time == 1
    assert report.methods[1].rows == 8 and report.methods[1].evaluations == 48
    assert all(cost.seconds > 0 and cost.n_images >= 2 for cost in report.costs)
    (first, *others) = report.differences
    assert (first.method, first.baseline) == (report.verdict.difference.method, "tier 1")
    assert len(others) == 2 * 4 and report.verdict.difference == first
    assert sum(change.fixed for change in report.classes) == first.fixed
    assert report.about["test_images"] + report.about["calibration_images"] == 120


def test_the_verdict_agrees_with_the_test_images(report: Report) -> None:
    gain = report.differences[0].accuracy
    assert report.verdict.pays is (True if gain.low > 0 else None) or not report.verdict.pays


def test_as_json(report: Report) -> None:
    found = json.loads(report.to_json())
    assert found == report.to_dict()
    assert found.keys() == {
        "verdict",
        "recommended",
        "methods",
        "differences",
        "classes",
        "figures",
        "about",
        "shifts",
        "guarantee",
    }
    assert found["verdict"]["sentence"] == str(report.verdict)
    row = found["methods"][0]
    assert {"method", "accuracy", "mean_per_class", "top_5", "log_loss", "brier", "calibration_error"} < row.keys()
    assert {"evaluations", "rows", "time", "flops", "reliability"} < row.keys()
    assert [figure["name"] for figure in found["figures"]] == ["frontier", "reliability"]
    assert found["recommended"]["line"] == report.recommended.line


def test_as_text(report: Report) -> None:
    file = io.StringIO()
    Console(file=file, width=200).print(report)
    for shown in (file.getvalue(), str(report)):
        assert shown.startswith(str(report.verdict)[:40]) and "hybrid, calibrated here" in shown
        assert "A <note>." in shown


def test_a_second_call_asks_neither_tier_again(world: Any, report: Report, folder: Path) -> None:
    chunks = {path: path.stat().st_mtime_ns for path in (folder / "recording").iterdir()}
    again = evaluate(world.clf, world.images, world.labels, trials=8, folder=folder / "recording")
    assert {path: path.stat().st_mtime_ns for path in (folder / "recording").iterdir()} == chunks
    assert [score.log_loss for score in again.methods] == [score.log_loss for score in report.methods]


def test_the_classifier_is_not_changed(world: Any, report: Report) -> None:
    assert world.clf.verbose is False and world.clf.allocation == hybridclf.Race(0.97, 4)


def test_nothing_is_fitted_on_the_test_images(world: Any) -> None:
    """Settings stay what they are whatever the test images' labels are."""
    X, y, half = world.images, world.labels, np.arange(120) < 60
    calibrate = X[~half], y[~half]
    one = evaluate(world.clf, X[half], y[half], trials=4, calibrate=calibrate)
    other = evaluate(world.clf, X[half], np.roll(y[half], 1), trials=4, calibrate=calibrate)
    assert one.recommended == other.recommended and one.about["calibration_images"] == 60
    assert other.methods[0].accuracy.value < one.methods[0].accuracy.value


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"y": np.repeat("ant", 120)}, "all 84 images to test on are of one class"),
        ({"y": np.repeat("gnu", 120)}, "label 'gnu' is not in the classes"),
        ({"X": 30, "calibrate": 0.5}, "there are 1. images to (test|calibrate) on, and at least 20 are needed"),
        ({"trials": 1}, "trials must be a whole number of at least 2"),
        ({"top_k": 1}, "top_k must be a whole number of at least 2"),
        ({"calibrate": 1.5}, "calibrate must be a finite number above 0 and below 1"),
    ],
)
def test_what_cannot_be_evaluated(world: Any, options: dict[str, Any], said: str) -> None:
    options = {"X": world.images, "y": world.labels, **options}
    if isinstance(options["X"], int):
        options |= {"X": world.images[: options["X"]], "y": world.labels[: options["X"]]}
    with pytest.raises(InvalidInputError, match=said):
        evaluate(world.clf, options.pop("X"), options.pop("y"), **options)


def test_too_few_images_are_explained_by_those_that_were_left_out(world: Any) -> None:
    notes = ["180 images in good.csv were left out: the model was trained on them."]
    with pytest.raises(InvalidInputError, match=r"at least 20 are needed; .*\. 180 images in good.csv were left out"):
        evaluate(world.clf, world.images[:30], world.labels[:30], notes=notes)
    with pytest.raises(InvalidInputError, match=r"has one image.*\. 180 images in good.csv were left out"):
        evaluate(world.clf, world.images[:2], world.labels[:2], notes=notes)
    with pytest.raises(InvalidInputError, match=r"larger max_loss or delta\. 180 images in good.csv were left out"):
        evaluate(world.clf, world.images[:80], world.labels[:80], notes=notes, max_loss=0.001)


def test_what_is_no_classifier_to_evaluate(world: Any) -> None:
    with pytest.raises(InvalidTypeError, match="takes a fitted HybridClassifier, got a LogisticRegression"):
        evaluate(LogisticRegression(), world.images, world.labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not fitted"):
        evaluate(clone(world.clf), world.images, world.labels)


def test_the_calibrated_row_has_the_drift_that_the_line_gives(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the images is noisier than those that the classifier knows; calibrated on them, it expects that."""
    studies: list[Study] = []
    module = importlib.import_module("hybridclf.evaluating.evaluate")  # its name is the function's, too
    kept = module._report

    def reported(study: Study, *others: Any) -> Report:
        studies.append(study)
        return kept(study, *others)

    monkeypatch.setattr(module, "_report", reported)
    rng, X = np.random.default_rng(0), world.images.copy()
    X[::3] += 1.5 * rng.standard_normal(X[::3].shape)
    half = np.arange(len(X)) % 2 == 0
    calibrate = X[~half], world.labels[~half]
    report = evaluate(world.clf, X[half], world.labels[half], calibrate=calibrate, trials=8, max_loss=0.4, delta=0.3)
    names = {"clf": copy.deepcopy(world.clf), "X": calibrate[0], "y": calibrate[1], "Race": Race}
    pasted = eval(report.recommended.line, names | {"HybridClassifier": HybridClassifier}).calibration_.drift
    drifts = {method.name: method.drift for method in studies[0].methods}
    assert drifts["hybrid, as it is"] == world.clf.calibration_.drift
    np.testing.assert_allclose(drifts["hybrid, calibrated here"].limits, pasted.limits, rtol=0.1)
    [of_bound] = [drift for name, drift in drifts.items() if "bound" in name]
    assert of_bound is None  # too few images to fit it on are left beside those that test the bound
    before, here, line = (
        (drift.log_sizes(looks_of(X[::3], *drift.pixel_range)) > 0).any(axis=1).mean()
        for drift in (world.clf.calibration_.drift, drifts["hybrid, calibrated here"], pasted)
    )
    assert max(here, line) < before / 2


def test_images_to_calibrate_on_that_are_tested_on_are_left_out(world: Any) -> None:
    X, y, half = world.images, world.labels, np.arange(120) < 60
    report = evaluate(world.clf, X[half], y[half], trials=4, calibrate=(X[30:], y[30:]))
    assert report.about["calibration_images"] == 60 and "30 images to calibrate on were left out" in str(report)
    with pytest.raises(InvalidInputError, match="images to calibrate on"):
        evaluate(world.clf, X, y, trials=4, calibrate=(X, y))


def test_images_of_one_group_are_on_one_side_and_count_as_one(world: Any) -> None:
    """Pairs of two takes of a picture, which are no copies: their answers go together."""
    rng = np.random.default_rng(0)
    X, y = np.repeat(world.images[:60], 2, axis=0), np.repeat(world.labels[:60], 2)
    X += 0.1 * rng.standard_normal(X.shape)
    films = np.repeat(np.arange(60), 2)
    grouped = evaluate(world.clf, X, y, trials=2, groups=films)
    alone = evaluate(world.clf, X, y, trials=2)
    assert grouped.about["test_images"] == alone.about["test_images"]  # copies are on one side as they are
    widths = [report.methods[0].accuracy.high - report.methods[0].accuracy.low for report in (grouped, alone)]
    assert widths[0] > 1.2 * widths[1]
    names = np.where(films < 30, "test", None)
    names[::2] = [f"film {i // 2}" for i in range(0, 120, 2)]
    report = evaluate(world.clf, X[:60], y[:60], trials=2, calibrate=(X, y, names), groups=names[:60])
    assert report.about["calibration_images"] == 60
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        evaluate(world.clf, X, y, trials=4, groups=films[:50])
    with pytest.raises(InvalidInputError, match=r"images to .* are of one group; give images of at least 2 groups"):
        evaluate(world.clf, X[::2], y[::2], trials=4, groups=np.arange(60) < 30)


def test_copies_of_a_picture_count_as_one(world: Any) -> None:
    """They are one group also where no groups are given, whichever way there are images to calibrate on."""
    twice = np.repeat(np.arange(60), 2)
    X, y = world.images[twice], world.labels[twice]
    grouped, alone = (evaluate(world.clf, X, y, trials=2, groups=groups) for groups in (twice, None))
    others = world.images[60:], world.labels[60:]
    with_others = [evaluate(world.clf, X, y, trials=2, calibrate=others, groups=groups) for groups in (twice, None)]
    for one, other in ((grouped, alone), with_others):
        assert one.methods[0].accuracy == other.methods[0].accuracy
        assert one.differences == other.differences and one.recommended == other.recommended
    right = np.repeat(world.clf.proposer_.predict(world.images[:60].reshape(60, -1)) == world.labels[:60], 2)
    assert with_others[1].methods[0].accuracy == accuracy(right, groups=twice) != accuracy(right)


def test_tables_keep_their_columns(world: Any) -> None:
    pd = pytest.importorskip("pandas")
    first, second = (Items(pd.DataFrame({"a": [1, n]}), np.array([[1.0], [float(n)]])) for n in (2, 3))
    joined = _joined(first, second)
    assert joined.given["a"].tolist() == [1, 2, 1, 3] and joined.images.ravel().tolist() == [1, 2, 1, 3]
