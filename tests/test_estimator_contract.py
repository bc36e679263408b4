"""What scikit-learn's users take for granted: metadata, tables, nested parameters, threads, failures, no harm."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, PredefinedSplit, StratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from hybridclf import FixedTrials, HybridClassifier, InvalidInputError, InvalidTypeError, Race, UncalibratedWarning
from hybridclf.fitting import calibration, recording
from hybridclf.fitting.tier_fitter import TierFitter
from hybridclf.proposer import default_proposer

QUICK = Race(max_trials=4)
RNG = np.random.default_rng(0)
N = 90
Y = np.arange(N) % 3
X = np.eye(3, 5)[Y] * 2 + RNG.standard_normal((N, 5))


@pytest.fixture(autouse=True)
def quick_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "RECORDED_TRIALS", 4)
    monkeypatch.setattr(calibration, "SHARPNESS", {0: 1.0})


@pytest.fixture
def routing() -> Iterator[None]:
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def denoiser(gaussian_denoiser: Callable[..., Any]) -> Any:
    return gaussian_denoiser(dict(enumerate(2 * np.eye(3, 5))), s=1.0)


def quick(proposer: Any = None, denoiser: Any = None, **params: Any) -> HybridClassifier:
    return HybridClassifier(
        proposer, denoiser, **{"max_iter": 1, "cv": 2, "allocation": QUICK, "random_state": 0} | params
    )


class Noting(ClassifierMixin, BaseEstimator):
    """Naive Bayes that notes what it is fitted and asked with."""

    notes: ClassVar[list[tuple[str, Any, dict[str, Any]]]] = []

    def fit(self, X: Any, y: Any, sample_weight: Any = None, colour: str | None = None) -> "Noting":
        self.notes.append(("fit", X, {"sample_weight": sample_weight, "colour": colour}))
        self.model_ = GaussianNB(var_smoothing=0.1).fit(np.asarray(X, dtype=float), y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        self.notes.append(("ask", X, {}))
        return self.model_.predict_proba(np.asarray(X, dtype=float))


@pytest.fixture
def noting() -> Noting:
    Noting.notes = []
    return Noting()


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_weights_and_further_arguments_reach_tier_1(noting: Noting, denoiser: Any) -> None:
    weight = RNG.uniform(0.5, 2, N)
    quick(noting, denoiser).fit(X, Y, sample_weight=weight, colour="red")
    fits = [(rows, extra) for kind, rows, extra in noting.notes if kind == "fit"]
    assert [len(rows) for rows, _ in fits] == [45, 45, 90]
    for rows, extra in fits:
        assert extra["colour"] == "red"
        position = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in rows]
        np.testing.assert_array_equal(extra["sample_weight"], weight[position])


def test_balanced_weights_are_scikit_learns(noting: Noting, denoiser: Any) -> None:
    kept = (Y > 0) | (np.arange(N) < 15)
    quick(noting, denoiser, class_weight="balanced").fit(X[kept], Y[kept])
    _, _, extra = [note for note in noting.notes if note[0] == "fit"][-1]
    expected = sklearn.utils.compute_sample_weight("balanced", Y[kept])
    np.testing.assert_allclose(extra["sample_weight"], expected)


def test_balanced_weights_leave_out_items_of_weight_zero(denoiser: Any) -> None:
    kept = np.arange(N) % 3 > 0
    kept[Y == 0] &= np.arange(N)[Y == 0] < 40
    frozen = FrozenEstimator(GaussianNB().fit(X, Y))
    zero = quick(frozen, denoiser, class_weight="balanced").fit(X, Y, sample_weight=kept.astype(float))
    alone = quick(frozen, denoiser, class_weight="balanced").fit(X[kept], Y[kept])
    np.testing.assert_array_equal(zero.predict_proba(X), alone.predict_proba(X))
    for weights in ({0: 0, 1: 0, 2: 0}, {0: -1.0, 1: 1.0, 2: 1.0}):
        with pytest.raises(InvalidInputError, match="class_weight must"):
            quick(frozen, denoiser, class_weight=weights).fit(X, Y)


def test_gaps_among_groups_are_groups_of_their_own(denoiser: Any) -> None:
    frozen = FrozenEstimator(GaussianNB().fit(X, Y))
    numbers, *gaps = np.arange(N), np.full(N, None), np.full(N, np.nan)
    alone = quick(frozen, denoiser).fit(X, Y, groups=numbers).worth_
    again = quick(frozen, denoiser).fit(X, Y).calibrate(X, Y, groups=numbers).worth_
    for groups in gaps:
        clf = quick(frozen, denoiser).fit(X, Y, groups=groups)
        assert clf.worth_ == alone and clf.calibrate(X, Y, groups=groups).worth_ == again


def test_a_rare_class_gains_by_balanced_weights(denoiser: Any) -> None:
    rare = (Y > 0) | (np.arange(N) < 12)
    plain, balanced = (
        quick(LogisticRegression(), denoiser, class_weight=w).fit(X[rare], Y[rare]).predict_proba(X)[:, 0].mean()
        for w in (None, "balanced")
    )
    assert balanced > 1.2 * plain


def test_groups_are_routed_to_the_splitter(noting: Noting, denoiser: Any, routing: None) -> None:
    groups = np.arange(N) // 9
    clf = quick(noting.set_fit_request(sample_weight=True, colour=True), denoiser, cv=GroupKFold(5))
    clf.set_fit_request(sample_weight=True).fit(X, Y, groups=groups, sample_weight=np.ones(N), colour="red")
    assert clf.calibration_ is not None and clf.calibration_.n_images == N
    fits = [(rows, extra) for kind, rows, extra in noting.notes if kind == "fit"]
    for rows, extra in fits[:-1]:
        inside = {int(groups[np.flatnonzero((row == X).all(axis=1))[0]]) for row in rows}
        assert len(rows) == 9 * len(inside)  # no group is torn apart
        assert extra["colour"] == "red" and len(extra["sample_weight"]) == len(rows)


def test_metadata_go_through_a_grid_search(noting: Noting, denoiser: Any, routing: None) -> None:
    clf = quick(noting.set_fit_request(sample_weight=True), denoiser).set_fit_request(sample_weight=True)
    clf.set_score_request(sample_weight=False)
    search = GridSearchCV(clf, {"top_k": [2, 3]}, cv=GroupKFold(2))
    search.fit(X, Y, groups=np.arange(N) // 3, sample_weight=np.ones(N))
    assert all(extra["sample_weight"] is not None for kind, _, extra in noting.notes if kind == "fit")


def test_weights_of_another_name_go_through_scikit_learns_tools(noting: Noting, denoiser: Any, routing: None) -> None:
    """By the name that the classifier requests, as if they had been given to it alone."""
    weight, groups = np.where(Y == 0, 5.0, 1.0), np.arange(N) // 3
    clf = quick(noting.set_fit_request(sample_weight=True), denoiser, cv=GroupKFold(2))
    clf.set_fit_request(sample_weight="importance", groups="film").set_score_request(sample_weight=False)
    expected = clone(clf).fit(X, Y, sample_weight=weight, groups=groups).predict_proba(X)
    params = {"importance": weight, "film": groups}
    piped = make_pipeline(FunctionTransformer(), clf).fit(X, Y, **params)
    search = GridSearchCV(clf, {"top_k": [None]}, cv=2).fit(X, Y, **params)
    for found in (piped, search):
        np.testing.assert_array_equal(found.predict_proba(X), expected)
    noting.notes.clear()
    cross_validate(clf, X, Y, params=params, cv=2, error_score="raise")
    fits = [extra["sample_weight"] for kind, _, extra in noting.notes if kind == "fit"]
    assert len(fits) == 6 and all({*given} == {1.0, 5.0} for given in fits)


def test_tier_1_may_have_weights_of_its_own(noting: Noting, denoiser: Any, routing: None) -> None:
    """They are multiplied by those of the classes, as the classifier's are, and nothing is warned of."""
    clf = quick(noting.set_fit_request(sample_weight="own"), denoiser, class_weight={0: 2.0, 1: 1.0, 2: 1.0})
    clf.set_fit_request(sample_weight=True).fit(X, Y, sample_weight=np.ones(N), own=np.arange(1.0, N + 1))
    _, _, extra = [note for note in noting.notes if note[0] == "fit"][-1]
    np.testing.assert_array_equal(extra["sample_weight"], np.arange(1.0, N + 1) * np.where(Y == 0, 2, 1))


