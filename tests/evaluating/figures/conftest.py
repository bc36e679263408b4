"""Small made recordings of twelve trials; by default of three candidates among four classes."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from hybridclf.evaluating.recording import Recording
from hybridclf.evaluating.study import Study
from hybridclf.reranking.trials import even_order

N, T = 90, 12


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """`make_study(telling, cost_unit, k, n_classes)`: a study, half of it for calibration.

    telling `[T]` is by how much the wrong candidates' errors exceed the right one's, by time.
    """

    def make(telling: np.ndarray | None = None, cost_unit: str = "evaluation", k: int = 3, n_classes: int = 4) -> Study:
        rng = np.random.default_rng(0)
        t = (even_order(T) + 0.5) / T
        log_proba = np.log(rng.dirichlet(np.ones(n_classes), N))
        candidates = np.argsort(-log_proba, axis=1)[:, :k]
        y = np.where(
            rng.random(N) < 0.9, candidates[np.arange(N), rng.integers(k, size=N)], rng.integers(n_classes, size=N)
        )
        wrong = (candidates != y[:, None])[:, None]
        gap = 2 * np.sin(np.pi * t) if telling is None else telling
        l2 = 10 + rng.standard_normal((N, T, 1)) + wrong * gap[:, None] + rng.standard_normal((N, T, k))
        recording = Recording(
            classes=np.array([f"class {c}" for c in range(n_classes)]),
            y=y,
            log_proba=log_proba,
            novel=np.zeros(N, bool),
            candidates=candidates,
            errors={"l1": l2 + rng.standard_normal(l2.shape), "l2": l2},
            t=t,
            alpha=np.cos(np.pi * t / 2),
            sigma=np.sin(np.pi * t / 2),
            seed=0,
            cost_unit=cost_unit,
        )
        clf = SimpleNamespace(denoiser_=SimpleNamespace())  # figures from a recording ask it nothing
        return Study(clf, SimpleNamespace(), recording, np.arange(N) % 2 == 0)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def study(make_study: Callable[..., Study]) -> Study:
    return make_study()
