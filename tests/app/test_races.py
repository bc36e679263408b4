"""A race as the page shows it: the classifier's own, step by step, and what is made of it."""

import json
import re
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier, Race
from hybridclf.app.races import Finish, Moment, describe, watch
from hybridclf.app.views import finish_html, message_html, moment_html, overlay


@pytest.fixture(scope="module")
def pretrained() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.fixture
def clf(pretrained: HybridClassifier) -> HybridClassifier:
    """One whose every picture races."""
    return copy(pretrained).set_params(allocation=Race(1 - 1e-15, 6))


def picture(number: int) -> Image.Image:
    return Image.fromarray((load_digits().images[number] * 255 / 16).round().astype(np.uint8)).resize((24, 16))


def watched(clf: HybridClassifier, image: Image.Image, **options: Any) -> tuple[list[Moment], Finish]:
    *moments, finish = watch(clf, image, **options)
    assert isinstance(finish, Finish)
    return [moment for moment in moments if isinstance(moment, Moment)], finish


def test_a_race_ends_as_the_classifier_answers(clf: HybridClassifier) -> None:
    moments, finish = watched(clf, picture(900))
    posterior, (result,) = clf.decide([picture(900)])
    np.testing.assert_allclose(finish.posterior, posterior[0])
    assert (finish.result.ranking, finish.result.stopped_by) == (result.ranking, result.stopped_by)
    assert finish.novelty == clf.novelty([picture(900)])[0] and not finish.rejected
    assert [m.trials for m in moments] == list(range(len(moments))) and moments[-1].trials == result.rows
    np.testing.assert_allclose(moments[0].posterior, moments[0].prior)
    np.testing.assert_array_equal(moments[-1].errors, result.evidence)
    why = finish.explanation
    assert why is not None and why.map.shape == (16, 24) and why.a == finish.labels[finish.order[0]]


def test_a_race_that_is_stopped_has_the_answer_so_far(clf: HybridClassifier) -> None:
    answers = iter([False, False, True])
    moments, finish = watched(clf, picture(900), stopped=lambda: next(answers))
    assert (moments[-1].trials, finish.result.rows, finish.result.stopped_by) == (2, 2, "stopped")
    np.testing.assert_array_equal(finish.result.posterior, moments[-1].posterior)
    assert finish.posterior.sum() == pytest.approx(1) and "you stopped it" in finish_html(finish)


def test_a_picture_that_the_prior_settles_has_no_trials(pretrained: HybridClassifier) -> None:
    sure = copy(pretrained).set_params(allocation=Race(0.2, 6))
    _, finish = watched(sure, picture(900))
    assert finish.result.rows == 0 and "tier 1 is sure enough" in finish_html(finish)


def test_what_is_rejected_is_none_of_these(clf: HybridClassifier) -> None:
    _, finish = watched(clf.set_params(reject=0.01), Image.new("L", (20, 20)))
    assert finish.rejected and "None of these" in finish_html(finish) and describe(finish)["label"] is None


def test_a_model_without_a_test_of_novelty_says_so(clf: HybridClassifier) -> None:
    assert clf.calibration_ is not None
    clf.calibration_ = replace(clf.calibration_, novelty=None)
    _, finish = watched(clf, picture(900))
    assert finish.novelty is None and "no test" in finish_html(finish)


def test_an_objective_without_a_map_has_no_reasons(clf: HybridClassifier) -> None:
    _, finish = watched(clf, picture(900))
    html = finish_html(replace(finish, explanation=None))
    assert "Why" in finish_html(finish) and "Why" not in html
    assert describe(replace(finish, explanation=None))["explanation"] is None


def test_json_holds_the_race(clf: HybridClassifier) -> None:
    moments, finish = watched(clf, picture(901))
    saved = json.loads(json.dumps(describe(finish), allow_nan=False))
    assert saved["label"] == finish.labels[finish.order[0]]
    assert sum(entry["posterior"] for entry in saved["classes"]) == pytest.approx(1)
    assert (saved["evaluations"], saved["trials"]) == (finish.result.evaluations, finish.result.rows)
    kept = np.array(saved["errors"], dtype=float)
    np.testing.assert_allclose(kept, moments[-1].errors, rtol=1e-6)
    assert np.shape(saved["explanation"]["map"]) == (16, 24)


def test_labels_are_no_markup(clf: HybridClassifier) -> None:
    (moment, *_), finish = watched(clf, picture(900))
    bad = "<img src=x onerror=alert(1)>"
    assert finish.explanation is not None
    why = replace(finish.explanation, a=bad, b=bad)
    shown = moment_html(replace(moment, candidates=(bad,) * len(moment.candidates)))
    shown += finish_html(replace(finish, labels=[bad] * 10, explanation=why)) + message_html(bad)
    assert "<img" not in shown and "&lt;img" in shown


def test_bars_are_the_shares(clf: HybridClassifier) -> None:
    (_, *_, last), _ = watched(clf, picture(900))
    html = moment_html(last)
    widths = list(map(float, re.findall(r'class="bar" style="width:([\d.]+)%', html)))
    np.testing.assert_allclose(widths, 100 * last.posterior[:10], atol=0.06)
    assert html.count('class="lead"') == 1 and html.count('class="out"') == (~last.alive).sum()


def test_the_map_is_orange_for_a_and_purple_for_b() -> None:
    errors = np.zeros((10, 10))
    errors[:, :5], errors[:, 7:] = 1.0, -1.0
    pixels = np.asarray(overlay(Image.new("RGB", (10, 10), (128, 128, 128)), errors)).astype(int)
    red, green, blue = pixels[0, 0]
    assert red > green > blue
    red, green, blue = pixels[0, 9]
    assert blue > red > green
    np.testing.assert_array_equal(pixels[0, 6], 128)
    np.testing.assert_array_equal(np.asarray(overlay(Image.new("L", (10, 10), 7), 0 * errors)), 7)