def test_copies_of_an_image_are_held_out_together() -> None:
    """A tier 1 that knows its training images by heart is not taken to know the copies; equal vectors are no copies."""
    images, y = load_digits(return_X_y=True)
    images, y = np.tile(images[:60].reshape(-1, 8, 8), (2, 1, 1)), np.tile(y[:60], 2)
    y[:60] = y[60:] = np.random.default_rng(0).permutation(y[:60])  # nothing else is to be known
    denoiser = HybridClassifier.from_pretrained("digits").denoiser_
    clf = quick(KNeighborsClassifier(1), denoiser, cv=3).fit(images, y)
    assert clf.worth_ is not None and (clf.worth_.n_images, clf.worth_.n_groups) == (120, 60)
    assert clf.worth_.tier_1_accuracy.value < 0.5
    with pytest.raises(
        ValueError, match="'groups' parameter should not be None"
    ):  # copies are none of a splitter's own
        quick(KNeighborsClassifier(1), denoiser, cv=GroupKFold(2)).fit(images, y)
    table = quick(KNeighborsClassifier(1), None, cv=3).fit(images.reshape(120, -1), y)
    assert (
        table.worth_ is not None and table.worth_.n_groups in (120, None) and table.worth_.tier_1_accuracy.value > 0.5
    )


