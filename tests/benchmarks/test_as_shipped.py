"""The benchmark of an embedded pair as it is: its figures are those of the answers."""

import numpy as np
import pytest
from as_shipped import alone, answered, row
from sklearn.datasets import load_sample_image

from hybridclf import HybridClassifier


def test_figures_are_those_of_the_answers() -> None:
    photo = load_sample_image("flower.jpg")[::2, ::2]
    images = np.stack([photo[y : y + 32, x : x + 32] for y in range(0, 160, 40) for x in range(0, 240, 40)])
    clf = HybridClassifier.from_pretrained("cifar10")
    posterior, results = clf.decide(images)
    labels = clf.classes_[posterior.argmax(axis=1)]
    labels[::3] = clf.proposer_.predict(images)[::3]  # where the tiers differ, each is right about some
    figures = row(found := answered(clf, images, labels))
    right = clf.classes_[posterior.argmax(axis=1)] == labels
    np.testing.assert_array_equal(found["right"]["hybrid"], right)
    assert figures["hybrid"][0] == right.mean()
    assert figures["tier 1"][0] == (clf.proposer_.predict(images) == labels).mean() < 1
    prior = clf.fusion_.prior(clf.proposer_.predict_log_proba(images))  # all methods are calibrated
    np.testing.assert_allclose(found["confidence"]["tier 1"], prior.max(axis=1), rtol=1e-5)
    assert figures["difference"][0] == pytest.approx(figures["hybrid"][0] - figures["tier 1"][0])
    assert figures["fixed"] - figures["broken"] == round(len(images) * figures["difference"][0])
    assert figures["evaluations"] == np.mean([result.evaluations for result in results])
    tier_2 = alone(clf, images[:8], labels[:8], right)
    assert tier_2["hybrid"][0] == right[:8].mean()
    assert tier_2["difference"][0] == pytest.approx(tier_2["hybrid"][0] - tier_2["tier 2"][0])
