"""Fitting both tiers by one recipe: what is trained, what is used as it is, and what the seed decides."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hybridclf.data.arrays import Items
from hybridclf.errors import InvalidInputError
from hybridclf.fitting.tier_fitter import MIN_HELD_OUT, Sample, TierFitter, weight_parameter
from hybridclf.models import LateMLP, LateUNet
from hybridclf.proposer import aligned_log_proba, default_proposer, rows_of
from hybridclf.training.denoiser import TrainingConfig

CLASSES = np.array(["ant", "bee", "cow"])
Y = np.arange(30) % 3


@pytest.fixture
def recipe() -> TierFitter:
    return TierFitter(
        proposer=GaussianNB(),
        denoiser=None,
        architecture="auto",
        training=TrainingConfig(max_iter=1),
        validation_fraction=0.1,
        device=torch.device("cpu"),
        dtype=None,
    )


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 16, (30, *shape)) + Y.reshape(-1, *(1,) * len(shape))


def sample(X: np.ndarray, y: np.ndarray) -> Sample:
    return Sample(Items(X, X), y)


def weights(denoiser: Any) -> np.ndarray:
    return torch.cat([v.double().flatten() for v in denoiser.network.state_dict().values()]).numpy()


def test_both_tiers_are_trained(recipe: TierFitter) -> None:
    given = recipe.proposer
    proposer, denoiser, log = recipe.fit(sample(images(5), Y), CLASSES, seed=0)
    assert recipe.trains
    assert proposer is not given and not hasattr(given, "classes_")
    np.testing.assert_array_equal(proposer.theta_, GaussianNB().fit(images(5), CLASSES[Y]).theta_)
    assert denoiser.classes.tolist() == CLASSES.tolist()
    assert log is not None and log.n_iter == 1


class OfImages(GaussianNB):
    """A classifier that takes images as they are."""

    takes_images = True

    def fit(self, X: Any, y: Any) -> "OfImages":
        assert X.shape[1:] == (8, 8, 1)
        return super().fit(X.reshape(len(X), -1), y)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        assert X.shape[1:] == (8, 8, 1)
        return super().predict_log_proba(X.reshape(len(X), -1))


def test_a_proposer_of_images_is_fitted_on_what_it_will_be_asked_about(recipe: TierFitter) -> None:
    proposer, _, _ = replace(recipe, proposer=OfImages()).fit(sample(images(8, 8, 1), Y), CLASSES, seed=0)
    assert aligned_log_proba(proposer, images(8, 8, 1), CLASSES).shape == (30, 3)


def test_given_parts_stay_as_they_are(recipe: TierFitter, gaussian_denoiser: Callable[..., Any]) -> None:
    frozen = FrozenEstimator(GaussianNB().fit(images(5), CLASSES[Y]))
    denoiser = gaussian_denoiser(dict(zip(CLASSES.tolist(), np.eye(3, 5), strict=True)))
    both = replace(recipe, proposer=frozen, denoiser=denoiser)
    assert not both.trains
    assert both.fit(sample(images(5, seed=1), Y), CLASSES, seed=0) == (frozen, denoiser, None)
    assert replace(recipe, proposer=frozen).trains
    assert replace(recipe, denoiser=denoiser).trains


@pytest.mark.parametrize("shape", [(5,), (8, 8, 1)])
def test_the_seed_decides_everything(recipe: TierFitter, shape: tuple[int, ...]) -> None:
    forest = replace(recipe, proposer=RandomForestClassifier(3), architecture="mlp")
    first, again, other = (forest.fit(sample(images(*shape), Y), CLASSES, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(weights(first.denoiser), weights(again.denoiser))
    assert not np.array_equal(weights(first.denoiser), weights(other.denoiser))
    X = rows_of(images(*shape, seed=3))
    np.testing.assert_array_equal(first.proposer.predict_proba(X), again.proposer.predict_proba(X))
    assert not np.array_equal(first.proposer.predict_proba(X), other.proposer.predict_proba(X))


def test_training_leaves_the_global_random_state_alone(recipe: TierFitter) -> None:
    before = torch.random.get_rng_state()
    recipe.fit(sample(images(5), Y), CLASSES, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_open_random_states_are_set(recipe: TierFitter) -> None:
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(2))
    made = replace(recipe, proposer=pipeline).fit(sample(images(5), Y), CLASSES, seed=7).proposer
    assert made[-1].random_state == 7
    chosen = (
        replace(recipe, proposer=LogisticRegression(random_state=3)).fit(sample(images(5), Y), CLASSES, seed=7).proposer
    )
    assert chosen.random_state == 3


@pytest.mark.parametrize(
    ("architecture", "shape", "network", "dtype"),
    [
        ("auto", (300,), LateMLP, torch.float64),
        ("auto", (16, 16, 1), LateMLP, torch.float64),
        ("auto", (16, 16, 2), LateUNet, torch.float32),
        ("mlp", (16, 16, 2), LateMLP, torch.float64),
        ("unet", (8, 8, 1), LateUNet, torch.float32),
    ],
)
def test_architecture(
    recipe: TierFitter, architecture: str, shape: tuple[int, ...], network: type, dtype: torch.dtype
) -> None:
    denoiser = (
        replace(recipe, architecture=architecture).fit(sample(images(*shape)[:3], Y[:3]), CLASSES, seed=0).denoiser
    )
    assert type(denoiser.network) is network
    assert denoiser.dtype == next(denoiser.network.parameters()).dtype == dtype
    assert denoiser.encode(images(*shape)).shape == (30, *denoiser.shape)


def test_dtype_is_what_the_trained_denoiser_computes_in(recipe: TierFitter) -> None:
    denoiser = replace(recipe, dtype=torch.bfloat16).fit(sample(images(5), Y), CLASSES, seed=0).denoiser
    assert denoiser.dtype == next(denoiser.network.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("side", "levels"),
    [(8, 2), (10, 2), (12, 2), (14, 2), (16, 3), (28, 3)],  # down to 4, 5, 6, 7, 4 and 7 pixels
)
def test_levels_of_a_unet(recipe: TierFitter, side: int, levels: int) -> None:
    denoiser = (
        replace(recipe, architecture="unet").fit(sample(images(side, side, 1)[:3], Y[:3]), CLASSES, seed=0).denoiser
    )
    assert denoiser.network.config["levels"] == levels


@pytest.mark.parametrize(
    ("shape", "message"),
    [((64,), "image_shape=\\(H, W\\)"), ((9, 8, 1), "even sides.*9x8"), ((6, 6, 1), "at least 8 pixels, got 6x6")],
)
def test_what_a_unet_cannot_take(recipe: TierFitter, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        replace(recipe, architecture="unet").fit(sample(images(*shape), Y), CLASSES, seed=0)


@pytest.mark.parametrize("shape", [(5,), (8, 8, 2)])
def test_images_are_standardised_by_feature_or_channel(recipe: TierFitter, shape: tuple[int, ...]) -> None:
    X = images(*shape) * 10.0 ** np.arange(shape[-1])
    X[..., 0] = 7.0  # constant: centred, not blown up
    x0 = replace(recipe, architecture="mlp").fit(sample(X, Y), CLASSES, seed=0).denoiser.encode(X)
    x0 = x0.movedim(1, -1).reshape(-1, shape[-1])
    np.testing.assert_allclose(x0.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(x0.std(0, correction=0), [0, *[1] * (shape[-1] - 1)], atol=1e-9)


@pytest.mark.parametrize("unit", [1e-30, 1e-13, 1e13])
def test_the_unit_of_the_features_changes_nothing(recipe: TierFitter, unit: float) -> None:
    X = images(4)
    X[:, 0] = 0.1  # whose mean is rounded
    one, other = (recipe.fit(sample(u * X, Y), CLASSES, seed=0).denoiser.encode(u * X) for u in (1.0, unit))
    np.testing.assert_allclose(other, one, atol=1e-9)
    assert one[:, 1:].std(0, correction=0).numpy() == pytest.approx(1.0)


def test_images_that_an_mlp_alone_takes_are_said(recipe: TierFitter) -> None:
    with pytest.raises(InvalidInputError, match='got 17x17; resize the images, or give architecture="mlp"'):
        recipe.fit(sample(images(17, 17, 1), Y), CLASSES, seed=0)


def test_early_stopping_needs_images_to_look_at(recipe: TierFitter) -> None:
    few = replace(recipe, training=TrainingConfig(max_iter=10), validation_fraction=(MIN_HELD_OUT - 1) / 30)
    assert few.fit(sample(images(5), Y), CLASSES, seed=0).log.held_out == []
    enough = replace(few, validation_fraction=MIN_HELD_OUT / 30)
    assert len(enough.fit(sample(images(5), Y), CLASSES, seed=0).log.held_out) == 2


def test_a_given_number_of_passes_is_run_on_all_images(recipe: TierFitter) -> None:
    long = replace(recipe, training=TrainingConfig(max_iter=10), validation_fraction=0.5)
    log = long.fit(sample(images(5), Y), CLASSES, seed=0, n_iter=3).log
    assert (log.n_iter, len(log.loss), log.held_out) == (3, 3, [])


def test_rows_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    rows = rows_of(pixels[..., None])
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, pixels.reshape(3, 20))
    np.testing.assert_array_equal(rows_of([Image.fromarray(p) for p in pixels]), rows)


# --- scales -----------------------------------------------------------------------------------------------------------


def vectors(noise: float, n_noisy: int = 30, n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Two features that tell the classes apart, and some without meaning that vary by `noise`."""
    rng, y = np.random.default_rng(0), np.arange(n) % 3
    telling = rng.normal(size=(n, 2)) + 4 * np.stack([y == 1, y == 2], axis=1)
    return np.concatenate([telling, noise * rng.normal(size=(n, n_noisy))], axis=1), y


