"""Scores against scikit-learn's and brute force."""

from dataclasses import astuple

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binom
from sklearn.metrics import balanced_accuracy_score, log_loss

from hybridclf.evaluating.methods import Answers
from hybridclf.evaluating.scores import by_class, compare, score

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 7, 300)


def answers(skill: float, seed: int) -> Answers:
    """Posteriors of seven classes, the right one raised by so much."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((300, 7))
    logits[np.arange(300), Y] += skill
    evaluations = rng.integers(0, 5, 300)
    return Answers(softmax(logits, axis=1), evaluations, evaluations // 2, [""] * 300)


def test_scores_are_those_of_scikit_learn() -> None:
    one = answers(1.5, 1)
    found = score("one", one, Y)
    right = one.posterior.argmax(axis=1) == Y
    assert found.accuracy.value == right.mean() and found.accuracy.low < right.mean() < found.accuracy.high
    assert found.mean_per_class == pytest.approx(balanced_accuracy_score(Y, one.label))
    assert found.log_loss == pytest.approx(log_loss(Y, one.posterior, labels=range(7)))
    assert found.brier == pytest.approx(np.square(one.posterior - np.eye(7)[Y]).sum(axis=1).mean())
    ranks = np.argsort(-one.posterior, axis=1)[:, :5]
    assert found.top_5 == pytest.approx((ranks == Y[:, None]).any(axis=1).mean())
    assert found.evaluations == one.evaluations.mean() and found.no_evaluation == (one.evaluations == 0).mean()


def test_a_paired_difference_counts_what_is_fixed_and_broken() -> None:
    good, bad = answers(2.5, 2), answers(1.0, 3)
    found = compare(("good", "bad"), good, bad, Y)
    right, before = good.label == Y, bad.label == Y
    assert (found.fixed, found.broken) == ((right & ~before).sum(), (before & ~right).sum())
    assert found.accuracy.value == pytest.approx(right.mean() - before.mean()) and found.accuracy.low > 0
    n, least = found.fixed + found.broken, min(found.fixed, found.broken)
    assert found.p == pytest.approx(min(1, 2 * binom.cdf(least, n, 0.5)))
    expected = score("", bad, Y).log_loss - score("", good, Y).log_loss
    assert found.log_loss.value == pytest.approx(expected) and found.log_loss.low < expected < found.log_loss.high
    assert compare(("a", "a"), good, good, Y).p == 1


def test_copies_in_groups_count_once() -> None:
    good, bad, films = answers(2.5, 2), answers(1.0, 3), np.repeat(np.arange(300), 3)
    posteriors = [np.repeat(one.posterior, 3, axis=0) for one in (good, bad)]
    copies = [Answers(p, np.zeros(900, int), np.zeros(900, int), [""] * 900) for p in posteriors]
    y, once = np.repeat(Y, 3), compare(("good", "bad"), good, bad, Y)
    found = compare(("good", "bad"), *copies, y, films)
    assert found.p == once.p > compare(("good", "bad"), *copies, y).p
    assert astuple(found.accuracy) == pytest.approx(astuple(once.accuracy), abs=6e-3)
    assert found.log_loss.low == pytest.approx(once.log_loss.low, abs=2e-3)
    assert (found.fixed, found.broken) == (3 * once.fixed, 3 * once.broken)
    assert score("", copies[0], y, films).accuracy.low == pytest.approx(score("", good, Y).accuracy.low, abs=1e-3)
    parts = zip(by_class(*copies, y, list("abcdefg"), films), by_class(good, bad, Y, list("abcdefg")), strict=True)
    assert all(several.gain.low == pytest.approx(one.gain.low, abs=0.05) for several, one in parts)


def test_classes_add_up_to_the_whole() -> None:
    good, bad = answers(2.5, 2), answers(1.0, 3)
    whole, parts = compare(("good", "bad"), good, bad, Y), by_class(good, bad, Y, list("abcdefg"))
    assert sum(part.n for part in parts) == 300
    assert (sum(p.fixed for p in parts), sum(p.broken for p in parts)) == (whole.fixed, whole.broken)
    gains = [part.gain.value for part in parts]
    assert gains == sorted(gains, reverse=True)
    for part in parts:
        assert part.gain.value == pytest.approx(part.after - part.before)
