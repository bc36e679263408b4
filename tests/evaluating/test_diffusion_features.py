"""Features of the embedded digits pair, in scikit-learn's ways."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from hybridclf import DiffusionFeatures, HybridClassifier, InvalidInputError, UnknownSpecError


@pytest.fixture(scope="module")
def denoiser() -> Any:
    return HybridClassifier.from_pretrained("digits").denoiser_


def test_a_linear_head_learns_from_them(denoiser: Any) -> None:
    digits = load_digits()
    pipeline = make_pipeline(DiffusionFeatures(denoiser, t=0.2), LogisticRegression(max_iter=500))
    pipeline.fit(digits.images[:300], digits.target[:300])
    assert pipeline.score(digits.images[300:600], digits.target[300:600]) > 0.85


def test_they_depend_on_the_seed_and_not_on_companions(denoiser: Any) -> None:
    images = load_digits().images[:7]
    features = DiffusionFeatures(denoiser, batch_size=3, random_state=1).fit()
    found = features.transform(images)
    np.testing.assert_allclose(found[4:5], features.transform(images[4:5]), atol=1e-5)
    again = clone(features).fit()
    np.testing.assert_array_equal(found, again.transform(images))
    assert np.abs(found - features.set_params(random_state=2).fit().transform(images)).max() > 1e-3


def test_a_layer_by_its_name(denoiser: Any) -> None:
    images, name = load_digits().images[:2], next(name for name, _ in denoiser.network.named_children())
    named = DiffusionFeatures(denoiser, layer="to_head").fit_transform(images)
    assert named.shape == (2, denoiser.network.to_head.weight.shape[0])
    with pytest.raises(InvalidInputError, match=f"no layer 'middle9'; give \"mid\", or one in {name}"):
        DiffusionFeatures(denoiser, layer="middle9").fit()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"t": 1.0}, InvalidInputError, "t must be"),
        ({"batch_size": 0}, InvalidInputError, "batch_size must be"),
        ({"denoiser": "nobody:x"}, UnknownSpecError, "not a known denoiser"),
    ],
)
def test_bad_options(denoiser: Any, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        DiffusionFeatures(**{"denoiser": denoiser} | options).fit()
