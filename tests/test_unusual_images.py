"""A pair whose second tier pays on images that look unusual alone: it asks about these, wherever it is asked."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import LeaveOneOut
from sklearn.naive_bayes import GaussianNB

from hybridclf import AsyncReranker, HybridClassifier
from hybridclf.evaluating.methods import hybrid_of, replay, run
from hybridclf.evaluating.recording import record
from hybridclf.fitting.cross_fit import COPY_TRIALS, MOST_COPIES
from hybridclf.fitting.drift import Drift
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
    aside = clf._aside(items)
    with AsyncReranker(clf.reranker()) as live:
        asked = zip(items.images, candidates, log_prior, aside, strict=True)
        results = [live.submit(x, c, p, aside=a).result(60) for x, c, p, a in asked]
    for a, b in zip(results, clf.rerank(BOTH[::10]), strict=True):
        assert (a.stopped_by, a.evaluations, a.ranking) == (b.stopped_by, b.evaluations, b.ranking)
    assert {"off", "confident"} <= {r.stopped_by for r in results}


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


def test_copies_are_recorded_that_look_unusual_one_of_an_image() -> None:
    clf = HybridClassifier.from_pretrained("digits")
    items, y = clf._read_labelled(load_digits().images[1300:1600], load_digits().target[1300:1600])
    tiers, sample = FittedTiers(clf.proposer_, clf.denoiser_, None), Sample(items, y)
    cross = clf._cross_fit(clf.proposer_, clf.denoiser_, items.images)
    made, again = (cross.record(tiers, sample) for _ in range(2))
    assert made.copies is not None and made.drift is not None and again.copies is not None
    of = made.copies.of
    assert 50 < len(of) <= MOST_COPIES and len(set(of.tolist())) == len(of)
    assert Drift.of_usual(made.drift).log_sizes(made.copies.looks).any(axis=1).all()
    np.testing.assert_array_equal(made.copies.recording.all_y, made.all_y[of])
    assert made.copies.recording.errors.shape[1] == COPY_TRIALS
    np.testing.assert_array_equal(made.copies.recording.errors, again.copies.recording.errors)


def test_it_is_kept_in_files(clf: HybridClassifier, tmp_path: Path) -> None:
    clf.save(tmp_path / "pair")
    loaded = HybridClassifier.load(tmp_path / "pair")
    assert loaded.worth_ == clf.calibration_.worth  # type: ignore[union-attr]
    assert [r.stopped_by for r in loaded.rerank(BOTH)] == [r.stopped_by for r in clf.rerank(BOTH)]


def test_folds_of_single_images_have_copies_too() -> None:
    X, y = load_digits().images[:40], load_digits().target[:40] % 2
    clf = HybridClassifier(GaussianNB(), max_iter=2, cv=LeaveOneOut(), random_state=0).fit(X, y)
    assert clf.worth_ is not None and clf.calibration_ is not None
