"""Does tier 2 pay? The comparison against brute force, the decision, and the sentence."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import binomtest, t

from hybridclf.fitting.worth import ALPHA, FEWEST, Answers, Worth, harmed_classes


def answers(n: int, fixed: int, broken: int, gain: float, leader: np.ndarray | None = None) -> Answers:
    """n answers of which tier 2 fixes some, breaks some, and gains so much log loss on average."""
    rng = np.random.default_rng(0)
    before = np.arange(n) >= n // 4
    before[:fixed] = False
    after = before.copy()
    after[:fixed] = True
    after[n - broken :] = False
    loss = rng.uniform(0.2, 1.0, n)
    noise = 0.05 * rng.standard_normal(n)
    return Answers(
        leader=np.zeros(n, dtype=int) if leader is None else leader,
        right=np.stack([before, after]),
        loss=np.stack([loss, loss - gain - noise + noise.mean()]),
        evaluations=np.full(n, 3),
        weight=np.ones(n),
        unit=np.arange(n),
    )


def test_figures_are_those_of_brute_force() -> None:
    made = answers(200, 12, 5, 0.1)
    worth = Worth.of(made)
    before, after = made.right
    assert (worth.n_images, worth.fixed, worth.broken, worth.evaluations) == (200, 12, 5, 3.0)
    assert worth.tier_1_accuracy.value == pytest.approx(before.mean())
    assert worth.hybrid_accuracy.value == pytest.approx(after.mean())
    assert worth.accuracy_gain.value == pytest.approx(7 / 200)
    assert worth.accuracy_gain.low < 7 / 200 < worth.accuracy_gain.high
    assert worth.log_loss_gain.value == pytest.approx(0.1)
    error = (made.loss[0] - made.loss[1]).std(ddof=1) / np.sqrt(200)
    assert worth.log_loss_gain.high - 0.1 == pytest.approx(t.ppf(0.975, 199) * error)
    assert asdict(worth)["pays"] is True


def test_weights_count() -> None:
    made = answers(200, 12, 5, 0.1)
    weight = np.where(np.arange(200) < 100, 3.0, 1.0)
    worth = Worth.of(made._replace(weight=weight))
    assert worth.tier_1_log_loss.value == pytest.approx(np.average(made.loss[0], weights=weight))
    before, after = made.right
    assert worth.tier_1_accuracy.value == pytest.approx(np.average(before, weights=weight))
    assert worth.accuracy_gain.value == pytest.approx(np.average(after.astype(float) - before, weights=weight))


def test_a_gain_that_few_heavy_images_undo_does_not_pay() -> None:
    """Twenty images fixed of weight 1, four broken of weight 4.9; log loss says nothing."""
    made = answers(400, 20, 4, 0.0)
    heavy = np.where(np.arange(400) >= 396, 4.9, 1.0)
    assert Worth.of(made).pays
    worth = Worth.of(made._replace(weight=heavy))
    assert "held-out images by weight, both" in str(worth) and "by weight" not in str(Worth.of(made))
    assert worth.accuracy_gain.low < 0 < worth.accuracy_gain.value and not worth.pays


@pytest.mark.parametrize(
    ("fixed", "broken", "gain", "pays"),
    [(10, 2, 0.1, True), (2, 34, -0.1, False), (10, 2, -0.1, False), (2, 10, 0.1, False), (0, 0, 0.0, False)],
)
def test_it_pays_if_both_accuracy_and_log_loss_say_so(fixed: int, broken: int, gain: float, pays: bool) -> None:
    worth = Worth.of(answers(400, fixed, broken, gain))
    assert worth.pays is pays
    sentence = str(worth)
    assert sentence.startswith("Re-ranking pays" if pays else "Re-ranking does not pay here and is off, use tier 1")
    assert ("by log loss" in sentence) is (pays and worth.accuracy_gain.low <= 0)
    assert f"{worth.accuracy_gain.points()}, {fixed} fixed, {broken} broken" in sentence
    assert f"({-worth.log_loss_gain.value:+.3f}, {-worth.log_loss_gain.high:.3f} to" in sentence
    assert f"tier 1 alone is right for {worth.tier_1_accuracy.percent()} of 400" in sentence


def test_of_a_single_group_nothing_is_known_of_the_log_loss() -> None:
    worth = Worth.of(answers(400, 20, 4, 0.1)._replace(unit=np.zeros(400, dtype=int)))
    assert f"log loss from {worth.tier_1_log_loss.value:.3f} to {worth.hybrid_log_loss.value:.3f}, at" in str(worth)


def test_a_class_is_harmed_if_significantly_more_is_broken_than_fixed() -> None:
    leader = np.where(np.arange(400) >= 380, 1, 0)  # what is broken is of class 1, what is fixed of class 0
    made = answers(400, 15, 15, 0.01, leader)
    assert binomtest(15, 15, alternative="greater").pvalue < ALPHA / 2
    assert harmed_classes(made).tolist() == [1]
    assert harmed_classes(answers(400, 15, 5, 0.01, leader)).tolist() == []  # 5 of 5 can be chance
    without = made.without(np.array([1]))
    assert Worth.of(without).broken == 0 and Worth.of(without).fixed == 15
    assert without.evaluations.sum() == 3 * 380
    np.testing.assert_array_equal(without.loss[:, leader == 1][0], without.loss[:, leader == 1][1])
    assert "It is off for cat" in str(Worth.of(without, ["cat"]))


def test_images_of_one_group_count_once() -> None:
    """Forty copies of five images: the interval is that of five."""
    made = answers(200, 0, 0, 0.0)
    few = np.array([0.2, -0.1, 0.3, 0.0, 0.1])
    copies = made._replace(loss=np.stack([np.tile(few, 40), np.zeros(200)]), unit=np.tile(np.arange(5), 40))
    found = Worth.of(copies).log_loss_gain
    assert found.high - found.value == pytest.approx(t.ppf(0.975, 4) * few.std(ddof=1) / np.sqrt(5))
    broken = np.zeros((2, 10), dtype=bool)
    broken[0] = True
    scene = made.select(np.arange(200) < 10)._replace(right=broken)
    assert harmed_classes(scene).tolist() == [0]
    assert harmed_classes(scene._replace(unit=np.zeros(10, dtype=int))).tolist() == []  # ten frames of one scene
    grouped = Worth.of(scene._replace(unit=np.arange(10) // 5)).accuracy_gain
    assert grouped.value == pytest.approx(-1.0)


@pytest.mark.parametrize(("errors", "pays"), [(1.2, False), (2.0, True)])
def test_a_gain_of_log_loss_is_told_from_chance(errors: float, pays: bool) -> None:
    gain = np.random.default_rng(0).standard_normal(400)
    gain += errors / 20 * gain.std() - gain.mean()  # so many standard errors above zero
    made = answers(400, 3, 3, 0.0)
    assert Worth.of(made._replace(loss=np.stack([gain, np.zeros(400)]))).pays is pays


def test_few_images_turn_tier_2_off() -> None:
    """However much it gains on them; groups count as one image."""
    gaining = answers(FEWEST, 6, 0, 0.5)
    assert Worth.of(gaining).pays
    few = Worth.of(gaining.select(np.arange(FEWEST) > 0))
    assert not few.pays and few.accuracy_gain.value > 0.2
    assert str(few).startswith("Re-ranking is not known to pay, which takes 20 held-out images, and is off")
    films = Worth.of(gaining._replace(unit=np.arange(FEWEST) // 2))
    assert not films.pays and films.n_groups == FEWEST // 2
    assert "is not known to pay, which takes 20 held-out images of different groups, and is off" in str(films)


def test_of_a_single_group_json_is_finite() -> None:
    worth = Worth.of(answers(40, 5, 1, 0.1)._replace(unit=np.zeros(40, dtype=int)))
    assert not worth.pays and "Infinity" not in json.dumps(asdict(worth))
    assert Worth.from_dict(json.loads(json.dumps(asdict(worth)))) == worth
