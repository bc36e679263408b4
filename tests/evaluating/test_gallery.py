"""Pictures of a page: of arrays of any channels, and of images of any mode."""

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridclf.evaluating.gallery import SIDE, _picture, data_uri


def decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,"))))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"])
def test_images_of_any_mode_are_pngs(mode: str) -> None:
    shown = decoded(data_uri(Image.new(mode, (40, 30))))
    assert shown.size == (SIDE, 120)


def picture(item: Any) -> str:
    study: Any = SimpleNamespace(
        test_items=SimpleNamespace(images=[item]), clf=SimpleNamespace(pixel_range_=(0.0, 1.0))
    )
    return _picture(study, 0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_of_an_images_channels_are_pictures(channels: int) -> None:
    for item in (np.full((8, 8, channels), 255, np.uint8), np.ones((8, 8, channels))):
        assert np.all(np.asarray(decoded(picture(item))) == 255)
    assert picture(np.ones((8, 8))).startswith("data:")


@pytest.mark.parametrize("shape", [(64,), (8, 8, 2), (8, 8, 5), (8, 8, 12)])
def test_other_arrays_have_no_picture(shape: tuple[int, ...]) -> None:
    assert picture(np.ones(shape)) == picture(np.ones(shape, np.uint8)) == ""
