"""The demo: on a tiny budget what it does, and (slow) in full what it claims."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from hybridclf.demo import digits as demo
from hybridclf.demo.report import Report
from hybridclf.reranking.allocation import FixedTrials, PairedTTest

PICTURES = ("cost-accuracy.png", "reliability.png", "race.png")


@pytest.fixture(scope="module")
def report() -> Report:
    """A demo of seconds: 120 images, two passes of training."""
    allocations = {"two trials": FixedTrials(2), "t-test": PairedTTest(min_trials=2, max_trials=4)}
    return demo.run(3, max_iter=2, n_images=120, allocations=allocations, progress=False)


def test_split_is_half_and_half_stratified_and_seeded() -> None:
    data, again, other = demo.split_digits(0), demo.split_digits(0), demo.split_digits(1)
    assert (len(data.train), len(data.test)) == (898, 899)
    counts = np.bincount(data.train_labels), np.bincount(data.test_labels)
    assert np.abs(counts[0] - counts[1]).max() <= 1
    np.testing.assert_array_equal(data.test_numbers, again.test_numbers)
    assert not np.array_equal(data.test_numbers, other.test_numbers)
    np.testing.assert_array_equal(data.test, load_digits().images[data.test_numbers])
    assert data.train.max() == 16


def test_every_method_has_its_row(report: Report) -> None:
    methods = [row.method for row in report.table]
    assert methods == [demo.TIER_1, demo.RIVAL, "two trials", "t-test", demo.HYBRID]
    assert (report.n_train, report.n_test, report.seed) == (60, 60, 3)


def test_rows_say_what_was_spent(report: Report) -> None:
    tier_1, rival, fixed, t_test, hybrid = report.table
    assert (tier_1.evaluations, rival.evaluations) == (0, 0)
    assert (tier_1.no_evaluation, rival.no_evaluation, fixed.no_evaluation) == (1, 1, 0)
    assert (fixed.evaluations, fixed.rows) == (20, 2)
    assert 20 <= t_test.evaluations <= 40
    assert (hybrid.no_evaluation == 1) == (hybrid.evaluations == 0)  # tier 2 may be off after two passes of training
    assert all(row.images_per_second > 0 for row in report.table)
    assert 0 < report.fit_seconds < report.seconds


def test_accuracies_are_those_of_the_methods(report: Report) -> None:
    data = demo.split_digits(3, 120)
    svc = SVC().fit(data.train.reshape(60, -1), data.train_labels)
    assert report.table[1].accuracy.value == svc.score(data.test.reshape(60, -1), data.test_labels)
    for row in report.table:
        assert row.accuracy.low <= row.accuracy.value <= row.accuracy.high
        gain = report.table[-1].accuracy.value - row.accuracy.value
        assert row.hybrid_gain.value == pytest.approx(gain)


def test_calibration_error_where_there_is_calibration(report: Report) -> None:
    given = [row.method for row in report.table if row.calibration_error is not None]
    assert given == [demo.TIER_1, demo.HYBRID] == [r.method for r in report.reliability]
    for reliability in report.reliability:
        assert reliability.bins.count.sum() == report.n_test
        row = next(row for row in report.table if row.method == reliability.method)
        assert reliability.calibration_error == row.calibration_error


def test_the_race_is_one_images(report: Report) -> None:
    race, digits = report.race, load_digits()
    number = int(race.name.removeprefix("test image "))
    np.testing.assert_array_equal(race.image, digits.images[number])
    assert race.label == digits.target[number]
    assert race.posterior.shape == race.alive.shape == (len(race.evaluations), len(race.candidates))
    np.testing.assert_allclose(race.posterior.sum(axis=1), 1)
    assert race.evaluations[0] == 0
    assert (np.diff(race.evaluations) > 0).all()
    assert (np.diff(race.alive.astype(int), axis=0) <= 0).all()
    assert race.candidates[race.posterior[-1].argmax()] == race.winner


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    files = demo.write(report, folder)
    assert sorted(files) == sorted(folder.iterdir())
    yield folder


def test_pictures_are_written(written: Path) -> None:
    for name in PICTURES:
        with Image.open(written / name) as image:
            image.load()
            assert min(image.size) > 600
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_json_holds_the_report(written: Path, report: Report) -> None:
    saved = json.loads((written / "report.json").read_text(encoding="utf-8"))
    assert [row["method"] for row in saved["table"]] == [row.method for row in report.table]
    assert saved["table"][-1]["accuracy"]["value"] == report.table[-1].accuracy.value
    assert saved["race"]["posterior"] == report.race.posterior.tolist()
    bins, expected = saved["reliability"][1]["bins"], report.reliability[1].bins
    assert bins["count"] == expected.count.tolist()
    assert [math.nan if a is None else a for a in bins["accuracy"]] == pytest.approx(expected.accuracy, nan_ok=True)
    assert {"python", "torch", "scikit-learn", "numpy", "hybridclf"} == set(saved["versions"])


@pytest.mark.slow
def test_the_demo_in_full(tmp_path: Path) -> None:
    report = demo.run(0)
    demo.write(report, tmp_path)
    rows = {row.method: row for row in report.table}
    hybrid, tier_1 = rows[demo.HYBRID], rows[demo.TIER_1]
    exhaustive, staged, t_test = (rows[name] for name in demo.ALLOCATIONS)
    assert report.seconds <= 180
    assert report.race.stopped_by == "confident" and report.race.proposed != report.race.label == report.race.winner
    assert hybrid.accuracy.value >= 0.985 > tier_1.accuracy.value
    assert hybrid.accuracy.value >= exhaustive.accuracy.value - 0.005
    assert hybrid.evaluations * 50 <= staged.evaluations
    assert hybrid.evaluations < t_test.evaluations
    assert hybrid.calibration_error is not None
    assert hybrid.calibration_error <= 0.02
