"""The end of a training: where tier 2 is off, tier 1 has the temperature of all held-out images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from hybridclf import HybridClassifier
from hybridclf.data.datasets import DIGITS, load_labelled
from hybridclf.pair_training.finish import _calibrated, _for_temperature, _tempered
from hybridclf.pair_training.networks import new_unet
from hybridclf.pair_training.settings import PairSettings
from hybridclf.pair_training.tier_1 import SklearnTier1
from hybridclf.pair_training.tier_1_time import Share
from hybridclf.pair_training.training_data import TrainingData
from hybridclf.proposer import aligned_log_proba
from hybridclf.reranking.fusion import Fusion


def test_a_tier_1_that_answers_alone_has_the_temperature_of_all_images(tmp_path: Path) -> None:
    settings = PairSettings(image_size=8, validation_fraction=0.3)
    data = TrainingData.of(load_labelled(DIGITS, 8), torch.device("cpu"), False, settings)
    nothing: Any = None
    tier_1 = SklearnTier1(GaussianNB(), data)  # far too sure
    tier_1.train(nothing, Share(0.0, 0.0), False)
    proposer = tier_1.save(tmp_path)
    clf = _calibrated(proposer, new_unet(data, 16), data, 30, False)  # a network that knows nothing
    assert clf.worth_ is not None and not clf.worth_.pays
    assert clf.calibration_ is not None
    clf.fusion_ = _tempered(clf, data, _for_temperature(data, 2000))
    clf.calibration_ = replace(clf.calibration_, fusion=clf.fusion_)
    images, labels = data.some_held_out(np.arange(len(data.held_out)))
    y, log_prior = np.searchsorted(clf.classes_, labels), aligned_log_proba(clf.proposer_, images, clf.classes_)
    assert len(y) > 500
    assert clf.fusion_.prior_alone == pytest.approx(Fusion().tempered(log_prior, y).prior_alone, rel=1e-6)
    whole = clf.fusion_.prior_alone
    few = Fusion().tempered(log_prior[:30], y[:30]).prior_alone
    assert abs(np.log(few / whole)) > 0.01
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    np.testing.assert_allclose(loaded.predict_proba(images[:9]), clf.fusion_.prior(log_prior[:9]))

    own = Fusion().tempered(log_prior[data.fit_on], y[data.fit_on]).prior_alone
    fewest = _tempered(clf, data, _for_temperature(data, 0))  # the images for the fusion alone
    assert fewest.prior_alone == pytest.approx(own, rel=1e-6) and own != whole
