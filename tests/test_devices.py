"""Batches that fit a device's memory."""

import pytest
import torch

from hybridclf.denoising.batch_size import Batches
from hybridclf.devices import as_device, inference_dtype, mixed_precision, receive, send
from hybridclf.errors import HybridClfError


def test_batches_halve_for_good_when_memory_runs_out() -> None:
    items, sizes, batches = torch.arange(10), [], Batches(9)

    def double(start: int, size: int) -> torch.Tensor:
        sizes.append(len(items[start : start + size]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * items[start : start + size]

    for _ in range(2):
        assert torch.cat(batches(double, 10)).tolist() == list(range(0, 20, 2))
    assert sizes == [9, 4, *[2] * 10]
    assert batches(double, 0) == []


def test_batches_go_on_after_what_a_batch_took_in() -> None:
    """A function may take fewer items than there would be room for."""
    batches = Batches(4)
    parts = batches(lambda start, size: torch.arange(start, min(start + size - start % 2, 9)), 9)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    parts = batches(lambda start, size: torch.arange(start, start + 1), 3)
    assert [part.tolist() for part in parts] == [[0], [1], [2]]


def test_one_item_that_is_too_much_is_one_clear_error() -> None:
    def greedy(start: int, size: int) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(HybridClfError, match="no memory for a single item; choose another device"):
        Batches(5)(greedy, 3)


def test_devices_by_name() -> None:
    assert as_device("cpu") == torch.device("cpu")
    assert as_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_mixed_precision_is_for_float32_on_a_processor_that_multiplies_bfloat16(request: pytest.FixtureRequest) -> None:
    a = torch.full((2, 2), 1 + 2**-12)  # bfloat16 has eight bits

    def product(values: torch.Tensor, wanted: bool = True) -> torch.Tensor:
        with mixed_precision(values, wanted):
            return values @ values

    assert inference_dtype(torch.device("cpu")) == product(a).dtype == torch.float32
    request.getfixturevalue("native_bfloat16")
    assert inference_dtype(torch.device("cpu")) == product(a).dtype == torch.bfloat16
    assert product(a).tolist() == [[2, 2], [2, 2]]
    assert product(a, wanted=False).dtype == torch.float32 and product(a.double()).dtype == torch.float64
    assert inference_dtype(torch.device("cuda")) == torch.float32  # the default of a GPU stays


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
def test_values_come_and_go_unchanged(device: str) -> None:
    values = torch.arange(12.0, dtype=torch.float64).view(3, 4).T
    there = send(values, torch.device(device), torch.float32)
    assert there.device.type == device and there.dtype == torch.float32
    doubled = there * 2
    wait = receive(doubled)
    if device == "cuda":
        doubled.zero_()  # begun later
    here = wait()
    assert here.device.type == "cpu" and torch.equal(here, values.float() * 2)
