"""Every accepted form of X becomes the same array; every other gets one clear error."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hybridclf.errors import InvalidInputError
from hybridclf.images import as_array, describe, is_empty, is_image_list, value_range

GREY = np.random.default_rng(0).integers(0, 256, (5, 4, 6), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "flattened": lambda images: images.reshape(5, -1),
    "data frame": lambda images: pd.DataFrame(images.reshape(5, -1)),
    "nested lists": lambda images: images.reshape(5, -1).tolist(),
    "as it is": lambda images: images,
    "list of arrays": list,
    "tuple of PIL images": lambda images: tuple(map(Image.fromarray, images)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("images", "shape"), [(GREY, (4, 6)), (GREY, (4, 6, 1)), (COLOUR, (4, 6, 3))])
def test_every_form_becomes_the_same_images(form: str, images: np.ndarray, shape: tuple[int, ...]) -> None:
    array = as_array(FORMS[form](images), shape)
    np.testing.assert_array_equal(array, images.reshape(5, 4, 6, -1))


@pytest.mark.parametrize("form", ["as it is", "list of arrays", "tuple of PIL images"])
def test_images_say_their_shape_themselves(form: str) -> None:
    assert as_array(FORMS[form](GREY)).shape == (5, 4, 6, 1)
    assert as_array(FORMS[form](COLOUR)).shape == (5, 4, 6, 3)


@pytest.mark.parametrize("form", FORMS)
def test_images_are_flattened_for_a_model_of_vectors(form: str) -> None:
    np.testing.assert_array_equal(as_array(FORMS[form](GREY), (24,)), GREY.reshape(5, 24))


def test_vectors_stay_vectors() -> None:
    X = np.random.default_rng(0).standard_normal((7, 3))
    np.testing.assert_array_equal(as_array(X), X)


def test_uint8_is_neither_copied_nor_converted() -> None:
    array = as_array(COLOUR)
    assert array.dtype == np.uint8
    assert np.shares_memory(array, COLOUR)


def test_pil_images_take_the_channels_that_are_wanted() -> None:
    grey, colour = list(map(Image.fromarray, GREY)), list(map(Image.fromarray, COLOUR))
    assert as_array([grey[0], colour[1]]).shape == (2, 4, 6, 3)
    assert as_array(grey, (4, 6, 3)).shape == (5, 4, 6, 3)
    assert as_array(colour, (4, 6, 4)).shape == (5, 4, 6, 4)
    luma = as_array(colour, (4, 6, 1))[..., 0]
    np.testing.assert_allclose(luma, COLOUR @ [0.299, 0.587, 0.114], atol=1)  # Rec. 601, as PIL's "L"


def test_pil_images_of_one_bit_and_with_a_palette() -> None:
    checks = np.indices((4, 6)).sum(axis=0) % 2 == 0
    np.testing.assert_array_equal(as_array([Image.fromarray(checks)])[0, ..., 0], checks * np.uint8(255))
    palette = Image.fromarray(COLOUR[0]).quantize(24)
    np.testing.assert_array_equal(as_array([palette])[0], np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("X", "shape", "message"),
    [
        ([Image.new("L", (4, 4)), Image.new("L", (5, 4))], None, "share one size.*resize"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], None, "share one size.*resize"),
        ([np.zeros((4, 4)), None], None, "share one size"),
        ([Image.new("L", (4, 4)), np.zeros((4, 4))], None, "one kind"),
        ([Image.new("I;16", (4, 4))], None, "'I;16' have more than 8 bits"),
        ([Image.new("F", (4, 4))], None, "'F' have more than 8 bits"),
        (GREY, (4, 4, 1), "expected images of 4x4x1, got images of 4x6x1"),
        (GREY, (4, 6, 3), "expected images of 4x6x3, got images of 4x6x1"),
        (np.zeros((3, 23)), (4, 6), "expected images of 4x6x1, got vectors of 23 numbers"),
        (GREY, (25,), "expected vectors of 25 numbers"),
        (np.zeros((2, 3, 4, 5, 6)), None, "accepted are"),
        (np.zeros((2, 0, 4), dtype=np.uint8), None, "accepted are"),
    ],
)
def test_what_cannot_be_read(X: Any, shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        as_array(X, shape)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.full((2, 4, 4), np.nan), "NaN"),
        (np.full((2, 4, 4), np.inf), "infinity"),
        ([np.full((4, 4), np.nan)], "NaN"),
        (np.zeros((2, 4, 4), dtype=complex), "[Cc]omplex"),
        (np.zeros((0, 4, 4), dtype=np.uint8), "0 sample"),
    ],
)
def test_what_scikit_learn_refuses(X: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_array(X)


@pytest.mark.parametrize("X", [[], (), np.zeros((0, 3)), np.zeros((0, 8, 8)), pd.DataFrame({"a": []})])
def test_empty(X: Any) -> None:
    assert is_empty(X)


@pytest.mark.parametrize("X", [[0], GREY, pd.DataFrame({"a": [1]}), np.float64(1), None])
def test_not_empty(X: Any) -> None:
    assert not is_empty(X)


def test_what_a_list_of_images_is() -> None:
    assert is_image_list([Image.new("L", (2, 2))])
    assert is_image_list((GREY[0], GREY[1]))
    assert not any(map(is_image_list, ([], GREY, [[0.0, 1.0]], [GREY[0, 0]])))


def test_value_range() -> None:
    assert value_range(GREY[:1, :1, :1]) == (0.0, 255.0)
    assert value_range(np.array([[2.0, 16.0], [-1.0, 3.0]])) == (-1.0, 16.0)


def test_describe() -> None:
    assert describe((64,)) == "vectors of 64 numbers"
    assert describe((8, 8, 3)) == "images of 8x8x3"
