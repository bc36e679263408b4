"""Evidence: what allocations ask of it."""

from collections.abc import Callable

import numpy as np

from hybridclf.reranking.differences import PairedDifferences
from hybridclf.reranking.fusion import Fusion
from hybridclf.reranking.tasks import Task
from hybridclf.reranking.window import Window


def test_paired_differences_are_numpys_whatever_the_reference(error_table: Callable[..., np.ndarray]) -> None:
    """Mean and variance of e[:, c] - e[:, reference], with references and numbers of trials that change."""
    errors, rng = error_table(6, 30, 5), np.random.default_rng(0)
    differences = PairedDifferences(errors)
    n = np.zeros(6, dtype=int)
    for _ in range(20):
        slots = np.sort(rng.permutation(6)[:4])
        n[slots] = np.minimum(n[slots] + rng.integers(1, 4, 4), 30)
        reference = rng.integers(0, 2, 4)
        mean, variance = differences(slots, reference, n[slots])
        for i, (slot, c) in enumerate(zip(slots, reference, strict=True)):
            plain = errors[slot, : n[slot]].astype(float) - errors[slot, : n[slot], c, None]
            np.testing.assert_allclose(mean[i], plain.mean(axis=0), atol=1e-12)
            if n[slot] > 1:
                np.testing.assert_allclose(variance[i], plain.var(axis=0, ddof=1), atol=1e-12)


def test_an_error_is_read_once_while_the_reference_stays(error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(3, 50, 4)
    whole, slots, reference = errors.astype(float), np.arange(3), np.array([2, 0, 3])
    differences = PairedDifferences(errors)
    for n in range(1, 51):
        mean, _ = differences(slots, reference, np.full(3, n))
        errors[:, :n] = np.nan  # gone for good
        plain = whole[:, :n] - whole[slots, :n, reference][..., None]
        np.testing.assert_allclose(mean, plain.mean(axis=1), atol=1e-12)


def test_a_slot_forgets_its_last_image(error_table: Callable[..., np.ndarray]) -> None:
    errors = error_table(2, 7, 3)
    window = Window(1, 7, 3)
    slot, reference = np.array([0]), np.array([1])
    for table, n in zip(errors, (7, 4), strict=True):
        window.release(slot)
        assert window.admit([Task(0, ("a", "b", "c"), np.zeros(3))]) == slot
        for trial in range(n):
            window.record(slot.repeat(3), np.full(3, trial), np.arange(3), table[trial])
        evidence = window.view(slot, Fusion())
        mean, variance = evidence.differences(reference)
        plain = table[:n].astype(float) - table[:n, 1, None]
        np.testing.assert_allclose(mean[0], plain.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(variance[0], plain.var(axis=0, ddof=1), atol=1e-12)
        np.testing.assert_array_equal(evidence.errors[0], table[:n])


def test_who_leads() -> None:
    window = Window(2, 1, 3)
    slots = np.arange(2)
    priors = np.log([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    window.admit([Task(i, ("a", "b", "c"), prior) for i, prior in enumerate(priors)])
    assert window.view(slots, Fusion()).leads.tolist() == [[False, True, False], [True, False, False]]
    keep = np.array([[True, False, True], [True, True, True]])
    window.drop(slots, keep, np.full((2, 3), 0.5))  # a share that is larger than the others', and out
    assert window.view(slots, Fusion()).leads.tolist() == [[False, False, True], [True, False, False]]
