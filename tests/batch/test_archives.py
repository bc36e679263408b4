"""Images in tar archives."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from hybridclf.batch import archives, inputs
from hybridclf.batch.inputs import Reader, list_input
from hybridclf.errors import InvalidInputError
from tests.batch.test_inputs import png, values


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PART", 4)


def save_tar(path: Path, contents: dict[str, bytes], mode: str = "w") -> Path:
    """An archive of these files, as WebDataset writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def shard(values: range) -> dict[str, bytes]:
    """Samples of an image, a class number and some JSON each."""
    return {f"{v:04}.{end}": png(v) if end == "png" else b"{}" for v in values for end in ("cls", "json", "png")}


def test_images_of_archives_in_order(tmp_path: Path) -> None:
    save_tar(tmp_path / "b.tar", shard(range(6, 8)))
    save_tar(tmp_path / "a.tar", shard(range(6)))
    save_tar(tmp_path / "c.tar", {"notes.txt": b"no image"})
    listing = list_input(tmp_path)
    assert [(part.number, part.files, len(part)) for part in listing.parts] == [
        (0, ("a.tar",), 4),
        (1, ("a.tar",), 2),
        (2, ("b.tar",), 2),
    ]
    assert listing.parts[1].sources() == [("a.tar/0004.png", None), ("a.tar/0005.png", None)]
    assert values(tmp_path) == list(range(8))
    assert values(tmp_path / "b.tar") == [6, 7]


def test_links_folders_and_devices_are_no_images(tmp_path: Path) -> None:
    save_tar(tmp_path / "a.tar", {"1.png": png(1)})
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for name, kind in {"2.png": tarfile.SYMTYPE, "3.png": tarfile.DIRTYPE, "4.png": tarfile.FIFOTYPE}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    first, link = values(tmp_path / "a.tar")
    assert first == 1 and "a link or a sparse file in an archive" in str(link)


def test_hidden_names_are_skipped_and_of_one_name_the_last_counts(tmp_path: Path) -> None:
    path = save_tar(tmp_path / "a.tar", {"./a/._1.png": b"", "./a/1.png": png(1), ".b/2.png": png(2), "3.png": png(3)})
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("3.png")
        entry.size = len(png(4))
        archive.addfile(entry, io.BytesIO(png(4)))
    assert values(path) == [1, 4]


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:2048] + bytes([whole[2048] ^ 1]) + whole[2049:],  # a name in the third header
        lambda whole: whole[:2048],  # cut off between two members
        lambda whole: whole[:2148],  # within a header
        lambda whole: whole[:2048] + bytes(512) + whole[2560:],  # a header of zeros
        lambda whole: whole + whole,
        lambda whole: whole[:124] + b"\xff" * 10 + b"\xfe\x00" + whole[136:],  # a size of -512
        lambda whole: whole[:124] + b"\x80" + bytes(3) + b"\x40" + bytes(7) + whole[136:156] + b"L" + whole[157:],
    ],
)
def test_a_damaged_archive_is_refused_and_never_read_in_part(tmp_path: Path, damage: Any) -> None:
    path = save_tar(tmp_path / "a.tar", {f"{i}.png": png(i) for i in range(4)})
    content = bytearray(damage(path.read_bytes()))
    if len(content) > 512 and content[124] >= 0x80:  # the checksum of the first header, as a hostile writer makes it
        total = sum(content[:148]) + 8 * 32 + sum(content[156:512])
        content[148:156] = b"%06o\0 " % total
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a\.tar cannot be read as an uncompressed tar archive"):
        list_input(path)


def test_an_image_that_cannot_be_read_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    path = save_tar(tmp_path / "a.tar", {"1.png": png(1), "2.png": b"nothing", "3.png": bytes(2000), "4.png": png(4)})
    first, second, third, fourth = values(path)
    assert (first, fourth) == (1, 4)
    assert "not an image" in str(second) and "more than 1,000 bytes" in str(third)
    listing = list_input(path)
    path.write_bytes(path.read_bytes()[:520])  # within the first picture, after the listing
    assert all(
        "the archive ends within this image" in str(error)
        for error in Reader(listing.folder, open).read(listing.parts[0])
        if "1,000" not in str(error)
    )


def test_what_is_no_archive_of_images(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no archive")
    save_tar(tmp_path / "packed.tar", shard(range(2)), "w:gz")
    whole = save_tar(tmp_path / "cut.tar", shard(range(2))).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:-11_000])
    for name in ("text.tar", "packed.tar", "cut.tar"):
        with pytest.raises(InvalidInputError, match=f"{name} cannot be read as an uncompressed tar archive"):
            list_input(tmp_path / name)
    save_tar(tmp_path / "empty.tar", {"a.txt": b""})
    with pytest.raises(InvalidInputError, match=r"there is no image in .*empty\.tar; none ends in \.bmp"):
        list_input(tmp_path / "empty.tar")
    (tmp_path / "a.png").write_bytes(png(1))
    with pytest.raises(InvalidInputError, match=r"holds several kinds of files \(.*\); give one"):
        list_input(tmp_path)