def test_splits_of_an_iterator_serve_one_fit(denoiser: Any) -> None:
    """As in scikit-learn's searches; the next one says so."""
    splits = list(StratifiedKFold(3).split(X, Y))
    expected = quick(GaussianNB(), denoiser, cv=splits).fit(X, Y).predict_proba(X)
    clf = quick(GaussianNB(), denoiser, cv=iter(splits))
    np.testing.assert_array_equal(clf.fit(X, Y).predict_proba(X), expected)
    with pytest.raises(InvalidInputError, match="an iterator is empty once it was used"):
        clf.fit(X, Y)


def test_routing_without_metadata(denoiser: Any, routing: None) -> None:
    assert quick(GaussianNB(), denoiser).fit(X, Y).score(X, Y) > 0.5
    assert quick(None, denoiser, cv=GroupKFold(2)).fit(X, Y, groups=np.arange(N) // 3).calibration_ is not None


def test_weights_go_to_tier_1_where_it_requests_them(noting: Noting, denoiser: Any, routing: None) -> None:
    weight = np.where(Y == 0, 100.0, 1.0)
    clf = quick(noting.set_fit_request(sample_weight=False), denoiser).set_fit_request(sample_weight=True)
    with pytest.warns(UserWarning, match="Noting does not take sample_weight"):
        clf.fit(X, Y, sample_weight=weight)
    assert all(extra["sample_weight"] is None for kind, _, extra in noting.notes if kind == "fit")
    default = quick(None, denoiser).set_fit_request(sample_weight=True).fit(X, Y, sample_weight=weight)
    expected = default_proposer().fit(X, Y, sample_weight=weight).predict_proba(X)
    np.testing.assert_allclose(default.proposer_.predict_proba(X), expected)


def test_a_tier_1_without_weights_is_warned_of(denoiser: Any) -> None:
    with pytest.warns(UserWarning, match="KNeighborsClassifier does not take sample_weight"):
        quick(KNeighborsClassifier(), denoiser, class_weight="balanced").fit(X, Y)


def test_splits_that_were_given_keep_their_rows_beside_weights_of_0(noting: Noting, denoiser: Any) -> None:
    weight, half = np.where(np.arange(N) < 15, 0.0, 1.0), np.arange(N) // 45
    for cv in ([(np.arange(45, N), np.arange(45)), (np.arange(45), np.arange(45, N))], PredefinedSplit(half)):
        noting.notes.clear()
        quick(noting, denoiser, cv=cv).fit(X, Y, sample_weight=weight)
        fits = [rows for kind, rows, _ in noting.notes if kind == "fit"]
        for rows, expected in zip(fits, (X[45:], X[15:45], X[15:]), strict=True):
            np.testing.assert_array_equal(rows, expected)


def test_nothing_is_learned_from_what_weighs_nothing(denoiser: Any) -> None:
    images = np.clip(RNG.random((N, 6, 6)), 0, 1)
    white = np.concatenate([images, np.full((2, 6, 6), 255.0)])
    labels, weight = np.append(Y, [0, 1]), np.append(np.ones(N), [0, 0])
    with_them = quick(GaussianNB()).fit(white, labels, sample_weight=weight)
    without = quick(GaussianNB()).fit(images, Y)
    assert with_them.pixel_range_ == without.pixel_range_
    np.testing.assert_array_equal(with_them.predict_proba(images), without.predict_proba(images))


def test_arguments_that_nothing_takes(denoiser: Any) -> None:
    frozen = FrozenEstimator(GaussianNB().fit(X, Y))
    with pytest.raises(InvalidTypeError, match="fit got sample_weights, gruops, which nothing takes"):
        quick(frozen, denoiser).fit(X, Y, sample_weights=np.ones(N), gruops="x")
    with pytest.raises(InvalidTypeError, match="fit got colour"):
        quick(frozen, denoiser).fit(None, [0, 1, 2], colour="red")


def test_class_weights_count_in_calibrate(denoiser: Any) -> None:
    frozen, weights = FrozenEstimator(GaussianNB().fit(X, Y)), {0: 50.0, 1: 1.0, 2: 1.0}
    fitted = [quick(frozen, denoiser, class_weight=w).fit(X, Y) for w in (weights, None)]
    again = [clf.fusion_ for clf in fitted]
    for clf, before in zip(fitted, again, strict=True):
        assert clf.calibrate(X, Y).fusion_.error_weight == pytest.approx(before.error_weight)
    assert again[0].error_weight != pytest.approx(again[1].error_weight)
    only = quick(frozen, denoiser, class_weight={0: 1.0, 1: 1.0, 2: 0.0}).fit(X, Y)
    assert only.calibrate(X, Y).calibration_.n_images == (Y < 2).sum()


def test_a_calibration_that_is_interrupted_leaves_the_one_before(
    denoiser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clf = quick(GaussianNB(), denoiser).fit(X, Y)
    before = dict(vars(clf))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hybridclf.estimator.fit.calibrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clf.calibrate(X, Y)
    assert vars(clf) == before


def test_rejected_images_score_as_wrong() -> None:
    digits = load_digits()
    clf = HybridClassifier.from_pretrained("digits").set_params(reject=0.05)
    X, y = digits.images[:40], digits.target[:40]
    results = clf.rerank(np.concatenate([X[:39], np.full((1, 8, 8), 16.0)]))
    assert results[-1].rejected
    mixed = np.concatenate([X[:39], np.full((1, 8, 8), 16.0)])
    accepted = [not result.rejected for result in results]
    right = clf.set_params(reject=None).predict(mixed) == y
    assert clf.set_params(reject=0.05).score(mixed, y) == pytest.approx(np.mean(right & accepted))
    weight = np.arange(40.0)
    assert clf.score(mixed, y, weight) == pytest.approx(np.average(right & accepted, weights=weight))
    alone = clf.predict(mixed[accepted])
    assert alone.dtype == y.dtype  # no label is None


@pytest.mark.parametrize("steps", [(), (FunctionTransformer(),)])
def test_margins_of_pairs_of_classes_are_refused(steps: tuple[Any, ...], denoiser: Any) -> None:
    pairs = SVC(decision_function_shape="ovo")
    frozen = FrozenEstimator((make_pipeline(*steps, pairs) if steps else pairs).fit(X, Y))
    with pytest.raises(InvalidInputError, match="a margin for each pair of classes; set its decision_function_shape"):
        quick(frozen, denoiser).fit(X, Y)


def test_too_few_columns_are_refused(denoiser: Any) -> None:
    class Short(GaussianNB):
        def predict_log_proba(self, X: Any) -> np.ndarray:
            return super().predict_log_proba(X)[:, :2]

    with pytest.raises(InvalidInputError, match=r"in the shape \(2, 2\); one column for each of its 3 classes_"):
        quick(FrozenEstimator(Short().fit(X, Y)), denoiser).fit(X, Y)


@pytest.mark.parametrize("weight", [-np.ones(N), np.zeros(N), np.full(N, np.nan), ["heavy"] * N, np.ones((N, 2))])
def test_weights_that_cannot_be_used(weight: Any, denoiser: Any) -> None:
    with pytest.raises(InvalidInputError, match="sample_weight must be one number"):
        quick(GaussianNB(), denoiser).fit(X, Y, sample_weight=weight)


def test_metadata_of_another_length(denoiser: Any) -> None:
    for name in ("sample_weight", "groups"):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            quick(GaussianNB(), denoiser).fit(X, Y, **{name: np.ones(N - 1)})


# --- tables -----------------------------------------------------------------------------------------------------------


def test_tier_1_gets_the_table_as_it_was_given(noting: Noting, denoiser: Any) -> None:
    frame = pd.DataFrame(X.astype(np.float32), columns=list("abcde"))
    quick(noting, denoiser).fit(frame, Y).predict(frame)
    for _, rows, _ in noting.notes:
        assert isinstance(rows, pd.DataFrame)
        assert rows.columns.tolist() == list("abcde") and set(rows.dtypes) == {np.dtype(np.float32)}
    quick(noting, denoiser).fit(X.astype(np.float32), Y).predict(X.astype(np.float32))
    assert noting.notes[-1][1].dtype == np.float32


def test_columns_by_name_and_text_columns() -> None:
    frame = pd.DataFrame(X, columns=list("abcde")).assign(kind=np.array(["ox", "hen", "pig"])[Y])
    columns = make_column_transformer((OneHotEncoder(), ["kind"]), ("passthrough", ["a", "b"]))
    clf = quick(make_pipeline(columns, LogisticRegression())).fit(frame, Y)
    assert clf.n_features_in_ == 6 and clf.image_shape_ == (8,)  # five numbers and three values
    assert clf.score(frame, Y) == 1.0
    with pytest.raises(ValueError, match="feature names should match"):
        clf.predict(frame[["kind", *"abcde"]])


def test_gaps_reach_a_proposer_that_takes_them(noting: Noting) -> None:
    gappy = np.where(RNG.uniform(size=X.shape) < 0.1, np.nan, X)
    forest = quick(HistGradientBoostingClassifier(max_iter=5)).fit(gappy, Y)
    assert forest.score(gappy, Y) > 0.8
    assert quick("sklearn:HistGradientBoostingClassifier").fit(gappy, Y).score(gappy, Y) > 0.8
    assert np.isfinite(forest.predict_proba(gappy)).all()
    complete = quick(RandomForestClassifier(5)).fit(X, Y)  # gaps that come later
    assert np.isfinite(complete.predict_proba(gappy)).all()
    with pytest.raises(ValueError, match="contains NaN"):
        quick(LogisticRegression()).fit(gappy, Y)
    with pytest.raises(ValueError, match="contains NaN"):
        quick().fit(X, Y).predict(gappy)


@pytest.mark.parametrize(
    "proposer", [None, LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())]
)
def test_input_that_is_no_table_is_refused_as_scikit_learn_does(proposer: Any, denoiser: Any) -> None:
    """Also where tier 1 may take gaps, as a pipeline may, so that tables are read in another way."""
    clf = quick(proposer, denoiser).fit(X, Y)
    for method in (lambda bad: clone(clf).fit(bad, Y), clf.predict):
        with pytest.raises(TypeError, match="Sparse data was passed"):
            method(csr_matrix(X))
        with pytest.raises(ValueError, match="Complex data not supported"):
            method(X + 1j)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        clf.predict(X[0])
    with pytest.raises(ValueError, match="X has 4 features, but HybridClassifier is expecting 5"):
        clf.predict(X[:, :4])


# --- proposers that are no BaseEstimator ------------------------------------------------------------------------------


class Foreign:
    """A classifier with scikit-learn's methods and none of its classes, as CatBoost's."""

    def __init__(self, smoothing: float = 0.1) -> None:
        self.smoothing = smoothing

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"smoothing": self.smoothing}

    def set_params(self, **params: Any) -> "Foreign":
        self.smoothing = params.get("smoothing", self.smoothing)
        return self

    def fit(self, X: Any, y: Any) -> "Foreign":
        self.model = GaussianNB(var_smoothing=self.smoothing).fit(X, y)
        self.classes_ = self.model.classes_
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return self.model.predict_proba(X)


