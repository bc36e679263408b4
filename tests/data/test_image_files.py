"""Image files: opened safely, and fitted to what a model takes."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf.data.image_files import (
    ENDINGS,
    FORMATS,
    as_item,
    check_image_shape,
    image_paths,
    open_image,
    read_image,
    read_pictures,
    try_image,
)
from hybridclf.errors import InvalidInputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def save(path: Path, array: np.ndarray = GREY, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


# --- finding them -----------------------------------------------------------------------------------------------------


def test_folders_give_their_images_sorted(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "sub/c.png", "notes.txt", ".hidden.png", ".git/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = image_paths([tmp_path, "single.xyz"])
    assert found == [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "sub" / "c.png", Path("single.xyz")]


def test_links_to_folders_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    for name in ("data/a/1.png", "elsewhere/2.png", "elsewhere/deep/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/self").symlink_to(".")
    found = [path.relative_to(tmp_path / "data").as_posix() for path in image_paths([tmp_path / "data"])]
    assert found == ["a/1.png", "b/2.png", "b/deep/3.png"]


def test_folders_that_link_to_each_other_are_listed_once(tmp_path: Path) -> None:
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").touch()
        for other in "abcdefghij":
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    (tmp_path / "self.png").symlink_to("self.png")  # its error comes when it is read
    found = [path.relative_to(tmp_path).as_posix() for path in image_paths([tmp_path])]
    assert found == [*(f"{name}/{name}.png" for name in "abcdefghij"), "self.png"]


def test_pictures_that_cannot_be_opened_are_not_missed(tmp_path: Path) -> None:
    for name in ("a.heic", "b.png", "notes.txt"):
        (tmp_path / name).touch()
    first, second = image_paths([tmp_path])
    assert (first.name, second.name) == ("a.heic", "b.png")
    with pytest.raises(InvalidInputError, match=r"not an image in one of the formats BMP, .*WEBP"):
        open_image(first)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="anyone may read every folder")
def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InvalidInputError, match="closed cannot be read: Permission denied"):
        image_paths([tmp_path])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="anyone may enter every folder")
def test_what_is_in_a_folder_that_cannot_be_entered_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "listed" / "sub").mkdir(parents=True)
    image = save(tmp_path / "listed" / "a.png")
    (tmp_path / "listed").chmod(0o400)
    try:
        assert image_paths([image]) == [image]
        with pytest.raises(InvalidInputError, match="Permission denied"):
            open_image(image)
        with pytest.raises(InvalidInputError, match="sub cannot be read: Permission denied"):
            image_paths([tmp_path])
    finally:
        (tmp_path / "listed").chmod(0o700)


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    (path,) = image_paths([tmp_path])
    with pytest.raises(InvalidInputError, match=r"^a folder with no image in it \(\.png, \.jpg, \.webp, …\)$"):
        open_image(path)


def test_a_name_that_is_too_long_costs_only_itself() -> None:
    name = 300 * "a" + ".png"
    assert image_paths([name]) == [Path(name)]
    assert str(try_image(Path(name))) == "cannot be read: File name too long"
    with pytest.raises(InvalidInputError, match=r"aaa\.png: cannot be read: File name too long"):
        read_pictures([name], (8, 8, 3))


def test_endings_are_those_of_the_formats() -> None:
    registered = Image.registered_extensions()
    assert {registered[ending] for ending in ENDINGS} == set(FORMATS)


# --- opening them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".bmp", ".gif", ".png", ".pgm", ".tif"])
def test_lossless_formats_come_back_as_they_were(tmp_path: Path, ending: str) -> None:
    image = open_image(save(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(np.asarray(image.convert("L")), GREY)


@pytest.mark.parametrize("ending", [".jpg", ".webp", *([".avif"] if "AVIF" in FORMATS else [])])
def test_lossy_formats_come_back_nearly(tmp_path: Path, ending: str) -> None:
    image = open_image(save(tmp_path / f"a{ending}", quality=95))
    np.testing.assert_allclose(np.asarray(image.convert("L")), GREY, atol=12)


def test_the_ending_does_not_matter_the_content_does(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    path.rename(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg").size == (8, 6)


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90° clockwise
    image = open_image(save(tmp_path / "a.png", exif=exif))
    np.testing.assert_array_equal(np.asarray(image), np.rot90(GREY, -1))


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    image = open_image(save(tmp_path / "a.png", GREY.astype(np.uint16) * 257))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), GREY)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_of_unknown_range_are_refused(tmp_path: Path, kind: type[np.number]) -> None:
    with pytest.raises(InvalidInputError, match="convert the image to 8 bits"):
        open_image(save(tmp_path / "a.tif", GREY.astype(kind)))


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InvalidInputError, match="not an image"):
        open_image(tmp_path / "a.png")
    with pytest.raises(InvalidInputError, match="No such file"):
        open_image(tmp_path / "b.png")
    for address in ("https://example.com/cat.jpg", Path("https://example.com/cat.jpg"), "s3://bucket/cat.jpg"):
        with pytest.raises(InvalidInputError, match="an address, and images are read from disk alone; download it"):
            open_image(address)


def test_formats_that_start_other_programs_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.eps")
    with pytest.raises(InvalidInputError, match="not an image in one of the formats"):
        open_image(tmp_path / "a.eps")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"])
def test_damage_is_one_clear_error(tmp_path: Path, ending: str) -> None:
    """Cut off anywhere, or with bytes changed: an image or our error, and nothing else."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    content = save(tmp_path / f"whole{ending}", noise).read_bytes()
    path, refused = tmp_path / f"damaged{ending}", 0
    rng = np.random.default_rng(1)
    for i in range(60):
        damaged = bytearray(content)
        if i % 2:
            damaged[rng.integers(len(damaged))] ^= 0xFF
        else:
            del damaged[rng.integers(1, len(damaged)) :]
        path.write_bytes(damaged)
        try:
            assert open_image(path).size
        except InvalidInputError as error:
            assert str(error)
            refused += 1
    assert refused >= 20


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 100_000])
def test_too_many_pixels_are_refused_unread(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(bomb(side, side))
    with pytest.raises(InvalidInputError, match=f"more than {Image.MAX_IMAGE_PIXELS} pixels"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("max_pixels", [47, 48, None])
def test_bytes_are_read_within_a_bound(max_pixels: int | None) -> None:
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "png")
    if max_pixels == 47:
        with pytest.raises(InvalidInputError, match="more than 47 pixels"):
            read_image(file, max_pixels)
    else:
        np.testing.assert_array_equal(np.asarray(read_image(file, max_pixels)), GREY)


def test_a_bomb_in_bytes_is_refused_whatever_the_filters() -> None:
    for side in (10_000, 100_000):  # Pillow warns of the first, which is an error here, and refuses the second
        with pytest.raises(InvalidInputError, match="more than 25 pixels"):
            read_image(io.BytesIO(bomb(side, side)), 25)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions that bind")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    path.chmod(0)
    with pytest.raises(InvalidInputError, match="Permission denied"):
        open_image(path)


# --- fitting them -----------------------------------------------------------------------------------------------------


def test_digits_survive_the_way_through_a_file() -> None:
    """Saved in 8 bits, at four times the size, and back: within what rounding loses."""
    for digit in load_digits().images[:20]:
        pixels = (digit * 255 / 16).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(file, "png")
        item = as_item(Image.open(file), (8, 8, 1), (0.0, 16.0))
        assert item.shape == (8, 8, 1)
        np.testing.assert_allclose(item[..., 0], digit, atol=16 / 255 / 2 + 1e-9)


def test_black_and_white_become_the_ends_of_the_range() -> None:
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8))
    assert as_item(image, (1, 2, 1), (-1.0, 3.0)).ravel().tolist() == [-1, 3]