def test_features_of_one_unit_share_a_scale_in_every_fold(recipe: TierFitter) -> None:
    X, y = vectors(0.1)
    for index in (np.arange(90), np.arange(30)):  # thirty alone say too little
        _, denoiser, _ = recipe.fit(sample(X, y), CLASSES, seed=0, index=index)
        np.testing.assert_allclose(denoiser.scale, np.sqrt(X[index].var(axis=0).mean()))
        np.testing.assert_allclose(denoiser.encode(X[index]).double().square().sum(dim=1).mean(), 32, rtol=1e-5)


@pytest.mark.parametrize("noise", [1000.0, 1.0])
def test_other_features_have_scales_of_their_own(recipe: TierFitter, noise: float) -> None:
    """On one scale the loudest feature would hide the others; or it makes no difference."""
    X, y = vectors(noise, n_noisy=1)
    X = np.column_stack([X, np.ones(90)])
    _, denoiser, _ = recipe.fit(sample(X, y), CLASSES, seed=0)
    np.testing.assert_allclose(denoiser.scale, [*X[:, :3].std(axis=0), 1.0])


def test_copies_of_one_group_are_no_neighbours(recipe: TierFitter) -> None:
    X, y = vectors(0.1)
    rng = np.random.default_rng(1)
    many = np.repeat(X, 2, axis=0) + 1e-9 * rng.normal(size=(180, 32))  # each beside its copy, on either scale
    twice = Sample(Items(many, many), np.repeat(y, 2), None, np.repeat(np.arange(90), 2))
    _, denoiser, _ = recipe.fit(twice, CLASSES, seed=0)
    np.testing.assert_allclose(denoiser.scale, np.sqrt(many.var(axis=0).mean()))
    _, denoiser, _ = recipe.fit(replace(twice, groups=None), CLASSES, seed=0)
    np.testing.assert_allclose(denoiser.scale, many.std(axis=0))