class Stubborn:
    """A classifier that cannot be cloned."""

    def fit(self, X: Any, y: Any) -> "Stubborn":
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.ones((len(X), 3)) / 3


def test_what_has_fit_and_get_params_is_cloned_and_fitted(denoiser: Any) -> None:
    given = Foreign()
    clf = quick(given, denoiser).fit(X, Y)
    assert not hasattr(given, "model") and clf.proposer_ is not given
    np.testing.assert_allclose(clf.proposer_.model.theta_, GaussianNB(var_smoothing=0.1).fit(X, Y).theta_)


def test_what_cannot_be_cloned_is_refused(denoiser: Any) -> None:
    with pytest.raises(InvalidTypeError, match=r"has no get_params; let its class .* or fit it and pass Frozen"):
        quick(Stubborn(), denoiser).fit(X, Y)


# --- parameters -------------------------------------------------------------------------------------------------------


def test_nested_parameters_of_the_defaults() -> None:
    clf = HybridClassifier().set_params(proposer__C=0.1, allocation__confidence=0.9)
    assert clf.proposer[-1].C == 0.1
    assert clf.allocation == Race(confidence=0.9)
    assert clone(clf).set_params(allocation__max_trials=3).allocation == Race(0.9, 3)
    params = HybridClassifier(allocation=FixedTrials(3)).get_params()
    assert params["allocation__n"] == 3 and params["proposer__C"] == 1.0
    with pytest.raises(InvalidInputError, match="has no 'patience'; it has confidence, max_trials"):
        clf.set_params(allocation__patience=3)
    with pytest.raises(ValueError, match="Invalid parameter 'alpha'"):
        HybridClassifier().set_params(proposer__alpha=3)


