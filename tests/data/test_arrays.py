"""Every accepted form of X becomes the same array, and every kind of image 8 bits; all else gets one clear error."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hybridclf.data.arrays import (
    as_array,
    as_pil,
    block_means,
    describe,
    is_empty,
    is_image_list,
    value_range,
)
from hybridclf.data.decoding import convert, upright
from hybridclf.errors import InvalidInputError

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
        ([Image.new("F", (4, 4))], None, "32-bit numbers.*convert the image to 8 bits"),
        (GREY, (4, 4, 1), "expected images of 4x4x1, got images of 4x6x1"),
        (COLOUR.transpose(0, 3, 1, 2), (4, 6, 3), r"got images of 3x4x6; channels come last: X\.permute\(0, 2, 3, 1\)"),
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


# --- PIL images of any kind -------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_arrays_of_every_layout_are_their_pil_images() -> None:
    rgb, grey = COLOUR[0], GREY[0]
    for array, mode in ((rgb, "RGB"), (grey, "L"), (np.dstack([rgb, grey]), "RGBA")):
        image = as_pil(array)
        assert image.mode == mode
        np.testing.assert_array_equal(image, array)
    np.testing.assert_array_equal(as_pil(grey[..., None]), grey)


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint16), np.zeros(16, np.uint8), np.zeros((4, 4, 2), np.uint8),
     np.zeros((0, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8), "cat.png"],
    ids=["float", "16-bit", "flat", "two channels", "empty", "four axes", "path"],
)  # fmt: skip
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(InvalidInputError, match="an image must be a PIL image or a uint8 array"):
        as_pil(array)


def test_modes_are_converted_as_pillow_does() -> None:
    rgb, alpha = Image.fromarray(COLOUR[0]), Image.fromarray(GREY[0])
    with_alpha = saved(Image.merge("RGBA", (*rgb.split(), alpha)))
    np.testing.assert_array_equal(convert(with_alpha, "RGB"), rgb)
    np.testing.assert_array_equal(convert(with_alpha, "RGBA"), with_alpha)
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"):
        for wanted in ("L", "RGB", "RGBA"):
            np.testing.assert_array_equal(convert(rgb.convert(mode), wanted), rgb.convert(mode).convert(wanted))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_palette_with_transparency_is_converted_without_a_warning(mode: str) -> None:
    palette = Image.fromarray(COLOUR[0]).quantize(8)
    image = saved(palette, transparency=bytes([0, 128, 255]))
    assert isinstance(image.info["transparency"], bytes)
    converted = convert(image, mode)
    np.testing.assert_array_equal(converted.convert("RGB"), palette.convert(mode).convert("RGB"))
    if mode == "RGBA":
        assert {0, 128, 255} <= set(np.unique(converted.getchannel("A")))


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    values = np.array([[0, 256, 257, 32768, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        image = saved(Image.fromarray(values), kind)
        assert image.mode.startswith("I;16")
        assert np.asarray(upright(image)).tolist() == [[0, 1, 1, 128, 255]]
        assert as_array([image]).ravel().tolist() == [0, 1, 1, 128, 255]
    for mode in ("I", "F"):
        with pytest.raises(InvalidInputError, match=rf"32-bit numbers of unknown range \(mode {mode}\); convert"):
            upright(Image.new(mode, (4, 4)))


def test_a_photo_is_turned_as_its_camera_meant_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to view
    turned = saved(Image.fromarray(np.rot90(COLOUR[0]).copy()), exif=exif)
    np.testing.assert_array_equal(upright(turned), COLOUR[0])
    np.testing.assert_array_equal(as_array([turned, Image.fromarray(COLOUR[1])]), COLOUR[:2])


def test_of_an_animation_the_current_frame_counts() -> None:
    frames = [Image.new("L", (4, 4), grey) for grey in (10, 200)]
    animation = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(convert(as_pil(animation), "RGB")).tolist() == [10]
    animation.seek(1)
    assert np.unique(convert(as_pil(animation), "RGB")).tolist() == [200]


def test_lab_becomes_anything_and_what_cannot_says_so() -> None:
    lab = Image.new("LAB", (4, 4), (128, 128, 128))
    assert convert(lab, "L").mode == "L" and convert(lab, "RGB").mode == "RGB"
    with pytest.raises(InvalidInputError, match="mode L cannot become La; save it as RGB"):
        convert(Image.new("L", (4, 4)), "La")


def test_an_image_much_longer_than_wide_is_refused() -> None:
    assert upright(Image.new("L", (1, 200))).size == (1, 200)
    for size in ((1, 20_000), (20_000, 1)):
        with pytest.raises(InvalidInputError, match="too narrow; crop it"):
            upright(Image.new("L", size))


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_block_means_is_the_mean_of_squares(dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 6, 4, 3)).astype(dtype)  # more than one block
    small = block_means(images, 2)
    assert small.dtype == dtype and small.shape == (300, 3, 2, 3)
    mean = images[299, 2:4, 0:2].astype(float).mean(axis=(0, 1))
    np.testing.assert_allclose(small[299, 1, 0], mean.round() if dtype == np.uint8 else mean)
    assert block_means(images, 1) is images
