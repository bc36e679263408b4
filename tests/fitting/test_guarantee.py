"""Guarantee: p-values that hold, tests in sequence, and settings that keep what they promise."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, multinomial
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from hybridclf import HybridClassifier, Race
from hybridclf.denoising.weighting import uniform_weights
from hybridclf.errors import InvalidInputError
from hybridclf.fitting import guarantee as module
from hybridclf.fitting import recording
from hybridclf.fitting.calibration import fit_calibration
from hybridclf.fitting.guarantee import (
    NUISANCE,
    Cost,
    Replays,
    Setting,
    check_enough,
    find_guarantee,
    p_value,
    settings_of,
)
from tests.fitting.test_calibration import make_recording


def test_broken_images_alone_are_binomial() -> None:
    assert p_value(Cost(0, 0, 0.0), 598, 0.005, False) < 0.05 < p_value(Cost(0, 0, 0.0), 597, 0.005, False)
    assert p_value(Cost(3, 9, 0.0), 400, 0.02, False) == pytest.approx(binom.cdf(3, 400, 0.02))


def test_a_net_p_value_is_the_largest_over_the_share_of_repaired_images() -> None:
    n, broken, fixed, bound = 12, 1, 2, 0.3
    cells = [(b, f) for b, f in product(range(n + 1), repeat=2) if b + f <= n and b - f <= broken - fixed]
    tails = [
        sum(multinomial.pmf((b, f, n - b - f), n, (q + bound, q, 1 - bound - 2 * q)) for b, f in cells)
        for q in np.linspace(0.001, 0.3499, 200)
    ]
    # the interval of q covers nearly all that is possible here
    assert p_value(Cost(broken, fixed, 0.0), n, bound, True) == pytest.approx(max(tails) + NUISANCE, rel=0.02)


@pytest.mark.parametrize("net", [True, False])
@pytest.mark.parametrize("fixed", [0.0, 0.01, 0.1])
def test_a_setting_at_the_bound_passes_at_most_as_often_as_stated(net: bool, fixed: float) -> None:
    rng, n, bound, delta = np.random.default_rng(0), 300, 0.02, 0.1
    draws = rng.multinomial(n, (bound + fixed, fixed, 1 - bound - 2 * fixed), 400)
    passed = np.mean([p_value(Cost(int(b), int(f), 0.0), n, bound, net) <= delta for b, f, _ in draws])
    assert passed <= delta + 3 * np.sqrt(delta * (1 - delta) / 400)


def test_too_few_images_are_told_how_many_would_do() -> None:
    check_enough(598, 0.005, 0.05)
    with pytest.raises(InvalidInputError, match=r"takes 598 images to test it on.* 898 in all; 597 are left"):
        check_enough(597, 0.005, 0.05)


@pytest.fixture(scope="module")
def replays() -> list[Replays]:
    fitted = fit_calibration(make_recording(300), Race(), None, uniform_weights)
    parts = (make_recording(300, seed) for seed in (1, 2))
    return [Replays.of(part, fitted, np.array(list("abcdef")), uniform_weights) for part in parts]


def test_the_exhaustive_answer_costs_everything_and_loses_nothing(replays: list[Replays]) -> None:
    everything = replays[0].exhaustive
    assert everything == Setting(1.0, 32, 6)
    assert replays[0].costs([everything]) == [Cost(0, 0, 192.0)]
    assert all(s.max_trials <= 32 and s.top_k <= 6 for s in settings_of(replays[0]))


def test_the_settings_found_save_most_and_keep_the_bound_on_new_images(replays: list[Replays]) -> None:
    found = find_guarantee(replays[0], replays[1], 0.03, 0.05, False)
    assert found.saved > 0.5 and found.exhaustive_evaluations == 192
    fitted = fit_calibration(make_recording(300), Race(), None, uniform_weights)
    new = Replays.of(make_recording(2000, 3), fitted, np.array(list("abcdef")), uniform_weights)
    (cost,) = new.costs([Setting(found.confidence, found.max_trials, found.top_k)])
    assert (cost.broken - cost.fixed) / 2000 <= 0.03
    assert "at most 3 points of accuracy, with probability 95 %" in str(found)


def test_a_bound_that_nothing_meets_leaves_all_trials(replays: list[Replays], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIALS", (1, 4))
    found = find_guarantee(replays[0], replays[1], 1e-5, 0.05, False)
    assert (found.confidence, found.saved) == (1.0, 0.0)
    assert "gets all 32 trials" in str(found)


def test_where_tier_2_is_not_asked_no_setting_is_found(replays: list[Replays]) -> None:
    silent = replace(replays[1], asked=np.zeros_like(replays[1].asked))
    found = find_guarantee(replays[0], silent, 0.03, 0.05, False)
    assert (found.confidence, found.evaluations, found.exhaustive_evaluations) == (1.0, 0, 0)
    assert (
        str(found)
        == f"Tier 2 is asked about none of the {found.n_images} images of the test: there is nothing to stop early."
    )


def test_a_classifier_that_asks_nothing_keeps_its_settings() -> None:
    """Tier 1 knows these images by heart."""
    images, y = load_digits(return_X_y=True)
    images, y = images.reshape(-1, 8, 8)[:200], y[:200]
    knows = KNeighborsClassifier(1).fit(images.reshape(200, -1), y)
    denoiser = HybridClassifier.from_pretrained("digits").denoiser_
    clf = HybridClassifier(FrozenEstimator(knows), denoiser, random_state=0).fit(images, y)
    before = clf.get_params()
    clf.calibrate(images, y, max_loss=0.05)
    assert not clf.fusion_.pays and clf.guarantee_ is None
    assert (clf.allocation, clf.top_k) == (before["allocation"], before["top_k"])


def test_copies_of_an_image_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are on one side of the split, and one of them tests the bound."""
    monkeypatch.setattr(recording, "RECORDED_TRIALS", 2)
    images, y = load_digits(return_X_y=True)
    twice, labels = np.tile(images[:90].reshape(-1, 8, 8), (2, 1, 1)), np.tile(y[:90], 2)
    clf = HybridClassifier.from_pretrained("digits")
    with pytest.raises(InvalidInputError, match=r"takes 99 images to test it on.* 60 are left"):
        clf.calibrate(twice, labels, max_loss=0.03)
    clf.set_params(allocation=Race(max_trials=2)).calibrate(twice, labels)
    assert clf.worth_ is not None and (clf.worth_.n_images, clf.worth_.n_groups) == (180, 90)