def test_a_tier_that_is_set_after_fit_is_not_taken_for_a_fitted_one(denoiser: Any, tmp_path: Any) -> None:
    clf = quick(GaussianNB(), denoiser).fit(X, Y)
    clf.set_params(**clf.get_params()).calibrate(X, Y)
    clf.set_params(proposer=FrozenEstimator(LogisticRegression().fit(X, Y)))
    for use in (lambda: clf.calibrate(X, Y), lambda: clf.save(tmp_path / "model")):
        with pytest.raises(
            InvalidInputError, match="proposer was set after `fit`, but the tiers are still those of then"
        ):
            use()
    clf.fit(X, Y).calibrate(X, Y)


def test_a_trained_tier_1_is_asked_before_a_denoiser_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TierFitter, "_train", lambda *_: pytest.fail("trained"))
    small = FrozenEstimator(GaussianNB().fit(RNG.random((N, 25)), Y))
    with pytest.raises(InvalidInputError, match=r"25 features.*it is given the flat pixels of images of 6x6x1"):
        quick(small).fit(RNG.random((N, 6, 6)), Y)


def test_a_grid_over_the_defaults(denoiser: Any) -> None:
    grid = {"proposer__C": [0.01, 1.0], "allocation__confidence": [0.8, 0.99]}
    search = GridSearchCV(quick(None, denoiser, allocation=None), grid, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_estimator_.allocation.confidence == search.best_params_["allocation__confidence"]


def test_clones_share_a_given_denoiser(denoiser: Any) -> None:
    clf = quick(GaussianNB(), denoiser)
    copy = clone(clf)
    assert copy.denoiser is denoiser
    assert copy.proposer is not clf.proposer
    assert copy.get_params(deep=False).keys() == clf.get_params(deep=False).keys()
    network = torch.nn.Linear(5, 3)
    for proposer in (network, network.forward, None, "sklearn:GaussianNB"):
        assert clone(quick(proposer, denoiser)).proposer is proposer


def test_parameters_set_after_fit_are_checked_or_wait_for_the_next(denoiser: Any) -> None:
    clf = quick(GaussianNB(var_smoothing=5.0), denoiser).fit(X, Y)
    before = clf.predict_proba(X)
    clf.set_params(objective="l1", weighting="uniform", class_weight="balanced", cv=3)
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    with pytest.raises(InvalidInputError, match="top_k"):
        clone(clf).fit(X, Y).set_params(top_k=0).predict(X)
    for name, value in {"top_k": "5", "allocation": "race", "batch_size": -1}.items():
        with pytest.raises((InvalidInputError, InvalidTypeError), match=name):
            clone(clf).fit(X, Y).set_params(**{name: value}).predict(X)


# --- threads and failures ---------------------------------------------------------------------------------------------


def test_fits_in_threads_are_those_of_one_thread() -> None:
    alone = [quick(random_state=seed).fit(X, Y).predict_proba(X) for seed in range(3)]
    made: dict[int, np.ndarray] = {}

    def fit(seed: int) -> None:
        made[seed] = quick(random_state=seed).fit(X, Y).predict_proba(X)

    threads = [threading.Thread(target=fit, args=(seed,)) for seed in range(3)]
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody touched torch's global generator
    for seed, expected in enumerate(alone):
        np.testing.assert_array_equal(made[seed], expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_fit_works_without_gradients_around_it(mode: Callable[[], Any]) -> None:
    expected = quick().fit(X, Y).predict_proba(X)
    with mode():
        made = quick().fit(X, Y)
        np.testing.assert_array_equal(made.predict_proba(X), expected)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_fit_that_fails_leaves_the_old_state(error: type[BaseException], denoiser: Any) -> None:
    class Failing(GaussianNB):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            raise error("no")

    clf = quick(GaussianNB(), denoiser).fit(X, Y)
    before, expected = dict(vars(clf)), clf.predict_proba(X)
    clf.set_params(proposer=Failing())
    with pytest.raises(error):
        clf.fit(np.column_stack([X, X]), np.where(Y == 2, 7, Y))
    assert {name for name, value in vars(clf).items() if value is not before.get(name)} == {"proposer", "_tiers_set"}
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    unfitted = quick(Failing(), denoiser)
    with pytest.raises(error):
        unfitted.fit(X, Y)
    assert not [name for name in vars(unfitted) if name.endswith("_")]


# --- do no harm -------------------------------------------------------------------------------------------------------


def short_sighted() -> Any:
    """A tier 1 that looks at the first of the five numbers alone."""
    return make_pipeline(make_column_transformer(("passthrough", [0])), LogisticRegression())


def test_tier_2_is_off_where_held_out_images_say_that_it_does_not_pay(gaussian_denoiser: Callable[..., Any]) -> None:
    wrong = gaussian_denoiser(dict(enumerate(2 * np.eye(3, 5)[[1, 2, 0]])), s=1.0)  # takes each class for another
    clf = quick(LogisticRegression(), wrong).fit(X, Y)
    assert clf.worth_ is not None and not clf.worth_.pays
    assert str(clf.worth_).startswith("Re-ranking does not pay here and is off, use tier 1")
    np.testing.assert_array_equal(clf.predict(X), clf.proposer_.predict(X))
    assert {(r.stopped_by, r.evaluations) for r in clf.rerank(X)} == {("off", 0)}


def test_where_tier_2_is_off_input_far_outside_keeps_tier_1s_own_probabilities(
    gaussian_denoiser: Callable[..., Any],
) -> None:
    """Their temperature was fitted on other input: sharpened, a wrong answer would cost much more."""
    wrong = gaussian_denoiser(dict(enumerate(2 * np.eye(3, 5)[[1, 2, 0]])), s=1.0)
    clf = quick(LogisticRegression(C=0.01), wrong).fit(X, Y)
    assert not clf.fusion_.pays and clf.fusion_.prior_alone > 1.2
    own = clf.proposer_.predict_proba(X)
    usual = np.array([result.stopped_by == "off" for result in clf.rerank(X)])
    np.testing.assert_allclose(clf.predict_proba(X)[usual], clf.fusion_.prior(np.log(own[usual])))
    far = X + 15
    assert {(r.stopped_by, r.evaluations) for r in clf.rerank(far)} == {("novel", 0)}
    np.testing.assert_allclose(clf.predict_proba(far), clf.proposer_.predict_proba(far))


def test_worth_is_of_images_that_neither_tier_saw(denoiser: Any) -> None:
    weak = FrozenEstimator(short_sighted().fit(X, Y))
    clf = quick(weak, denoiser).fit(X, Y)
    worth = clf.worth_
    assert worth is not None and worth.pays and worth.n_images == N
    assert worth.tier_1_accuracy.value == pytest.approx(weak.score(X, Y))
    assert worth.hybrid_accuracy.value == pytest.approx(clf.score(X, Y), abs=0.05)
    assert worth.fixed - worth.broken == pytest.approx(worth.accuracy_gain.value * N)


@pytest.mark.parametrize("change", [lambda x: x * 1000, lambda x: x * 0 - 999, lambda x: x + 15, lambda x: x - 15])
def test_input_far_outside_of_what_was_seen_gets_tier_1s_answer(change: Callable[[Any], Any], denoiser: Any) -> None:
    clf = quick(short_sighted(), denoiser).fit(X, Y)
    assert clf.worth_ is not None and clf.worth_.pays
    far = X.copy()
    far[:, 4] = change(far[:, 4])
    results = clf.rerank(far)
    assert {(r.stopped_by, r.evaluations) for r in results} == {("novel", 0)}
    np.testing.assert_array_equal(clf.predict(far), clf.proposer_.predict(far))
    usual = [r.stopped_by for r in clf.rerank(X)]
    assert usual.count("novel") <= 0.05 * N


def test_near_duplicates_in_one_group_do_not_make_tier_1_over_sure() -> None:
    copies = np.repeat(X, 4, axis=0) + 0.02 * RNG.standard_normal((4 * N, 5))
    y, groups = np.repeat(RNG.permutation(Y), 4), np.repeat(np.arange(N), 4)  # there is nothing to learn
    fresh, fresh_y = RNG.standard_normal((300, 5)), np.arange(300) % 3
    loss = {}
    for name, metadata in {"grouped": {"groups": groups}, "torn": {}}.items():
        clf = quick(RandomForestClassifier(20, random_state=0)).fit(copies, y, **metadata)
        loss[name] = -np.log(np.maximum(clf.predict_proba(fresh)[np.arange(300), fresh_y], 1e-15)).mean()
    assert loss["grouped"] < 1.2 < loss["torn"]  # log 3 is chance


# --- saved ------------------------------------------------------------------------------------------------------------


def test_what_fit_learned_survives_saving(tmp_path: Any) -> None:
    frame = pd.DataFrame(X, columns=list("abcde")).assign(kind=np.array(["ox", None, "pig"])[Y])
    settings: dict[str, Any] = {"cv": GroupKFold(2), "class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}
    columns = make_column_transformer((OneHotEncoder(), ["kind"]), ("passthrough", ["a", "b"]))
    clf = quick(make_pipeline(columns, RandomForestClassifier(5)), **settings)
    clf.fit(frame, Y, groups=np.arange(N) // 5).save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert (loaded.worth_, loaded.fusion_) == (clf.worth_, clf.fusion_)
    assert loaded.class_weight == settings["class_weight"]
    np.testing.assert_array_equal(loaded.predict_proba(frame), clf.predict_proba(frame))


def test_tier_2_stays_off_in_a_saved_model(tmp_path: Any) -> None:
    with pytest.warns(UncalibratedWarning):
        clf = quick().fit(X[:3], Y[:3])
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert loaded.worth_ is None and not loaded.fusion_.pays
    assert {r.stopped_by for r in loaded.rerank(X)} == {"off"}


def test_parameters_can_be_set_again_and_as_they_are() -> None:
    clf = HybridClassifier().set_params(proposer__C=0.1).set_params(proposer__C=0.2)
    assert clf.proposer[-1].C == 0.2
    assert clf.set_params(proposer__logisticregression__C=0.3).proposer[-1].C == 0.3
    same = HybridClassifier()
    same.set_params(**same.get_params())
    assert same.proposer is None and same.allocation is None
    own = HybridClassifier(make_pipeline(StandardScaler(), LogisticRegression()))
    own.set_params(**own.get_params()).set_params(proposer__verbose=True, proposer__logisticregression=SVC())
    assert own.proposer.verbose and isinstance(own.proposer[-1], SVC)


def test_a_calibrated_classifier_compares_as_many_classes_as_it_was_calibrated_with(denoiser: Any) -> None:
    clf = quick(GaussianNB(), denoiser).fit(X, Y)
    flat = np.full((2, 100), 0.01)
    assert [len(c) for c in clf._shortlist(flat)] == [20, 20]
    assert [len(c) for c in clf.set_params(top_k=30)._shortlist(flat)] == [30, 30]
    clf.calibration_ = None
    assert [len(c) for c in clf.set_params(top_k=None)._shortlist(flat)] == [100, 100]
