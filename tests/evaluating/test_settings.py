"""Settings: chosen on the images for calibration alone, and only what pays is recommended."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridclf import HybridClassifier, Race
from hybridclf.evaluating.methods import replay
from hybridclf.evaluating.recording import Recording, record
from hybridclf.evaluating.scores import losses
from hybridclf.evaluating.settings import HYBRID, UNCALIBRATED, recommend
from hybridclf.fitting.cross_fit import record_drift
from hybridclf.fitting.drift import Drift
from hybridclf.fitting.validation import class_numbers


@pytest.fixture(scope="module")
def recording(world: Any) -> Recording:
    clf = world.clf
    return record(clf, clf._read(world.images), class_numbers(world.labels, clf.classes_), trials=8, top_k=6)


@pytest.fixture
def uncalibrated(world: Any) -> HybridClassifier:
    clf = HybridClassifier(world.clf.proposer_, world.clf.denoiser_, random_state=0, image_shape=(3, 4))
    return clf.fit(None, world.clf.classes_.tolist())


@pytest.fixture
def recommended(uncalibrated: HybridClassifier, recording: Recording) -> Any:
    return recommend(uncalibrated, recording, 0)


def test_settings_that_are_worth_it(recording: Recording, recommended: Any) -> None:
    settings, (own, hybrid) = recommended
    assert settings.pays and not settings.own and (own.name, hybrid.name) == (UNCALIBRATED, HYBRID)
    assert hybrid.allocation == Race(settings.confidence, settings.max_trials)  # type: ignore[arg-type]
    assert (hybrid.top_k, hybrid.objective) == (settings.top_k, settings.objective)
    race = f"allocation=Race({settings.confidence:g}, {settings.max_trials})"
    assert f"top_k={settings.top_k}, {race}" in settings.line
    answers = replay(hybrid, recording)
    tier_1 = -recording.log_proba[np.arange(120), recording.y].mean()
    assert losses(answers, recording.y).mean() < tier_1 and 0 < answers.rows.mean() <= settings.max_trials


def test_the_line_can_be_pasted(
    world: Any, recording: Recording, uncalibrated: HybridClassifier, recommended: Any
) -> None:
    """What it makes answers as the method that was recommended: here X and y are the images it was fitted on."""
    settings, (_, hybrid) = recommended
    names = {
        "clf": uncalibrated,
        "X": world.images,
        "y": world.labels,
        "Race": Race,
        "HybridClassifier": HybridClassifier,
    }
    pasted = eval(settings.line, names)
    assert pasted.top_k == settings.top_k and pasted.fusion_.calibrated
    agree = (pasted.predict_proba(world.images).argmax(axis=1) == replay(hybrid, recording).label).mean()
    assert agree > 0.9


def test_the_drift_is_that_of_the_images_for_calibration(world: Any, uncalibrated: HybridClassifier) -> None:
    """A third of them is noisier than any that the classifier knows: no longer unusual, as after `clf.calibrate`."""
    rng, images = np.random.default_rng(0), world.images.copy()
    images[::3] += 1.5 * rng.standard_normal(images[::3].shape)
    numbers, span = class_numbers(world.labels, world.clf.classes_), (float(images.min()), float(images.max()))
    made = record(uncalibrated, uncalibrated._read(images), numbers, trials=8, top_k=6)
    drift = record_drift(uncalibrated.proposer_, uncalibrated.classes_, images, numbers, span, 0)
    settings, (own, hybrid) = recommend(uncalibrated, replace(made, drift=drift), 0)
    names = {"clf": uncalibrated, "X": images, "y": world.labels, "Race": Race, "HybridClassifier": HybridClassifier}
    wanted = eval(settings.line, names).calibration_.drift
    assert own.drift is None and hybrid.drift is not None
    for name in ("pixel_range", "mean", "scale", "limits"):
        np.testing.assert_allclose(getattr(hybrid.drift, name), getattr(wanted, name), rtol=1e-6)
    assert drift is not None and hybrid.drift == Drift.fit(drift, hybrid.fusion.prior_alone)
    unusual = world.clf.calibration_.drift.unusual(made.looks)
    assert unusual[::3].mean() > 0.5 > hybrid.drift.unusual(made.looks)[::3].mean()


def test_errors_that_say_nothing_do_not_pay(recording: Recording, uncalibrated: HybridClassifier) -> None:
    rng = np.random.default_rng(0)
    noise = {name: 12 + rng.standard_normal(table.shape) for name, table in recording.errors.items()}
    settings, _ = recommend(uncalibrated, replace(recording, errors=noise), 0)
    assert not settings.pays


def test_images_of_one_group_count_as_one(recording: Recording, uncalibrated: HybridClassifier) -> None:
    """Ten films are too few to say that it pays, however many frames they have."""
    films = np.arange(len(recording)) % 10 + 5
    settings, _ = recommend(uncalibrated, replace(recording, groups=films), 0)
    assert not settings.pays


def test_the_better_objective_is_chosen(recording: Recording, uncalibrated: HybridClassifier) -> None:
    rng = np.random.default_rng(0)
    noise = {"l2": 12 + rng.standard_normal(recording.errors["l2"].shape), "l1": recording.errors["l1"]}
    settings, (_, hybrid) = recommend(uncalibrated, replace(recording, errors=noise), 0)
    assert settings.objective == hybrid.objective == "l1"
    assert "objective='l1').fit(X, y)" in settings.line


def test_a_calibrated_classifier_may_stay_as_it_is(world: Any, recording: Recording) -> None:
    settings, (own, _) = recommend(world.clf, recording, 0)
    if settings.own:
        assert settings.line == "clf"
        assert (settings.confidence, settings.max_trials) == (0.97, 4) and own.fusion is world.clf.fusion_
    else:
        assert losses(replay(own, recording), recording.y).mean() > 0
