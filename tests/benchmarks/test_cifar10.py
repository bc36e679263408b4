"""The parts of the CIFAR-10 benchmark: replays equal the real thing, corruptions corrupt, the cascade is as said."""

import io
import json
from pathlib import Path

import cifar10
import cifar10_recipe
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cifar.answers import Answers, hybrid, record, recorded, replay, weights
from cifar.pictures import gallery
from cifar.rival import Cascade
from PIL import Image
from scipy.special import log_softmax
from sklearn.datasets import load_digits, load_sample_image

from hybridclf import Allocation, FixedTrials, Fusion, HybridClassifier, PairedTTest, Staged
from hybridclf.pair_training import planning, run, time_budget
from hybridclf.pair_training.train_pair import train_pair


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return data.images[:60], data.target[:60]


@pytest.mark.parametrize(
    "allocation", [FixedTrials(12), Staged((3, 1), (4, 12)), PairedTTest(min_trials=4, max_trials=12)]
)
def test_a_replay_is_the_real_thing(
    allocation: Allocation, clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images = digits[0]
    errors = record(clf, images, 12) * weights(clf, 12)
    log_prior = clf.proposer_.predict_log_proba(images.reshape(len(images), -1))
    ours = replay(errors, log_prior, allocation, clf.fusion_)
    results = clf.reranker(allocation).rerank(images, [clf.classes_.tolist()] * len(images), log_prior)
    np.testing.assert_array_equal(ours.evaluations, [r.evaluations for r in results])
    np.testing.assert_array_equal(ours.rows, [r.rows for r in results])
    for posterior, result in zip(ours.posterior, results, strict=True):
        np.testing.assert_allclose(posterior[list(result.candidates)], result.posterior, atol=1e-4)


def test_errors_are_recorded_once(clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images = digits[0][:7]
    errors = recorded(clf, images, 3, tmp_path, part=3)
    assert len(list(tmp_path.glob("*.npy"))) == 3
    np.testing.assert_array_equal(errors[:5], recorded(clf, images[:5], 3, tmp_path, part=3))
    np.testing.assert_array_equal(errors, recorded(clf, np.zeros_like(images), 3, tmp_path, part=3))
    np.testing.assert_array_equal(errors, record(clf, images, 3))


def test_the_hybrid_is_the_classifier(clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, y = digits
    answers = hybrid(clf, images)
    np.testing.assert_array_equal(clf.classes_[answers.posterior.argmax(axis=1)], clf.predict(images))
    assert answers.summary(y)["accuracy"][0] == clf.score(images, y)
    assert answers[:5].right(y[:5]).tolist() == answers.right(y)[:5].tolist()


# --- the rival --------------------------------------------------------------------------------------------------------


def test_the_cascade_trusts_the_better_one() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    truth = np.eye(3)[y]
    first, second = (log_softmax(s * truth + rng.normal(size=truth.shape), axis=1) for s in (0.5, 3.0))
    cascade = Cascade(first, second, y)
    assert cascade.weights[1] > cascade.weights[0]
    asked = np.arange(len(y)) % 2 == 0
    posterior = cascade(np.exp(first), first, second, asked)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    np.testing.assert_array_equal(posterior[~asked], np.exp(first)[~asked])
    right = posterior.argmax(axis=1) == y
    assert right[asked].mean() > right[~asked].mean() + 0.2


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Pieces of scikit-learn's two photographs, 32 pixels a side."""
    photos = [load_sample_image(name)[::4, ::4] for name in ("china.jpg", "flower.jpg")]
    return np.stack([photo[y : y + 32, x : x + 32] for photo in photos for y in (20, 60) for x in (20, 80)])


def test_the_gallery_counts_what_was_fixed_and_broken(photographs: np.ndarray) -> None:
    classes, y = ["a", "b"], np.zeros(8, dtype=int)
    right, wrong = [0.9, 0.1], [0.2, 0.8]
    first = Answers.free(np.array([wrong] * 5 + [right] * 3))
    both = Answers.free(np.array([right] * 4 + [wrong] * 2 + [right] * 2))
    figure = gallery(photographs, y, classes, first, both)
    titles = [half.get_suptitle() for half in figure.subfigs]
    assert titles == [
        "4 of 8 images that re-ranking fixed: 4 of them",
        "1 of 8 images that re-ranking broke: 1 of them",
    ]


def test_fusion_without_prior_is_evidence_alone(clf: HybridClassifier, digits: tuple[np.ndarray, np.ndarray]) -> None:
    errors = record(clf, digits[0], 8)
    answers = replay(errors, np.zeros((60, 10)), FixedTrials(8), Fusion())
    np.testing.assert_array_equal(answers.posterior.argmax(axis=1), errors.sum(axis=1).argmin(axis=1))


# --- all of it --------------------------------------------------------------------------------------------------------


def blobs(path: Path, n: int, seed: int) -> None:
    """A Parquet file of n pictures in the layout of a Hugging Face image dataset: a square of one of three colours."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        picture = rng.integers(0, 90, (32, 32, 3), dtype=np.uint8)
        x, y = rng.integers(0, 16, 2)
        picture[y : y + 16, x : x + 16, i % 3] = rng.integers(120, 255)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        rows.append({"img": {"bytes": file.getvalue(), "path": f"{i}.png"}, "label": i % 3})
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.slow
def test_the_whole_benchmark_runs_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a pair that is trained for a moment, with a rival, small sizes, and an interruption in the middle."""
    monkeypatch.setattr(planning, "WIDTHS", (16,))
    monkeypatch.setattr(run, "steps_in", lambda trainer, seconds: 12)
    monkeypatch.setattr(cifar10, "STAGED", Staged((2, 1), (3, 20)))
    monkeypatch.setattr(cifar10, "FAMILIES", {"noise": ("Gaussian noise",), "digital": ("contrast",)})
    monkeypatch.setattr(cifar10.pictures, "FAMILIES", {"noise": ("Gaussian noise",), "digital": ("contrast",)})
    for name, value in {"EXHAUSTIVE": 4, "SHIFTED_TRIALS": 2, "TIMED_IMAGES": 6, "RESULTS": tmp_path / "out"}.items():
        monkeypatch.setattr(cifar10, name, value)
    blobs(tmp_path / "cifar10-train.parquet", 90, 0)
    blobs(tmp_path / "cifar10-test.parquet", 24, 1)
    train_pair(tmp_path / "cifar10-train.parquet", tmp_path / "pair", minutes=10, validation_fraction=0.3)
    arguments = [str(tmp_path), str(tmp_path / "work"), "--model", str(tmp_path / "pair"), "--rival"]
    arguments += ["--images", "8", "--shifted", "9"]

    shifted = cifar10.Benchmark.shifted
    monkeypatch.setattr(cifar10.Benchmark, "shifted", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cifar10.main(arguments)
    monkeypatch.setattr(cifar10.Benchmark, "shifted", shifted)
    cifar10.main(arguments)

    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(report["clean"]["all"]) == {"tier 1", "hybrid", "rival"}
    assert report["clean"]["some"]["tier 2, 4 trials"]["evaluations"] == 12
    assert (
        report["clean"]["some"]["Staged (2, 1), (3, 20)"] | {"evaluations": 43.0, "ece": None, "n": 8}
        == (report["clean"]["some"]["Staged (2, 1), (3, 20)"])
    )
    assert set(report["shifted"]) == {"clean", "Gaussian noise", "contrast"} and len(report["shifted"]["contrast"]) == 5
    assert set(report["robustness"]) == {"tier 1", "hybrid", "rival", "tier 2"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "shift.png", "cost.png"}
    assert len([*(tmp_path / "work").glob("*/gallery.png")]) == 1
    assert "| hybrid | 24 |" in capsys.readouterr().out


def test_the_recipe_is_trained_with_the_term_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "WIDTHS", (16,))
    monkeypatch.setattr(run, "steps_in", lambda trainer, seconds: 6)
    monkeypatch.setattr(time_budget, "MIN_TRIALS", 32)  # however slow the machine is
    monkeypatch.setattr(cifar10_recipe, "RESULTS", tmp_path / "out")
    blobs(tmp_path / "cifar10-train.parquet", 90, 0)
    cifar10_recipe.main([str(tmp_path), str(tmp_path / "work"), "--minutes", "1"])
    report = (tmp_path / "out" / "recipe.json").read_text()
    rows = json.loads(report)["rows"]
    assert {name: row["wrong_class_weight"] for name, row in rows.items()} == cifar10_recipe.VARIANTS
    for row in rows.values():
        assert (row["steps"], row["trials"], row["minutes"]) == (6, 32, 1.0)
        assert all(row[tier][1] <= row[tier][0] <= row[tier][2] for tier in cifar10_recipe.TIERS)
    (tmp_path / "cifar10-train.parquet").unlink()  # nothing is trained again
    cifar10_recipe.main([str(tmp_path), str(tmp_path / "work"), "--minutes", "1"])
    assert (tmp_path / "out" / "recipe.json").read_text() == report
