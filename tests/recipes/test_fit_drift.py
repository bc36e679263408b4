"""What an embedded pair knows of drift and novelty, fitted on the images of its fusion."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from hybridclf.pretrained.catalog import pretrained_folder
from recipes import fit_drift


def test_it_is_fitted_on_all_images_of_the_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = load_sample_image("flower.jpg")
    pieces = [photo[y : y + 32, x : x + 32] for y in range(0, 320, 36) for x in range(0, 600, 64)]
    images, labels = np.stack(pieces), np.resize(["bird", "frog"], len(pieces))
    data = SimpleNamespace(fit_on=np.arange(40), some_held_out=lambda chosen: (images[chosen], labels[chosen]))
    monkeypatch.setattr(fit_drift, "training_images", lambda *_: (data, np.arange(64)))
    drift, novelty = fit_drift.fitted_pair(pretrained_folder("cifar10"), Path("train.parquet"))
    assert drift is not None and novelty is not None
    assert len(novelty.scores) == 32  # of one half; the other says what is usual
