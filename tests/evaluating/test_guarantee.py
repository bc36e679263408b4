"""Settings with a guarantee: what `calibrate` finds, by replays, and what they cost on images new to them."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.evaluating import Report, evaluate, settings
from hybridclf.evaluating.guarantee import Bound, bounded
from hybridclf.evaluating.methods import replay, run
from hybridclf.evaluating.recording import Recording, record
from hybridclf.fitting import guarantee, worth
from hybridclf.fitting.validation import class_numbers

BOUND = Bound(0.2, 0.2)


@pytest.fixture(scope="module", autouse=True)
def few_settings() -> Iterator[None]:
    """Few settings to try, so that the tests are quick, and a tier 2 that few images can turn on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worth, "FEWEST", 5)
        patch.setattr(guarantee, "CONFIDENCE", (0.9, 0.999))
        patch.setattr(guarantee, "TRIALS", (1, 4, 16))
        patch.setattr(settings, "TRIALS", (1, 4))
        patch.setattr(settings, "CONFIDENCES", (0.99,))
        yield


@pytest.fixture(scope="module")
def recording(world: Any) -> Recording:
    """The first 40 images: too few for `calibrate` to look at corrupted copies, which a recording has none of."""
    clf = world.clf
    y = class_numbers(world.labels, clf.classes_)
    return record(clf, clf._read(world.images[:40]), y[:40], trials=64, top_k=6)


@pytest.fixture(scope="module")
def report(world: Any) -> Report:
    X, y = world.images[:60], world.labels[:60]
    return evaluate(world.clf, X, y, trials=8, calibrate=0.5, max_loss=0.3, delta=0.2)


def test_it_is_the_guarantee_of_calibrate(world: Any, recording: Recording) -> None:
    found, methods = bounded(world.clf, recording, BOUND)
    other = copy.deepcopy(world.clf).calibrate(world.images[:40], world.labels[:40], *BOUND)
    assert found == other.guarantee_ and found.confidence < 1
    assert world.clf.guarantee_ is None and [method.top_k for method in methods] == [6, found.top_k]
    items = world.clf._read(world.images[40:])
    posterior = other.predict_proba(world.images[40:])
    mine = run(methods[1], world.clf, items, 64).posterior  # its fusion was fitted to errors in float64
    np.testing.assert_allclose(mine, posterior, atol=2e-3)


def test_what_is_tested_is_drawn_by_chance_alone() -> None:
    """The only image of a class is tested as often as any other: two times in three."""
    tested = [0 in guarantee.fit_and_test(30, seed)[1] for seed in range(400)]
    assert 0.6 < np.mean(tested) < 0.73
    assert [len(part) for part in guarantee.fit_and_test(2, 0)] == [1, 1]
    kept, out = guarantee.fit_and_test(30, 0)
    assert sorted([*kept, *out]) == list(range(30)) and len(out) == 20


def test_one_image_of_each_group_tests_it(world: Any) -> None:
    X, y = np.repeat(world.images[:40], 2, axis=0), np.repeat(world.labels[:40], 2)
    films, clf = np.repeat(np.arange(40), 2), copy.deepcopy(world.clf)
    both = record(clf, clf._read(X), class_numbers(y, clf.classes_), groups=films, trials=64, top_k=6)
    found, _ = bounded(clf, both, BOUND)
    kept, out = guarantee.fit_and_test(len(both), clf._seed, films)
    assert len(out) == len(set(films[out])) == found.n_images and set(films[kept]) == set(films) - set(films[out])
    assert clf.calibrate(X, y, *BOUND, groups=films).guarantee_.n_images == found.n_images < 30
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.calibrate(X, y, groups=films[:3])


def test_replayed_is_run(world: Any, recording: Recording) -> None:
    items = world.clf._read(world.images[:40])
    for method in bounded(world.clf, recording, BOUND)[1]:
        replayed, live = replay(method, recording), run(method, world.clf, items, 64)
        np.testing.assert_allclose(replayed.posterior, live.posterior, atol=1e-5)
        assert replayed.evaluations.tolist() == live.evaluations.tolist()


def test_a_tier_2_that_does_not_pay_stays_off(world: Any, recording: Recording) -> None:
    noise = 12 + np.random.default_rng(0).standard_normal(recording.errors["l2"].shape)
    nothing = replace(recording, errors={"l2": noise})
    found, methods = bounded(world.clf, nothing, BOUND)
    assert found.evaluations == 0 and not any(replay(method, nothing).evaluations.any() for method in methods)


def test_what_it_cost_and_saved_on_the_test_images(report: Report) -> None:
    held = report.guarantee
    assert held is not None and held.guarantee.n_images == 20 and report.about["calibration_images"] == 30
    exhaustive, early = report.methods[-2:]
    assert held.difference.accuracy.value == pytest.approx(early.accuracy.value - exhaustive.accuracy.value)
    assert (held.evaluations, held.exhaustive_evaluations) == (early.evaluations, exhaustive.evaluations) and exhaustive
    assert exhaustive.evaluations > early.evaluations and 0 < held.saved < 1


def test_it_is_in_table_json_and_page(report: Report, tmp_path: Path) -> None:
    assert "Stopping early costs at most 30 points" in (said := str(report.guarantee)) and "evaluations each" in said
    assert "hybrid, bound of 30 points" in str(report) and "max_loss=0.3, delta=0.2)" in str(report)
    json_file, page = report.write(tmp_path)
    found = json.loads(json_file.read_text())["guarantee"]
    assert found["guarantee"]["max_loss"] == 0.3 and found["difference"]["baseline"] == "hybrid, exhaustive"
    assert 'id="guarantee"' in page.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_loss": 0.005}, "takes 598 images to test it on"),
        ({"max_loss": 1.0}, "max_loss must be a finite number above 0 and below 1"),
        ({"max_loss": 0.1, "delta": 0.0}, "delta must be a finite number above 0 and below 1"),
    ],
)
def test_bounds_that_cannot_be_shown(world: Any, options: dict[str, float], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=said):
        evaluate(world.clf, world.images, world.labels, folder=tmp_path / "recording", **options)
    assert not (tmp_path / "recording").exists()  # it is said before minutes are spent
