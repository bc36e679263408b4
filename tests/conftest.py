"""Settings for all tests: offline, one thread, no display; slow tests only on request.

No torch and no scikit-learn up here: the process that hands the tests to others would load them for nothing.
"""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before anything imports a library that reads them; subprocesses inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HTTP_PROXY="http://127.0.0.1:9",  # nothing listens there: a download fails at once
    HTTPS_PROXY="http://127.0.0.1:9",
    NO_PROXY="localhost,127.0.0.1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",  # models are tiny: threads only wait for each other, the more so on shared cores
)
for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

if TYPE_CHECKING:
    from tests.gaussian import GaussianDenoiser


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: needs --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_native_bfloat16() -> Iterator[None]:
    """Networks compute in float32 on whatever processor; tests of bfloat16 say that it has it, which works anywhere."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
        yield


@pytest.fixture
def native_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """This processor counts as one that multiplies bfloat16 natively."""
    import torch

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of larger data sets, beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}")
    return folder


@pytest.fixture(scope="session")
def gaussian_denoiser() -> type["GaussianDenoiser"]:
    """The class: `gaussian_denoiser(means, s, dtype, cost_unit)`."""
    from tests.gaussian import GaussianDenoiser

    return GaussianDenoiser


@pytest.fixture(scope="session")
def error_table() -> Callable[..., np.ndarray]:
    """`error_table(n, T, K, seed)`: random float32 errors `[n, T, K]` whose level the classes of a trial share."""

    def make(n: int, n_trials: int, n_candidates: int, seed: int = 0, spread: float = 0.3) -> np.ndarray:
        rng = np.random.default_rng(seed)
        level = 10 + rng.standard_normal((n, n_trials, 1))
        merit = spread * rng.standard_normal((n, 1, n_candidates))
        noise = rng.standard_normal((n, n_trials, n_candidates))
        return (level + merit + noise).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Path, Callable[[Path], None]]]:
    """`digits_folder(n)`: a folder of n digits as PNG files, two of them damaged, and a check of a batch's output.

    The check holds it against the embedded classifier, asked once for all of the same pixels as arrays.
    """
    import pyarrow.parquet as pq
    from PIL import Image
    from sklearn.datasets import load_digits

    from hybridclf import HybridClassifier

    @functools.cache
    def make(n: int) -> tuple[Path, Callable[[Path], None]]:
        folder = tmp_path_factory.mktemp("digits")
        digits = load_digits().images
        digits = np.concatenate([digits, np.roll(digits, 1, axis=2)])[:n]
        eight_bit = (digits * 255 / 16).round().astype(np.uint8)
        names = [f"{i:05}.png" for i in range(n)]
        for name, pixels in zip(names, eight_bit, strict=True):
            Image.fromarray(pixels).save(folder / name)
        damaged = [7, n - 1]
        for i in damaged:
            (folder / names[i]).write_text("no image")
        clf = HybridClassifier.from_pretrained("digits")
        readable = np.setdiff1d(np.arange(n), damaged)
        posterior, results = clf.decide(eight_bit[readable] * (16 / 255))

        def check(output: Path) -> None:
            rows = pq.read_table(output).to_pylist()
            assert [row["path"] for row in rows] == names
            assert [i for i, row in enumerate(rows) if row["error"] is not None] == damaged
            for i, expected, result in zip(readable, posterior, results, strict=True):
                row, order = rows[i], np.argsort(-expected, kind="stable")[:5]
                assert row["label"] == row["top_labels"][0] == clf.classes_[order[0]]
                np.testing.assert_allclose(row["top_posterior"], expected[order], atol=1e-5)
                np.testing.assert_allclose(row["top_posterior"], expected[row["top_labels"]], atol=1e-5)
                assert (row["evaluations"], row["stopped_by"]) == (result.evaluations, result.stopped_by)
            for i in damaged:
                assert {name for name, value in rows[i].items() if value is not None} == {"path", "error"}

        return folder, check

    return make


@pytest.fixture(scope="session")
def text_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two tiny models of text, clip/ and sd/, with random weights; not to be changed."""
    from tests.adapters.tiny_pair import save_pair

    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Six pictures of six sizes."""
    rng = np.random.default_rng(0)
    sizes = [(24, 32), (40, 40), (33, 29), (32, 32), (64, 48), (30, 31)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


# --- images to re-rank ------------------------------------------------------------------------------------------------

RERANKED = ("ant", "bee", "cow", "dog", "elk")


@pytest.fixture
def n_images() -> int:
    """How many there are; a module may say otherwise."""
    return 40


@pytest.fixture
def means() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).standard_normal((5, 3, 4))
    return dict(zip(RERANKED, values, strict=True))


@pytest.fixture
def images(means: dict[str, np.ndarray], n_images: int) -> np.ndarray:
    """Noisy means of one class after the other."""
    rng = np.random.default_rng(1)
    return np.stack([means[RERANKED[i % 5]] for i in range(n_images)]) + 0.5 * rng.standard_normal((n_images, 3, 4))


@pytest.fixture
def candidates(n_images: int) -> list[list[str]]:
    rng = np.random.default_rng(2)
    return [rng.permutation(RERANKED)[: rng.integers(1, 6)].tolist() for _ in range(n_images)]


@pytest.fixture
def priors(candidates: list[list[str]]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [np.log(rng.dirichlet(np.ones(len(c)))) for c in candidates]
