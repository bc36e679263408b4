"""Decoding in processes: the same pixels, bounded time, and no image that costs another one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from PIL import Image

from hybridclf.data.decoders import SMALL_PIXELS, Decoders, is_quick
from hybridclf.data.decoding import read_image, stretched
from hybridclf.errors import InvalidInputError
from tests.data.hostile import flat_png, many_scans, text_png

PATIENCE = 60.0
SLOW = many_scans(90)
"""Seconds on any machine, with fewer scans than are refused unread."""


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with Decoders(2, seconds=PATIENCE, max_pixels=10**6) as pool:
        yield pool


def saved(image: Image.Image, form: str) -> bytes:
    file = BytesIO()
    image.save(file, form)
    return file.getvalue()


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8))


@pytest.mark.parametrize("shape", [(32, 24, 3), (32, 32, 1), (600, 500, 4), None])
@pytest.mark.parametrize("form", ["png", "jpeg", "tiff", "webp", "gif"])
def test_pixels_are_those_of_this_process(
    decoders: Decoders, photo: Image.Image, tmp_path: Path, form: str, shape: tuple[int, ...] | None
) -> None:
    data = saved(photo, form)
    (tmp_path / "a").write_bytes(data)
    expected = stretched(read_image(BytesIO(data)), shape)
    for source in (data, tmp_path / "a"):
        image = decoders.decode(source, shape)
        assert image.mode == expected.mode
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_small_is_a_png_or_jpeg_of_few_bytes_and_pixels() -> None:
    side = int(SMALL_PIXELS**0.5)
    assert is_quick(saved(Image.new("L", (side, side)), "png"))
    assert is_quick(saved(Image.new("L", (side, side)), "jpeg"))
    assert not is_quick(saved(Image.new("L", (side, side + 1)), "png"))
    assert not is_quick(saved(Image.new("L", (side, side + 1)), "jpeg"))
    assert not is_quick(saved(Image.new("L", (8, 8)), "tiff"))
    assert not is_quick(saved(Image.effect_noise((250, 250), 90), "png") + bytes(2**16))
    assert is_quick(b"refused unread" * 10_000)


@pytest.mark.parametrize("after_pixels", [False, True])
@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_png_with_compressed_text_is_not_small(name: bytes, after_pixels: bool) -> None:
    data = text_png(name, after_pixels)
    assert len(data) <= 2**16
    assert read_image(BytesIO(data)).size == (8, 8)
    assert not is_quick(data)


def test_an_image_may_grow_beyond_the_most_pixels_of_a_file() -> None:
    with Decoders(1, seconds=PATIENCE, max_pixels=100) as decoders:
        assert decoders.decode(saved(Image.new("L", (8, 8)), "bmp"), (30, 30, 3)).size == (30, 30)


@pytest.mark.parametrize("small", [True, False])
def test_errors_are_those_of_this_process(decoders: Decoders, tmp_path: Path, small: bool) -> None:
    data = saved(Image.effect_noise((30, 30), 90), "png" if small else "bmp")
    for source, message in (
        (data[:500], "cannot be read: .+"),
        (b"hello", "not an image in one of the formats"),
        (saved(Image.new("L", (1001, 1000)), "png"), "more than 1000000 pixels"),
        (saved(Image.new("F", (30, 30)), "tiff"), "convert the image to 8 bits"),
        (tmp_path / "nowhere.png", "cannot be read: No such file"),
        (tmp_path / os.fsdecode(b"caf\xe9.png"), "cannot be read: No such file"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            decoders.decode(source, (8, 8, 1))
    assert decoders.lost == 0


def test_an_image_beyond_its_time_costs_only_itself(photo: Image.Image) -> None:
    big = saved(photo, "png")
    with Decoders(1, seconds=0.5) as decoders:
        decoders.decode(big)
        start = monotonic()
        for lost in (1, 2):
            with pytest.raises(InvalidInputError, match=r"more than 0\.5 seconds to decode"):
                decoders.decode(SLOW)
            assert decoders.lost == lost
            assert decoders.decode(big).size == photo.size
        assert monotonic() - start < PATIENCE


def test_small_images_do_not_wait_for_a_slow_one() -> None:
    small = saved(Image.new("L", (8, 8)), "png")
    with Decoders(1, seconds=0.5) as decoders, ThreadPoolExecutor(1) as thread:
        slow = thread.submit(decoders.decode, SLOW)
        while decoders._all[0]._process is None:
            sleep(0.01)
        assert decoders.decode(small, (8, 8, 1)).size == (8, 8)
        assert not slow.done()
        assert isinstance(slow.exception(PATIENCE), InvalidInputError)


def test_closing_ends_what_is_under_way() -> None:
    with ThreadPoolExecutor(1) as thread, Decoders(1, seconds=PATIENCE) as decoders:
        decoders.decode(flat_png(1000))  # it has started
        slow = thread.submit(decoders.decode, SLOW)
        sleep(0.3)
        decoders.close()
        assert isinstance(slow.exception(PATIENCE), InvalidInputError)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="has no signals")
def test_a_killed_decoder_is_replaced(photo: Image.Image) -> None:
    big = saved(photo, "png")
    with Decoders(1) as decoders:
        for _ in range(3):
            assert decoders.decode(big, (8, 8, 3)).size == (8, 8)
            process = decoders._all[0]._process
            assert process is not None
            process.kill()
            process.wait()
            with pytest.raises(InvalidInputError, match="crashes the decoder"):
                decoders.decode(big)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_decoder_ends_by_itself_when_its_owner_is_killed() -> None:
    """Even one that is busy: within its own limit of time."""
    program = (
        "import sys; from hybridclf.data.decoders import Decoders; from tests.data.hostile import many_scans\n"
        "decoders = Decoders(1, seconds=1.0); decoder = decoders._all[0]; print(decoder._started().pid, flush=True)\n"
        "decoders.decode(many_scans(90))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        sleep(0.3)
        owner.kill()
    until = monotonic() + PATIENCE
    while is_running(pid) and monotonic() < until:
        sleep(0.05)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_a_flat_image_of_many_pixels_takes_its_time_elsewhere() -> None:
    assert not is_quick(flat_png())
    with Decoders(1, seconds=PATIENCE) as decoders:
        assert decoders.decode(flat_png(), (8, 8, 3)).getpixel((3, 3)) == (1, 2, 3)


def test_an_image_of_its_own_size_is_averaged_down_to_a_side() -> None:
    """By a whole factor, in a process and, if it is small, at once."""
    large = Image.effect_noise((1500, 900), 60)
    with Decoders(1) as decoders:
        image = decoders.decode(saved(large, "png"), side=200)
        assert image.size == (375, 225)
        expected = np.asarray(large.convert("RGB").reduce(4))
        np.testing.assert_array_equal(np.asarray(image), expected)
        assert decoders.decode(saved(large.resize((150, 90)), "png"), side=20).size == (38, 23)
        assert decoders.decode(saved(large.resize((150, 90)), "png"), side=50).size == (150, 90)