def test_channels_of_images_have_their_own(recipe: TierFitter) -> None:
    X = images(4, 4, 2) * [1.0, 100.0]
    _, denoiser, _ = recipe.fit(sample(X, Y), CLASSES, seed=0)
    np.testing.assert_allclose(denoiser.scale, X.std(axis=(0, 1, 2)))


@pytest.mark.parametrize("steps", [(), (StandardScaler(),), (StandardScaler(), StandardScaler())])
def test_a_pipelines_classifier_gets_the_weights(recipe: TierFitter, steps: tuple[Any, ...]) -> None:
    """The default tier 1 is a pipeline, too."""
    X, weight = images(5), np.where(Y == 1, 50.0, 1.0)
    proposer = make_pipeline(*steps, LogisticRegression()) if steps else default_proposer()
    fitter = replace(recipe, proposer=proposer, denoiser=object())
    found = fitter.fit(replace(sample(X, Y), weight=weight), CLASSES, seed=0).proposer.predict_proba(X)
    plain = fitter.fit(sample(X, Y), CLASSES, seed=0).proposer.predict_proba(X)
    assert found[:, 1].mean() > plain[:, 1].mean() + 0.1


def test_a_classifier_without_weights_is_fitted_without() -> None:
    assert weight_parameter(KNeighborsClassifier()) == () == weight_parameter(make_pipeline("passthrough"))
    assert weight_parameter(make_pipeline(make_pipeline(GaussianNB()))) == ("pipeline__gaussiannb__sample_weight",)
