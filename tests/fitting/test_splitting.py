"""What is held out: stratified, groups together, and never the last image of a class."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedStratifiedKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
)

from hybridclf.errors import InvalidInputError
from hybridclf.fitting.splitting import cross_fit_parts, folds, hold_out, picture_groups

Y = np.repeat([0, 1, 2], [40, 20, 10])


def test_folds_are_scikit_learns() -> None:
    ours = list(folds(Y, 5, seed=3))
    theirs = StratifiedKFold(5, shuffle=True, random_state=3).split(Y, Y)
    for (kept, out), (wanted_kept, wanted_out) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(kept, wanted_kept)
        np.testing.assert_array_equal(out, wanted_out)


def test_a_class_with_one_image_is_always_trained_on() -> None:
    y = np.append(Y, 3)
    for kept, out in folds(y, 3, seed=0):
        assert 70 in kept and 70 not in out
        assert set(y[kept]) == {0, 1, 2, 3}
    held = np.concatenate([out for _, out in folds(y, 3, seed=0)])
    assert sorted(held) == list(range(70))  # everything else is held out once


def test_a_small_class_is_spread_over_as_many_folds_as_it_has_images() -> None:
    y = np.append(Y, [3, 3])
    splits = list(folds(y, 5, seed=0))
    assert len(splits) == 5
    assert sorted(np.concatenate([out for _, out in splits])) == list(range(72))
    assert all(set(y[kept]) == {0, 1, 2, 3} for kept, _ in splits)


@pytest.mark.parametrize("y", [np.arange(6), np.zeros(1, dtype=int)])
def test_nothing_can_be_held_out_of_single_images(y: np.ndarray) -> None:
    assert list(folds(y, 3, seed=0)) == []
    kept, out = hold_out(y, 0.5, seed=0)
    assert len(kept) == len(y) and not len(out)


def test_folds_keep_groups_together() -> None:
    groups = np.random.default_rng(0).permutation(np.arange(70) // 2)
    y = Y[np.unique(groups, return_index=True)[1]][groups]  # copies share their class
    for kept, out in folds(y, 3, seed=0, groups=groups):
        assert not set(groups[kept]) & set(groups[out])


@pytest.mark.filterwarnings("ignore:The groups parameter is ignored:UserWarning")
@pytest.mark.parametrize(
    "cv", [KFold(4), GroupKFold(3), PredefinedSplit(np.arange(70) % 3), [(range(30), range(30, 50))]]
)
def test_any_splitter_will_do(cv: object) -> None:
    splits = list(folds(Y, cv, seed=0, groups=np.arange(70) % 7))
    assert splits
    assert all(set(Y[kept]) >= set(Y[out]) for kept, out in splits)  # in order of class, KFold would lose some


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_share_is_stratified(share: float) -> None:
    kept, out = hold_out(Y, share, seed=1)
    assert sorted([*kept, *out]) == list(range(70))
    np.testing.assert_allclose(np.bincount(Y[out]), share * np.bincount(Y), atol=1)
    assert not np.array_equal(out, hold_out(Y, share, seed=2)[1])
    np.testing.assert_array_equal(out, hold_out(Y, share, seed=1)[1])


def test_a_share_keeps_groups_together_and_rare_classes_in_training() -> None:
    y, groups = np.append(Y, 3), np.append(np.arange(70) // 5, 99)
    kept, out = hold_out(y, 0.3, seed=0, groups=groups)
    assert not set(groups[kept]) & set(groups[out])
    assert 70 in kept
    assert 10 <= len(out) <= 30


def test_more_classes_than_places() -> None:
    y = np.repeat(np.arange(30), 2)
    kept, out = hold_out(y, 0.1, seed=0)
    assert 1 <= len(out) <= 8
    assert set(y[kept]) == set(range(30))


def test_an_image_that_is_held_out_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"holds out image 0 5 times.*at most once"):
        list(folds(Y, RepeatedStratifiedKFold(n_splits=2, n_repeats=5, random_state=0), 0))
    assert len(list(folds(Y, StratifiedShuffleSplit(1, random_state=0), 0))) == 1


def test_splits_that_train_on_what_they_hold_out_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"holds out image 29 and trains on it.*no image in common"):
        list(folds(Y, [(range(40, 70), range(40)), (range(30), range(29, 50))], 0))


def test_splits_may_be_masks() -> None:
    mask = np.arange(len(Y)) % 2 == 0
    (kept, out), *_ = folds(Y, [(mask, ~mask)], 0)
    assert kept.tolist() == np.flatnonzero(mask).tolist() and out.tolist() == np.flatnonzero(~mask).tolist()


@pytest.mark.parametrize("cv", [[], iter(()), PredefinedSplit(np.full(70, -1))])
def test_a_cv_without_splits_is_refused(cv: object) -> None:
    with pytest.raises(InvalidInputError, match=r"has no split; an iterator is empty once it was used"):
        list(folds(Y, cv, 0))


@pytest.mark.parametrize("groups", [None, np.arange(12) // 2])
def test_a_large_share_of_few_images_leaves_some_to_train_on(groups: np.ndarray | None) -> None:
    y = np.arange(12) // 4
    kept, out = hold_out(y, 0.97, seed=0, groups=groups)
    assert sorted([*kept, *out]) == list(range(12)) and len(out)
    assert set(y[kept]) == {0, 1, 2}


@pytest.mark.parametrize(("n", "parts"), [(3, 3), (40, 5), (501, 2)])
def test_groups_are_dealt_out_whole_to_parts_of_one_size(n: int, parts: int) -> None:
    units = np.repeat(np.arange(n), 2)
    found = cross_fit_parts(units, 0)
    assert np.array_equal(found[::2], found[1::2])
    sizes = np.bincount(found)
    assert len(sizes) == parts and sizes.max() - sizes.min() <= 2


def test_a_group_with_the_last_image_of_a_class_is_moved_as_a_whole() -> None:
    """Its other images stay with it, though their classes have more."""
    rng = np.random.default_rng(0)
    for seed in range(50):
        y, groups = np.append(rng.integers(0, 3, 30), [3, 4, 5]), np.append(np.arange(30) // 3, [0, 1, 2])
        for kept, out in [hold_out(y, 0.4, seed, groups), *folds(y, 3, seed, groups)]:
            assert not set(groups[kept]) & set(groups[out])
            assert set(y[out]) <= set(y[kept])


def test_a_group_with_all_images_of_a_class_leaves_the_draw_to_the_others() -> None:
    y, groups = np.array([0, 1, 0, 1, 0, 2]), np.array([0, 0, 1, 1, 2, 2])
    for seed in range(10):
        kept, out = hold_out(y, 0.3, seed, groups)
        assert len(out) == 2 and set(groups[out]) < {0, 1} and set(y[kept]) == {0, 1, 2}


def test_copies_of_a_picture_are_of_one_group_and_equal_rows_need_not_be() -> None:
    alone, pictures = np.arange(4), np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    assert len(np.unique(picture_groups(np.zeros((4, 8, 8, 1)), alone))) == 1
    assert picture_groups(np.zeros((4, 3)), alone) is alone
    for listed in ([*pictures, pictures[0]], [Image.fromarray(p) for p in [*pictures, pictures[0]]]):
        assert len(np.unique(picture_groups(listed, alone))) == 3
    floats = [torch.from_numpy(p / 255) for p in [*pictures, pictures[0]]]  # whatever a proposer of one's own takes
    assert (
        len(np.unique(picture_groups(floats, alone))) == len(np.unique(picture_groups(torch.stack(floats), alone))) == 3
    )
    pages = [Image.new("L", (64, 64), 255) for _ in range(4)]
    for i, page in enumerate(pages):
        page.putpixel((10 * i, 0), 254)  # which no smaller picture shows
    assert len(np.unique(picture_groups(pages, alone))) == 4
    bright = np.random.default_rng(0).normal(size=(4, 8, 8, 1))
    bright[0, 0, 0, 0] = 1e6  # beside it all others would look alike in 8 bits
    assert len(np.unique(picture_groups(bright, alone))) == 4
