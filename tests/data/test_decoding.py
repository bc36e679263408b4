"""Checks of image files before Pillow opens them."""

import os
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hybridclf.data import decoding
from hybridclf.data.decoding import FORMATS, HEAD, MAX_SCANS, claimed_pixels, count_scans, format_of, read_image
from hybridclf.errors import InvalidInputError
from tests.data.hostile import hidden_scans, many_scans

NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def written(form: str, **options: object) -> bytes:
    file = BytesIO()
    Image.fromarray(NOISE).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_told_by_its_first_bytes(form: str) -> None:
    assert format_of(written(form)[:HEAD]) == form
    assert format_of(b"x" + written(form)[: HEAD - 1]) is None


def test_formats_that_are_not_on_the_list_are_refused() -> None:
    for form in ("eps", "ico", "jpeg2000", "pcx", "tga", "pdf"):
        with pytest.raises(InvalidInputError, match="not an image in one of the formats"):
            read_image(BytesIO(written(form)))


def test_scans_are_counted_as_libjpeg_sees_them() -> None:
    """A baseline JPEG has one; Pillow's progressive ones have ten, whatever else lies in the file."""
    thumbnail = written("jpeg", progressive=True)
    rng = random.Random(0)
    for extra in ({}, {"comment": thumbnail}, {"exif": b"Exif\0\0" + thumbnail}, {"comment": rng.randbytes(60_000)}):
        assert count_scans(written("jpeg", **extra), 100) == 1
        assert count_scans(written("jpeg", progressive=True, **extra), 100) == 10
        assert count_scans(written("jpeg", progressive=True, **extra) + thumbnail * 3, 100) == 10
    assert count_scans(written("jpeg", quality=100, restart_marker_rows=1), 100) == 1


def test_counting_stops_beyond_the_most() -> None:
    assert count_scans(many_scans(50, side=64), 1000) == 5 + 50  # a grey image has five before its last
    assert count_scans(many_scans(5000, side=64), 20) == 21


def test_counting_ends_on_any_bytes() -> None:
    rng = random.Random(1)
    for _ in range(300):
        damaged = bytearray(many_scans(20, side=64))
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.choice((0, 0xFF, 0xDA, rng.randrange(256)))
        assert 0 <= count_scans(bytes(damaged[: rng.randrange(len(damaged))]), MAX_SCANS) <= MAX_SCANS + 1


def test_more_scans_than_any_encoder_writes_are_refused() -> None:
    assert read_image(BytesIO(many_scans(MAX_SCANS - 10, side=64))).size == (64, 64)
    with pytest.raises(InvalidInputError, match=f"a JPEG of more than {MAX_SCANS} scans"):
        read_image(BytesIO(many_scans(MAX_SCANS + 1, side=64)))


def test_scans_within_a_segment_that_libjpeg_skips_are_counted() -> None:
    assert read_image(BytesIO(hidden_scans(10, side=64))).size == (64, 64)
    assert count_scans(hidden_scans(10, side=64), 1000) >= 10
    with pytest.raises(InvalidInputError, match=f"a JPEG of more than {MAX_SCANS} scans"):
        read_image(BytesIO(hidden_scans(1000, side=64)))


@pytest.mark.parametrize("max_value", [1000, 4095, 65535])
def test_a_pgm_of_more_than_eight_bits_is_scaled(max_value: int) -> None:
    grey = NOISE[..., 0]
    pixels = np.round(grey / 255 * max_value).astype(">u2")
    image = read_image(BytesIO(b"P5\n40 40\n%d\n" % max_value + pixels.tobytes()))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), grey)


def test_of_an_animation_the_first_frame_is_decoded_however_many_there_are(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), i % 256, np.uint8)) for i in range(300)]
    for form in ("gif", "tiff", "webp"):
        frames[0].save(tmp_path / "a", form, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a").convert("L")), 0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_pipes_and_devices_are_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", Path(os.devnull), tmp_path):
        with pytest.raises(InvalidInputError, match="not a regular file"):
            read_image(path)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"comment": written("jpeg")}, {"exif": b"Exif\0\0" * 99}]
)
def test_claimed_pixels_are_those_of_the_header(options: dict[str, object]) -> None:
    assert claimed_pixels(written("jpeg", **options)) == NOISE.shape[0] * NOISE.shape[1]


def test_claimed_pixels_of_other_files() -> None:
    assert claimed_pixels(written("png")) == NOISE.shape[0] * NOISE.shape[1]
    for data in (written("gif"), written("png")[:14], written("jpeg")[:30], b""):
        assert claimed_pixels(data) is None


def test_claimed_pixels_are_looked_for_in_the_first_segments_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 MiB of empty segments, which take seconds to go through."""
    looked_at = []
    segments = decoding._segments

    def counted(jpeg: bytes) -> Iterator[tuple[int, int]]:
        for segment in segments(jpeg):
            looked_at.append(segment)
            yield segment

    monkeypatch.setattr(decoding, "_segments", counted)
    assert claimed_pixels(b"\xff\xd8" + b"\xff\xe0\x00\x02" * (10 * 2**18)) is None
    assert len(looked_at) == 1000
    assert claimed_pixels(written("jpeg")) == NOISE.shape[0] * NOISE.shape[1]
