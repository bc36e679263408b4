"""The documented example: a classifier of one's own before an embedded denoiser, and before one of one's own."""

import pytest

from hybridclf import HybridClassifier


@pytest.mark.slow  # README and quick start run these lines too
def test_own_classifier_in_front_of_an_embedded_denoiser() -> None:
    # --- as in the documentation
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.frozen import FrozenEstimator

    digits = load_digits()
    X, y = digits.images, digits.target  # of both the embedded denoiser has seen all
    forest = RandomForestClassifier(random_state=0).fit(X[:1000].reshape(1000, -1), y[:1000])

    tier_2 = HybridClassifier.from_pretrained("digits").denoiser_
    clf = HybridClassifier(FrozenEstimator(forest), tier_2, random_state=0)
    clf.fit(X[1000:1400], y[1000:1400])  # the fusion alone: on images that are new to the forest
    alone, hybrid = clf.proposer_.score(X[1400:].reshape(397, -1), y[1400:]), clf.score(X[1400:], y[1400:])
    # ---
    assert hybrid >= alone > 0.9


def test_own_classifier_in_front_of_an_own_denoiser() -> None:
    # --- as in the documentation
    import numpy as np
    import torch
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    class OneBlobPerClass:
        """A denoiser whose classes are round Gaussians: the mean of ε, given x_t and the class, is known."""

        device, dtype, shape, cost_unit = torch.device("cpu"), torch.float64, (4,), "evaluation"

        def __init__(self, X: np.ndarray, y: np.ndarray, spread: float = 0.5) -> None:
            self.means = {label: torch.as_tensor(X[y == label].mean(axis=0)) for label in np.unique(y).tolist()}
            self.spread = spread

        def encode(self, images: np.ndarray) -> torch.Tensor:  # [n, d], once per image
            return torch.as_tensor(np.asarray(images), dtype=self.dtype)

        def condition(self, labels: list[int]) -> dict[str, torch.Tensor]:  # once per set of labels
            return {"mean": torch.stack([self.means[label] for label in labels])}

        def noise_levels(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # x_t = alpha x_0 + sigma ε
            return torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)

        def predict(
            self, x_t: torch.Tensor, t: torch.Tensor, row: torch.Tensor, condition: dict[str, torch.Tensor]
        ) -> torch.Tensor:  # ε of each pair of a row of x_t and a class
            alpha, sigma = (level[row, None] for level in self.noise_levels(t))
            return sigma * (x_t[row] - alpha * condition["mean"]) / ((alpha * self.spread).square() + sigma.square())

    X, y = load_iris(return_X_y=True)
    denoiser = OneBlobPerClass(X[::3], y[::3])
    clf = HybridClassifier(LogisticRegression(max_iter=1000), denoiser, cv=3, random_state=0).fit(X[1::3], y[1::3])
    results = clf.rerank(X[2::3])
    # ---
    assert clf.score(X[2::3], y[2::3]) >= 0.9
    assert len(results) == 50
