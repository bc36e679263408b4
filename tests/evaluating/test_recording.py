"""Recordings: what is in them, that they go on where they were cut, and what they refuse."""

import copy
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hybridclf import FixedTrials, HybridClassifier, Reranker
from hybridclf.denoising.objectives import BOUNDS, OBJECTIVES
from hybridclf.denoising.weighting import uniform_weights
from hybridclf.errors import InvalidInputError
from hybridclf.evaluating.methods import hybrid_of
from hybridclf.evaluating.recording import Recording, drift_of, pixel_range, record
from hybridclf.evaluating.storage import CHUNK
from hybridclf.fitting.drift import Drift, looks_of
from hybridclf.fitting.validation import class_numbers


def recorded(world: Any, **options: Any) -> Recording:
    clf = world.clf
    y = class_numbers(world.labels, clf.classes_)
    return record(clf, clf._read(world.images), y, **({"trials": 6, "top_k": 3} | options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("cost_unit", ["row", "evaluation"])
def test_errors_are_those_of_the_reranker(
    make_world: Callable[..., Any], variance_denoiser: type, dtype: torch.dtype, cost_unit: str
) -> None:
    """Under every objective, with two prompts per class."""
    world = make_world(20, variance_denoiser, dtype=dtype, cost_unit=cost_unit)
    made, clf = recorded(world), world.clf
    assert tuple(made.errors) == tuple(OBJECTIVES | BOUNDS) and made.n_prompts == 2
    candidates = clf.classes_[made.candidates]
    for name, table in made.errors.items():
        options = {"objective": name, "weighting": uniform_weights, "random_state": clf._seed}
        stage = Reranker(clf.denoiser_, allocation=FixedTrials(6), **options)
        results = stage.rerank(world.images, candidates.tolist())
        np.testing.assert_allclose(table, np.stack([r.evidence for r in results]), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(made.t, stage.levels()[0])


def test_tier_1_is_asked_about_every_class(world: Any) -> None:
    made = recorded(world)
    own = world.clf.proposer_.predict_log_proba(world.images.reshape(120, -1))
    np.testing.assert_allclose(made.log_proba, own, rtol=1e-9)
    drift = world.clf.calibration_.drift
    flatter = drift(own, world.images)  # a few of them
    np.testing.assert_allclose(hybrid_of(world.clf, 6).prior(made.log_proba, made.looks), flatter, rtol=1e-9)
    assert not np.allclose(own, flatter)
    np.testing.assert_array_equal(made.candidates, np.argsort(-own, axis=1)[:, :3])
    assert made.labels[made.y[7]] == world.labels[7] and len(made) == 120 and made.n_trials == 6


def test_the_drift_is_fitted_on_images_of_all_classes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are sorted by class, as those of a folder are, and copies are of a few."""
    monkeypatch.setattr("hybridclf.fitting.drift.MOST", 30)
    order = np.argsort(world.labels, kind="stable")
    images, y = world.images[order], class_numbers(world.labels[order], world.clf.classes_)
    span = pixel_range(world.clf, images)
    assert span == world.clf.calibration_.drift.pixel_range
    made = drift_of(world.clf, images, y, span)
    assert made is not None and len(made.clean) == 120 and len(set(made.of)) == 30
    np.testing.assert_array_equal(made.y, y[made.of])
    assert len(set(made.y)) == 6
    np.testing.assert_allclose(made.clean, looks_of(images, *span), rtol=1e-6)
    without = made.select(np.setdiff1d(np.arange(120), made.of))
    assert len(without.clean) == 90 and Drift.fit(without, 1.0) is None  # no copy is left


def test_looks_are_measured_in_the_range_that_is_given(world: Any) -> None:
    """As those of paled images are, in the range of the images to calibrate on."""
    clf, pale = world.clf, 0.1 * world.images
    options: dict[str, Any] = {"trials": 2, "top_k": 2}
    made = record(clf, clf._read(pale), class_numbers(world.labels, clf.classes_), span=(-3.0, 3.0), **options)
    np.testing.assert_array_equal(made.looks, looks_of(pale, -3.0, 3.0))
    vectors = HybridClassifier(clf.proposer_, clf.denoiser_, image_shape=(3, 4)).fit(None, clf.classes_.tolist())
    assert pixel_range(vectors, pale) == (pale.min(), pale.max())
    vectors._takes_arrays = False  # tiers of images of any size
    assert pixel_range(vectors, pale) is None


def test_what_is_novel_is_the_classifiers_own_and_not_the_folders(world: Any, tmp_path: Path) -> None:
    """Another fit of the same tiers may find novel what the one that was recorded knew."""
    first = recorded(world, folder=tmp_path)
    other = SimpleNamespace(clf=copy.copy(world.clf), images=world.images, labels=world.labels)
    other.clf._usual = SimpleNamespace(novel=lambda images: np.arange(len(images)) % 2 == 1)
    again = recorded(other, folder=tmp_path)
    assert not first.novel.any() and again.novel.sum() == 60
    assert again.select(again.novel).novel.all() and np.array_equal(again.errors["l2"], first.errors["l2"])


def test_parts_of_a_recording(world: Any) -> None:
    made = recorded(world, top_k=2)
    some = made.select(np.arange(120) % 2 == 1).first(4)
    assert (len(some), some.n_trials) == (60, 4)
    np.testing.assert_array_equal(some.errors["l1"], made.errors["l1"][1::2, :4])
    fitting = some.for_fitting("l1")
    hit = some.hit.any(axis=1)
    assert 0 < hit.sum() < 60, "some images must have their class outside of the candidates"
    np.testing.assert_array_equal(fitting.at, np.flatnonzero(hit))
    np.testing.assert_array_equal(some.candidates[hit][np.arange(hit.sum()), fitting.y], some.y[hit])


class Interrupted(Exception):
    pass


@pytest.fixture
def interrupted(gaussian_denoiser: type) -> type:
    """A denoiser that is interrupted once it has been asked for so many evaluations."""

    class Stops(gaussian_denoiser):  # type: ignore[misc]
        limit = np.inf

        def predict(self, *arguments: Any) -> torch.Tensor:
            if self.pairs > self.limit:
                raise Interrupted
            return super().predict(*arguments)

    return Stops


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, make_world: Callable[..., Any], interrupted: type) -> None:
    world = make_world(120, interrupted)
    whole, denoiser = recorded(world), world.clf.denoiser_
    denoiser.pairs, denoiser.limit = 0, CHUNK * 6 * 3 + 1
    with pytest.raises(Interrupted):
        recorded(world, folder=tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("chunk*"))] == [
        "chunk-000000.safetensors",
        "chunk-000001.safetensors",
    ]
    denoiser.pairs, denoiser.limit = 0, np.inf
    again = recorded(world, folder=tmp_path)
    assert denoiser.pairs == (120 - 2 * CHUNK) * 6 * 3 + 3, "two chunks were there; one image is asked about to compare"
    for name, table in whole.errors.items():
        np.testing.assert_array_equal(again.errors[name], table)
    denoiser.pairs = 0
    recorded(world, folder=tmp_path)
    assert denoiser.pairs == 3


def test_a_damaged_chunk_is_recorded_again(tmp_path: Path, world: Any) -> None:
    whole = recorded(world, folder=tmp_path)
    path = tmp_path / "chunk-000001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(recorded(world, folder=tmp_path).errors["l2"], whole.errors["l2"])
    assert path.stat().st_size > 100


def test_a_recording_of_something_else_is_refused(tmp_path: Path, world: Any, gaussian_denoiser: type) -> None:
    recorded(world, folder=tmp_path)
    manifest = (tmp_path / "manifest.json").read_bytes()
    other_tier_2 = copy.copy(world.clf)
    other_tier_2.denoiser_ = gaussian_denoiser(world.clf.denoiser_.means, 0.61)
    for options, said in (
        ({"trials": 8}, "settings/trials was 6, is 8"),
        ({"top_k": 4}, "settings/candidates was 3, is 4"),
    ):
        with pytest.raises(InvalidInputError, match=rf"the recording of other settings \({said}"):
            recorded(world, folder=tmp_path, **options)
    with pytest.raises(InvalidInputError, match=r"of other images \(data/pixels changed\)\. Repeat .*--out ANOTHER"):
        recorded(world._replace(images=world.images + 0.1), folder=tmp_path)
    with pytest.raises(InvalidInputError, match=r"of other labels \(data/right labels changed\)"):
        recorded(world._replace(labels=np.roll(world.labels, 1)), folder=tmp_path)
    with pytest.raises(InvalidInputError, match=r"another model: tier 2 answered the first .*--out ANOTHER"):
        recorded(world._replace(clf=other_tier_2), folder=tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == manifest
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(InvalidInputError, match="is not empty and holds no recording"):
        recorded(world, folder=other)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(InvalidInputError, match="cannot be read as a manifest"):
        recorded(world, folder=tmp_path)


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """As on a disk with no room: files may not grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(tmp_path: Path, world: Any) -> None:
    recorded(world, folder=tmp_path)
    last = tmp_path / "chunk-000003.safetensors"
    last.unlink()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with small_files(100), pytest.raises(InvalidInputError, match="what is recorded so far is kept: make room"):
        recorded(world, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    recorded(world, folder=tmp_path)
    assert last.exists()


def test_no_right_class_among_the_candidates(world: Any) -> None:
    last = np.argsort(world.clf.proposer_.predict_proba(world.images.reshape(120, -1)), axis=1)[:, 0]
    with pytest.raises(InvalidInputError, match="no image has its right class among tier 1's first 3"):
        recorded(world._replace(labels=world.clf.classes_[last]))
