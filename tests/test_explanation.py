"""Why A and not B: the parts sum to the log-odds, the map to the gaps, and the map points where classes differ."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier, InvalidInputError, Race
from hybridclf.demo.explanations import draw_explanation


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.mark.parametrize("objective", ["l2", "l1", "huber"])
def test_the_parts_are_those_of_a_race_that_runs_all_trials(clf: HybridClassifier, objective: str) -> None:
    """Against the posterior of the loop, which sums its errors itself."""
    clf = copy.copy(clf)
    clf._objective = objective
    image = load_digits().images[5]
    explained = clf.explain(image, 5, 9, trials=8)
    full = clf.proposer_.predict_log_proba(image.reshape(1, -1))[0][[5, 9]]
    stage = clf.reranker(Race(1 - 1e-12, 8))
    (result,) = stage.rerank(image[None], [(5, 9)], [full])
    order = [result.candidates.index(label) for label in (5, 9)]
    odds = np.log(result.posterior[order[0]] / result.posterior[order[1]])
    assert result.rows == 8 and explained.log_odds == pytest.approx(odds, rel=1e-3)
    errors = result.evidence[:, order]
    np.testing.assert_allclose(explained.gaps, errors[:, 1] - errors[:, 0], rtol=1e-3, atol=1e-2)
    assert explained.prior == pytest.approx(clf.fusion_.prior_weight * (full[0] - full[1]))


def test_the_map_sums_to_the_mean_gap(clf: HybridClassifier) -> None:
    explained = clf.explain(load_digits().images[3], trials=4)
    assert explained.map.shape == (8, 8) and len(explained.t) == len(explained.gaps) == 4
    assert explained.map.sum() == pytest.approx(explained.gaps.mean(), rel=1e-5)
    assert explained.a == 3 and explained.log_odds > 0
    assert f"{3!r} rather than {explained.b!r}" in str(explained)


def test_the_other_way_round(clf: HybridClassifier) -> None:
    image = load_digits().images[9]
    there, back = clf.explain(image, 9, 8, trials=4), clf.explain(image, 8, 9, trials=4)
    assert there.asked and there.evidence > 0
    assert there.prior == pytest.approx(-back.prior) and there.evidence == pytest.approx(-back.evidence, rel=1e-4)
    np.testing.assert_allclose(there.map, -back.map, atol=1e-4)


def test_the_map_points_where_the_classes_differ(gaussian_denoiser: type) -> None:
    """Two classes that differ in one corner: the map is there, and its sign follows the image."""

    class ChannelsFirst(gaussian_denoiser):  # type: ignore[misc]
        def encode(self, images: Any) -> Any:
            return super().encode(np.moveaxis(np.asarray(images), -1, 1))

    means = np.zeros((2, 6, 8, 1))
    means[1, :3, :4] = 2.0
    denoiser = ChannelsFirst(dict(zip("ab", np.moveaxis(means, -1, 1), strict=True)), 0.5)
    rng, y = np.random.default_rng(0), np.arange(40) % 2
    images = means[y] + 0.5 * rng.standard_normal((40, 6, 8, 1))

    def tier_1(X: Any) -> np.ndarray:
        return np.log(np.full((len(X), 2), 0.5))

    fitted = HybridClassifier(tier_1, denoiser, random_state=0).fit(images, np.array(["a", "b"])[y])
    for image, label in zip(images[:4], "abab", strict=True):
        found = fitted.explain(image, "b", "a", trials=8)
        assert np.abs(found.map[:3, :4]).sum() > 0.99 * np.abs(found.map).sum()
        assert (found.evidence > 0) == (found.map[:3, :4].sum() > 0) == (label == "b")


def test_where_tier_2_is_not_asked(clf: HybridClassifier) -> None:
    clf = copy.copy(clf)
    clf.fusion_ = replace(clf.fusion_, pays=False)
    image = load_digits().images[5]
    posterior = clf.predict_proba(image[None])[0]
    found = clf.explain(image, 5, 9, trials=2)
    assert not found.asked and found.evidence == 0.0 and found.gaps.any()
    assert found.log_odds == pytest.approx(np.log(posterior[5] / posterior[9]), rel=1e-3)
    assert "from tier 1 alone" in str(found)
    pytest.importorskip("matplotlib")
    assert "answers alone" in draw_explanation(found, image).get_suptitle()


def test_where_the_prior_settles_it(clf: HybridClassifier) -> None:
    """Of an image that takes no trial, tier 2 gets no credit; of one that takes some, it does."""
    settled, raced = load_digits().images[[0, 2]]
    assert [(result.rows > 0, result.stopped_by) for result in clf.rerank([settled, raced])] == [
        (False, "confident"),
        (True, "confident"),
    ]
    found, posterior = clf.explain(settled, 0, 7, trials=2), clf.predict_proba(settled[None])[0]
    assert not found.asked and found.evidence == 0.0 and found.gaps.any()
    assert found.log_odds == pytest.approx(np.log(posterior[0] / posterior[7]), rel=1e-6)
    assert "from tier 1 alone" in str(found)
    assert clf.explain(raced, trials=2).asked


def test_bad_input(clf: HybridClassifier) -> None:
    image = load_digits().images[0]
    for arguments, match in (((11,), "11 is none of the classes"), ((3, 3), "give two different classes")):
        with pytest.raises(InvalidInputError, match=match):
            clf.explain(image, *arguments)
    bounded = copy.copy(clf)
    bounded._objective = "vlb"
    with pytest.raises(InvalidInputError):
        bounded.explain(image)
    with pytest.raises(InvalidInputError, match="trials must be"):
        clf.explain(image, trials=0)


def test_pictures(clf: HybridClassifier) -> None:
    pytest.importorskip("matplotlib")
    image = load_digits().images[3]
    figure = draw_explanation(clf.explain(image, trials=4), image)
    assert len(figure.axes) == 4 and "rather than" in figure.get_suptitle()
    picture = Image.fromarray((image * 15.9).astype(np.uint8))
    assert draw_explanation(clf.explain(picture, trials=4), picture).axes
