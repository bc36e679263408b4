"""The embedded pair for digits knows what it was trained on."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from hybridclf import HybridClassifier
from hybridclf.cli.classifier import images_trained_on
from hybridclf.evaluating.sample import read_sample


def test_the_digits_it_was_trained_on_are_left_out() -> None:
    y, clf = load_digits().target, HybridClassifier.from_pretrained("digits")
    _, test = train_test_split(np.arange(len(y)), test_size=0.25, stratify=y, random_state=0)
    sample = read_sample("digits", clf.classes_.tolist(), clf.image_shape_, seen=images_trained_on("digits"))
    assert sample.trained_on == len(y) - len(test) == 1347
    assert sample.positions == tuple(np.sort(test).tolist())
    np.testing.assert_array_equal(sample.y, y[np.sort(test)])