@pytest.mark.parametrize("pixel_range", [None, (0.0, 255.0)])
def test_eight_bit_models_get_eight_bits(pixel_range: tuple[float, float] | None) -> None:
    item = as_item(Image.fromarray(GREY), (6, 8, 3), pixel_range)
    assert (item.dtype, item.shape) == (np.uint8, (6, 8, 3))
    np.testing.assert_array_equal(item, np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_fits_every_number_of_channels(mode: str, channels: int) -> None:
    item = as_item(Image.new(mode, (30, 20)), (8, 10, channels), (0.0, 1.0))
    assert item.shape == (8, 10, channels)
    assert item.min() >= 0
    assert item.max() <= 1


@pytest.mark.parametrize("shape", [None, (6, 8, 1), (6, 8, 3), (6, 8, 4)])
def test_a_palette_with_transparency_fits_without_a_warning(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    Image.fromarray(GREY).quantize(8).save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    image = open_image(tmp_path / "a.png")
    assert isinstance(image.info["transparency"], bytes)
    assert np.shape(as_item(image, shape, None)) == (shape or (6, 8, 3))


def test_models_of_any_size_get_the_image_itself() -> None:
    item = as_item(Image.fromarray(GREY), None, None)
    assert (item.mode, item.size) == ("RGB", (8, 6))


def test_shapes_that_no_file_can_fill_are_refused() -> None:
    for shape in (None, (8, 8, 1), (8, 8, 3), (8, 8, 4)):
        check_image_shape(shape)
    for wrong in ((64,), (8, 8, 2)):
        with pytest.raises(InvalidInputError, match="image files cannot be made into"):
            check_image_shape(wrong)
