"""A pair whose second tier pays on images that look unusual alone: it asks about these, wherever it is asked."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import LeaveOneOut
from sklearn.naive_bayes import GaussianNB

from hybridclf import AsyncReranker, FixedTrials, Fusion, HybridClassifier
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.methods import hybrid_of, replay, run
from hybridclf.evaluating.recording import record
from hybridclf.fitting.calibration import calibrate
from hybridclf.fitting.cross_fit import COPY_TRIALS, MOST_COPIES
from hybridclf.fitting.drift import Drift
from hybridclf.fitting.guarantee import Replays, find_guarantee
from hybridclf.fitting.recording import Recording
from hybridclf.fitting.tier_fitter import FittedTiers, Sample
from hybridclf.proposer import aligned_log_proba
from tests.serving.processes import uri

CLEAN = load_digits().images[1300:1400]
NOISY = (CLEAN + 4 * np.random.default_rng(0).standard_normal(CLEAN.shape)).clip(0, 16)
BOTH = np.concatenate([CLEAN, NOISY])


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    """The embedded digits pair, as if its second tier had paid on corrupted copies alone."""
    clf = HybridClassifier.from_pretrained("digits")
    fitted = clf.calibration_
    assert fitted is not None and fitted.worth is not None and fitted.drift is not None
    worth = replace(fitted.worth, pays=False, harmed=(), unusual=fitted.worth)
    clf.calibration_ = replace(fitted, worth=worth)
    return clf


def test_usual_images_have_tier_1_s_answer(clf: HybridClassifier) -> None:
    posterior, results = clf.decide(BOTH)
    off = np.array([r.stopped_by == "off" for r in results])
    assert off[:100].mean() > 0.7 and off[100:].mean() < 0.5
    assert not sum(r.evaluations for r, o in zip(results, off, strict=True) if o)
    own = aligned_log_proba(clf.proposer_, clf._read(BOTH[off]), clf.classes_)
    np.testing.assert_allclose(posterior[off], clf.fusion_.prior(own), atol=1e-9)
    assert (
        np.mean([r.evaluations > 0 for r in results[100:]]) > 0.3 > np.mean([r.evaluations > 0 for r in results[:100]])
    )
    asked = HybridClassifier.from_pretrained("digits").decide(BOTH)[0]
    np.testing.assert_allclose(posterior[~off], asked[~off], rtol=1e-6)


def test_so_it_is_live(clf: HybridClassifier) -> None:
    items = clf._read(BOTH[::10])
    candidates, log_prior, _ = clf._propose(items)
    with AsyncReranker(clf.reranker()) as live:
        results = [live.submit(*asked).result(60) for asked in zip(items.images, candidates, log_prior, strict=True)]
    for a, b in zip(results, clf.rerank(BOTH[::10]), strict=True):
        assert (a.stopped_by, a.evaluations, a.ranking) == (b.stopped_by, b.evaluations, b.ranking)
    assert {"off", "confident"} <= {r.stopped_by for r in results}


def test_the_stage_knows_it_and_tier_2_alone_does_not(clf: HybridClassifier) -> None:
    candidates, log_prior = clf.propose(BOTH)
    reasons = [r.stopped_by for r in clf.reranker().rerank(BOTH, candidates, log_prior)]
    assert reasons == [r.stopped_by for r in clf.rerank(BOTH)] and "off" in reasons
    alone = clf.reranker(FixedTrials(1), Fusion()).rerank(BOTH[:10], candidates[:10])
    assert "off" not in {r.stopped_by for r in alone}
    with pytest.raises(InvalidInputError, match="3 candidate lists and 2 reasons; give one per image"):
        clf.reranker().rerank(BOTH[:3], candidates[:3], aside=["", "off"])
    with pytest.raises(InvalidInputError, match='aside must be "novel", "off", or "" to ask tier 2'):
        clf.reranker().rerank(BOTH[:1], candidates[:1], aside=["nonsense"])


def test_and_over_http(clf: HybridClassifier) -> None:
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from hybridclf.serving import create_app

    usual, far = (np.flatnonzero(clf._usual_looking(clf._read(BOTH)) == is_usual)[-1] for is_usual in (True, False))
    with TestClient(create_app(clf)) as client:
        for i, expected in ((usual, {"off"}), (far, {"confident", "budget"})):
            body = {"query": uri(png(BOTH[i])), "documents": ["1", "7", "4"], "log_prior": [-1.1, -1.1, -1.1]}
            assert client.post("/v1/rerank", json=body).json()["meta"]["stopped_by"] in expected


def png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(file, "png")
    return file.getvalue()


def test_an_evaluation_replays_it(clf: HybridClassifier) -> None:
    y = np.searchsorted(clf.classes_, np.tile(load_digits().target[1300:1400], 2))
    items = clf._read(BOTH)
    recording = record(clf, items, y, trials=64, top_k=10)
    method = hybrid_of(clf, 64)
    played, live = replay(method, recording), run(method, clf, items, 64)
    assert played.stopped_by == live.stopped_by == [r.stopped_by for r in clf.rerank(BOTH)]
    np.testing.assert_allclose(played.posterior, live.posterior, atol=1e-5)


def test_a_kept_recording_knows_the_calibration_of_today(clf: HybridClassifier, tmp_path: Path) -> None:
    before = HybridClassifier.from_pretrained("digits")
    y = np.searchsorted(clf.classes_, load_digits().target[1300:1320])
    of_before, of_today = (
        record(c, c._read(CLEAN[:20]), y, trials=2, top_k=10, folder=tmp_path / "recording") for c in (before, clf)
    )
    both = zip((before, clf), (of_before, of_today), strict=True)
    left_out = [hybrid_of(c, 2).aside(made.novel, made.looks).count("off") for c, made in both]
    assert left_out[0] == 0 and left_out[1] > 10


def test_the_guarantee_counts_what_is_off_on_neither_side(clf: HybridClassifier) -> None:
    items, y = clf._read_labelled(load_digits().images[1300:1500], load_digits().target[1300:1500])
    cross = clf._cross_fit(clf.proposer_, clf.denoiser_, items.images)
    recording = cross.record(FittedTiers(clf.proposer_, clf.denoiser_, None), Sample(items, y))
    assert clf.calibration_ is not None
    replays = Replays.of(recording, clf.calibration_, clf.classes_, None)
    usual = clf._usual_looking(items).mean()
    assert 0.5 < usual < 1 and replays.asked.mean() == pytest.approx(1 - usual, abs=0.05)
    found = find_guarantee(replays, replays, 0.05, 0.2, progress=False)
    assert found.exhaustive_evaluations == pytest.approx(640 * replays.asked.mean())
    assert 0 < found.saved < 1


def test_copies_are_recorded_that_look_unusual_one_of_an_image() -> None:
    clf = HybridClassifier.from_pretrained("digits")
    items, y = clf._read_labelled(load_digits().images[1300:1600], load_digits().target[1300:1600])
    weight = np.linspace(1, 2, 300)
    tiers, sample = FittedTiers(clf.proposer_, clf.denoiser_, None), Sample(items, y, weight)
    cross = clf._cross_fit(clf.proposer_, clf.denoiser_, items.images)
    made, again = (cross.record(tiers, sample) for _ in range(2))
    assert made.copies is not None and made.drift is not None and again.copies is not None
    of = made.copies.of
    assert 50 < len(of) <= MOST_COPIES and len(set(of.tolist())) == len(of)
    assert Drift.of_usual(made.drift).log_sizes(made.copies.looks).any(axis=1).all()
    np.testing.assert_array_equal(made.copies.recording.all_y, made.all_y[of])
    assert made.all_weight is not None
    np.testing.assert_array_equal(made.copies.recording.all_weight, made.all_weight[of])
    assert made.copies.recording.errors.shape[1] == COPY_TRIALS
    np.testing.assert_array_equal(made.copies.recording.errors, again.copies.recording.errors)


def test_it_is_kept_in_files(clf: HybridClassifier, tmp_path: Path) -> None:
    clf.save(tmp_path / "pair")
    loaded = HybridClassifier.load(tmp_path / "pair")
    assert loaded.worth_ == clf.calibration_.worth  # type: ignore[union-attr]
    assert [r.stopped_by for r in loaded.rerank(BOTH)] == [r.stopped_by for r in clf.rerank(BOTH)]


@pytest.mark.parametrize(("most", "copies"), [(MOST_COPIES, range(12, 25)), (10, range(1))])
def test_folds_of_single_images_have_no_more_copies_than_others(
    most: int, copies: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridclf.fitting.cross_fit.MOST_COPIES", most)
    found: list[int] = []

    def counted(recording: Recording, *rest: Any) -> Any:
        found.append(0 if recording.copies is None else len(recording.copies.of))
        return calibrate(recording, *rest)

    monkeypatch.setattr("hybridclf.estimator.fit.calibrate", counted)
    X, y = load_digits().images[:24], load_digits().target[:24] % 2
    clf = HybridClassifier(GaussianNB(), max_iter=1, cv=LeaveOneOut(), random_state=0).fit(X, y)
    assert clf.worth_ is not None
    assert found[0] in copies


def test_copies_of_few_films_turn_nothing_on() -> None:
    """Ten films are not enough, whether their frames are as they were or corrupted."""
    X, y = load_digits().images[1300:1400], load_digits().target[1300:1400]
    clf = HybridClassifier.from_pretrained("digits").calibrate(X, y, groups=np.arange(100) % 10)
    assert clf.worth_ is not None and clf.worth_.n_groups == 10
    assert not clf.worth_.pays and clf.worth_.unusual is None and not clf.fusion_.pays
