"""Tier 1: any classifier's answer as log-probabilities, and the candidates that come of it."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit
from sklearn.base import BaseEstimator
from sklearn.datasets import make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from hybridclf.errors import InvalidInputError, InvalidTypeError, UnknownSpecError
from hybridclf.proposer import (
    LOG_FLOOR,
    OPEN_MASS,
    FunctionProposer,
    column_of,
    default_proposer,
    is_trained,
    log_proba,
    resolve_proposer,
    shortlist,
    with_labels,
)

X, Y = make_blobs(120, 5, centers=4, cluster_std=3.0, random_state=0)


class OnlyProba:
    classes_ = np.array([0, 1])

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.array([[0.25, 0.75], [0.0, 1.0]])


@pytest.mark.parametrize(
    "classifier", [default_proposer(), GaussianNB(), RandomForestClassifier(5, random_state=0), KNeighborsClassifier(3)]
)
def test_log_proba_is_the_logarithm_of_the_classifiers_probabilities(classifier: Any) -> None:
    values = log_proba(classifier.fit(X, Y), X)
    np.testing.assert_allclose(np.exp(values), classifier.predict_proba(X), atol=1e-12)
    assert values.min() >= LOG_FLOOR


def test_zero_probability_becomes_the_floor() -> None:
    np.testing.assert_allclose(log_proba(OnlyProba(), X), [np.log([0.25, 0.75]), [LOG_FLOOR, 0]])
    forest = RandomForestClassifier(3, random_state=0).fit(X, Y)
    assert (forest.predict_proba(X) == 0).any()
    assert (log_proba(forest, X) == LOG_FLOOR).any()


@pytest.mark.parametrize("classifier", [LinearSVC(), RidgeClassifier()])
def test_margins_become_log_probabilities_in_the_same_order(classifier: Any) -> None:
    values = log_proba(classifier.fit(X, Y), X)
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1)
    margin = classifier.decision_function(X)
    np.testing.assert_allclose(np.diff(values, axis=1), np.diff(margin, axis=1), atol=1e-9)


def test_a_binary_margin_is_a_log_odds() -> None:
    classifier = LinearSVC().fit(X, Y > 1)
    values = log_proba(classifier, X)
    np.testing.assert_allclose(np.exp(values[:, 1]), expit(classifier.decision_function(X)))
    np.testing.assert_array_equal(classifier.classes_[values.argmax(axis=1)], classifier.predict(X))


def test_columns_follow_the_classes_that_are_asked_for() -> None:
    classifier = GaussianNB().fit(X, np.array(["cow", "ant", "dog", "bee"])[Y])
    assert column_of(classifier, ["dog", "ant"]).tolist() == [3, 0]
    with pytest.raises(InvalidInputError, match=r"label 'elk' is not in the proposer's classes \['ant'"):
        column_of(classifier, np.array(["ant", "elk"]))


def test_shortlist_of_a_given_length_is_the_best_first() -> None:
    prior = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert [c.tolist() for c in shortlist(prior, 2)] == [[1, 2], [0, 2]]
    assert [c.tolist() for c in shortlist(prior, 9)] == [[1, 2, 0], [0, 2, 1]]


def test_open_shortlist_is_the_shortest_that_leaves_little_outside() -> None:
    prior = np.random.default_rng(0).dirichlet(np.full(8, 0.1), size=200)
    for p, chosen in zip(prior, shortlist(prior, None), strict=True):
        assert p[chosen].sum() >= 1 - OPEN_MASS - 1e-12
        assert p[chosen[:-1]].sum() < 1 - OPEN_MASS
        np.testing.assert_array_equal(chosen, np.argsort(-p)[: len(chosen)])


def test_open_shortlist_is_never_longer_than_there_are_classes() -> None:
    prior = np.full((1, 3), 1 / 3 - 1e-3)  # rounding may leave a row short of one
    assert shortlist(prior, None)[0].tolist() == [0, 1, 2]


def test_resolve_proposer_leaves_the_users_object_alone() -> None:
    given = LogisticRegression(C=3.0)
    made = resolve_proposer(given)
    assert made is not given
    assert made.C == 3.0
    frozen = FrozenEstimator(GaussianNB().fit(X, Y))
    assert resolve_proposer(frozen).estimator is frozen.estimator


def test_resolve_proposer_copies_by_the_objects_own_rule() -> None:
    class Zeroshot(OnlyProba):
        def __sklearn_clone__(self) -> "Zeroshot":
            return Zeroshot()

    plain, own = OnlyProba(), Zeroshot()
    assert resolve_proposer(plain) is plain
    assert resolve_proposer(own) is not own


def test_resolve_proposer_by_default_and_by_name() -> None:
    assert isinstance(resolve_proposer(None)[-1], LogisticRegression)
    assert isinstance(resolve_proposer("sklearn:GaussianNB"), GaussianNB)
    with pytest.raises(UnknownSpecError, match="'nothing:here' is not a known proposer"):
        resolve_proposer("nothing:here")


@pytest.mark.parametrize("proposer", [LinearRegression(), LogisticRegression, 3, object()])
def test_what_is_no_classifier(proposer: Any) -> None:
    with pytest.raises(InvalidTypeError, match="proposer must be a classifier"):
        resolve_proposer(proposer)


# --- functions --------------------------------------------------------------------------------------------------------


def uniform(images: Any) -> np.ndarray:
    return np.full((len(images), 4), -np.log(4))


@pytest.mark.parametrize("kind", [np.float32, torch.float64, torch.bfloat16, list])
def test_a_function_proposes(kind: Any) -> None:
    """Arrays, tensors of any type, even with gradients, and lists."""
    half, quarter = np.log(0.5), np.log(0.25)
    wanted = np.array([[quarter, quarter, -3.0, half - 3.0], [-np.inf, half, half, -np.inf]])

    def answer(images: Any) -> Any:
        assert images is X
        if kind is list:
            return wanted.tolist()
        made = torch.tensor(wanted, requires_grad=True).to(kind) if isinstance(kind, torch.dtype) else wanted
        return made if isinstance(made, torch.Tensor) else made.astype(kind)

    X = [Image.new("RGB", (3, 2)), Image.new("RGB", (2, 3))]
    proposer = resolve_proposer(answer).fit(None, ["dog", "ant", "cow", "bee"])
    assert is_trained(proposer) and proposer.takes_images
    values = log_proba(proposer, X)
    np.testing.assert_allclose(values, np.maximum(wanted, LOG_FLOOR), rtol=4e-3 if kind is torch.bfloat16 else 1e-6)
    np.testing.assert_array_equal(values[:, column_of(proposer, ["ant", "bee"])], values[:, [1, 3]])


def test_a_function_is_told_its_columns_once() -> None:
    proposer = with_labels(FunctionProposer(uniform), np.array(["dog", "ant", "cow", "bee"]))
    assert proposer.classes_.tolist() == ["dog", "ant", "cow", "bee"]
    assert with_labels(proposer, np.array(["ant", "dog"])).classes_.tolist() == ["dog", "ant", "cow", "bee"]
    with pytest.raises(InvalidInputError, match="label 'elk' is not in the proposer's classes"):
        with_labels(proposer, np.array(["ant", "elk"]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros((2, 3)), r"'wrong' returned shape \(2, 3\), not \(2, 4\); return one row per image"),
        (np.zeros(4), r"returned shape \(4,\)"),
        (np.full((2, 4), np.nan), "returned nan or inf"),
        (np.full((2, 4), np.inf), "returned nan or inf"),
        (np.full((2, 4), 0.25), "sum to more than one; return log-probabilities, not probabilities or logits"),
        (np.full((2, 4), 5000.0), "sum to more than one"),
    ],
    ids=["columns", "axes", "nan", "inf", "probabilities", "logits"],
)
def test_a_function_whose_answer_is_no_log_probability(answer: np.ndarray, message: str) -> None:
    def wrong(images: Any) -> np.ndarray:
        return answer

    proposer = FunctionProposer(wrong).fit(None, ["ant", "bee", "cow", "dog"])
    with pytest.raises(InvalidInputError, match=message):
        proposer.predict_log_proba(np.zeros((2, 5)))


def test_a_function_may_say_impossible() -> None:
    never = FunctionProposer(lambda images: np.full((len(images), 2), -np.inf)).fit(None, ["ant", "bee"])
    np.testing.assert_array_equal(log_proba(never, X[:3]), np.full((3, 2), LOG_FLOOR))


def test_a_network_that_is_no_classifier_is_a_function() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.LogSoftmax(dim=1)).double()
    proposer = resolve_proposer(lambda X: network(torch.from_numpy(X))).fit(None, range(4))
    np.testing.assert_allclose(np.exp(log_proba(proposer, X)).sum(axis=1), 1)
    assert isinstance(resolve_proposer(network), FunctionProposer)


def test_what_counts_as_trained() -> None:
    assert is_trained(FrozenEstimator(GaussianNB()))
    assert is_trained(OnlyProba())
    assert not is_trained(GaussianNB().fit(X, Y))
    assert not is_trained(default_proposer())


def test_default_proposer_converges_on_data_of_any_scale() -> None:
    scales = 10.0 ** np.arange(-6, 9, 3)
    model = default_proposer().fit(X * scales, Y)  # a ConvergenceWarning would be an error here
    assert isinstance(model, BaseEstimator)
    assert model.score(X * scales, Y) == default_proposer().fit(X, Y).score(X, Y)


def test_probabilities_that_are_not_numbers_are_refused() -> None:
    class Overflowing(OnlyProba):
        def predict_proba(self, X: Any) -> np.ndarray:
            return np.array([[0.5, 0.5], [np.nan, 0.5]])

    with pytest.raises(InvalidInputError, match=r"tier 1 \(Overflowing\) .* for 1 of 2 items, first for item 1"):
        log_proba(Overflowing(), X)