def test_the_images_that_test_a_bound_are_recorded_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDED_TRIALS", 4)
    asked: list[int] = []

    class Guessing(DummyClassifier):
        def predict_proba(self, X: np.ndarray) -> np.ndarray:
            asked.append(len(X))
            return super().predict_proba(X)

    images, y = load_digits(return_X_y=True)
    images, y = images.reshape(-1, 8, 8)[:120], y[:120]
    tier_1 = Guessing().fit(images, y)
    pair = HybridClassifier.from_pretrained("digits")
    clf = HybridClassifier(FrozenEstimator(tier_1), pair.denoiser_, allocation=Race(max_trials=4), random_state=0)
    clf.fit(None, list(range(10)))
    asked.clear()
    clf.calibrate(images, y, max_loss=0.2)
    assert clf.guarantee_ is not None and clf.guarantee_.n_images == 80
    assert asked[0] == 40 and asked[-1] == 80 and asked.count(80) == 1


@pytest.mark.slow
def test_a_classifier_keeps_its_guarantee_until_its_settings_change(tmp_path: Path) -> None:
    images, y = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    _, out = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    clf = HybridClassifier.from_pretrained("digits")
    with pytest.raises(InvalidInputError, match=r"max_loss=0.001 with delta=0.05 takes 2,995 images"):
        clf.calibrate(images[out], y[out], max_loss=0.001)
    for wrong in ({"max_loss": 0.0}, {"max_loss": 1}, {"max_loss": 0.1, "delta": 1.0}):
        with pytest.raises(InvalidInputError, match="must be a finite number above 0"):
            clf.calibrate(images[out], y[out], **wrong)
    clf.calibrate(images[out], y[out], max_loss=0.03, delta=0.1)
    found = clf.guarantee_
    assert found is not None and found.n_images == 300 and found.saved > 0.9
    assert clf.allocation == Race(found.confidence, found.max_trials) and clf.top_k == found.top_k
    assert clf.worth_ is not None and clf.worth_.evaluations <= found.max_trials * found.top_k
    some = clf.with_labels([3, 5, 8])
    assert some.guarantee_ is None and clf.guarantee_ is found
    with pytest.raises(InvalidInputError, match="novelty needs a calibration"):
        some.novelty(images[out][:2])
    assert len(clf.novelty(images[out][:2])) == 2
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert loaded.calibration_ is not None and clf.calibration_ is not None
    assert loaded.guarantee_ == found and loaded.calibration_.drift == clf.calibration_.drift
    assert clf.set_params(**clf.get_params()).guarantee_ is found  # nothing has changed
    assert clf.set_params(allocation__max_trials=3).guarantee_ is None
    assert loaded.calibrate(images[out][:40], y[out][:40]).guarantee_ is None
