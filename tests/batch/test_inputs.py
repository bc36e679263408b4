"""What a batch reads: parts that are the same on every listing, and every image of them or an error."""

import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hybridclf.batch import inputs
from hybridclf.batch.inputs import Reader, list_input
from hybridclf.data.decoders import Decoders
from hybridclf.errors import InvalidInputError


def png(value: int) -> bytes:
    """A picture of one pixel of that value."""
    file = io.BytesIO()
    Image.new("L", (1, 1), value).save(file, "png")
    return file.getvalue()


def save_parquet(path: Path, cells: list[Any], column: str = "image", **options: Any) -> Path:
    """A table in the layout of Hugging Face's datasets."""
    image = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"label": np.arange(len(cells)), column: image}), path, **options)
    return path


def cells(values: range) -> list[Any]:
    return [{"bytes": png(value), "path": f"{value}.png"} for value in values]


def values(source: Path) -> list[int | str]:
    """Every image's pixel, or the error in its place."""
    listing = list_input(source)
    with Decoders(1) as decoders:
        reader = Reader(listing.folder, partial(decoders.decode, shape=(1, 1, 1)))
        images = [image for part in listing.parts for image in reader.read(part)]
    assert len(images) == len(listing)
    return [str(i) if isinstance(i, InvalidInputError) else i.getpixel((0, 0)) for i in images]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PART", 4)


# --- image files ------------------------------------------------------------------------------------------------------


def test_image_files_in_order_of_their_paths(tmp_path: Path) -> None:
    for i, name in enumerate(["a.png", "b/a.png", "b/b.PNG", "c.png", "d.png", ".hidden/e.png", "notes.txt"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(i))
    listing = list_input(tmp_path)
    assert [part.files for part in listing.parts] == [("a.png", "b/a.png", "b/b.PNG", "c.png"), ("d.png",)]
    assert [part.number for part in listing.parts] == [0, 1]
    assert listing.parts[1].sources() == [("d.png", None)]
    assert values(tmp_path) == [0, 1, 2, 3, 4]


def test_files_that_cannot_be_read_are_errors_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    (tmp_path / "b.png").write_bytes(png(7))
    (tmp_path / "c.png").symlink_to("nowhere.png")
    first, second, third = values(tmp_path)
    assert "not an image" in str(first)
    assert second == 7
    assert "No such file" in str(third)


def test_the_digest_follows_names_and_sizes_and_not_the_folder(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png(1))
    digest = list_input(tmp_path / "one").sha256
    assert list_input(tmp_path / "two").sha256 == digest
    (tmp_path / "two" / "a.png").rename(tmp_path / "two" / "b.png")
    assert list_input(tmp_path / "two").sha256 != digest
    with (tmp_path / "one" / "a.png").open("ab") as file:
        file.write(b"more")
    assert list_input(tmp_path / "one").sha256 != digest


# --- Parquet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row_group_size", [1, 3, 4, 7, 100])
def test_rows_come_in_order_whatever_the_row_groups(tmp_path: Path, row_group_size: int) -> None:
    save_parquet(tmp_path / "sub" / "b.parquet", cells(range(10, 20)), row_group_size=row_group_size)
    save_parquet(tmp_path / "a.parquet", cells(range(10)), row_group_size=row_group_size)
    listing = list_input(tmp_path)
    assert [(part.files, part.rows) for part in listing.parts] == [
        ((name,), rows) for name in ("a.parquet", "sub/b.parquet") for rows in (range(4), range(4, 8), range(8, 10))
    ]
    assert listing.parts[5].sources() == [("sub/b.parquet", 8), ("sub/b.parquet", 9)]
    assert values(tmp_path) == list(range(20))


def test_one_parquet_file_with_any_name_for_its_column(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", cells(range(5)), column="img")
    (tmp_path / "beside.png").write_bytes(png(1))
    assert values(path) == list(range(5))


def test_cells_without_an_image_are_errors(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png(9))
    wrong = [None, {"bytes": None, "path": str(tmp_path / "secret.png")}, {"bytes": b"", "path": None}]
    path = save_parquet(tmp_path / "a.parquet", [*wrong, {"bytes": b"nonsense", "path": None}, *cells(range(1))])
    answers = values(path)
    assert all("no image bytes" in str(answer) for answer in answers[:3])
    assert "not an image" in str(answers[3])
    assert answers[4] == 0


def test_a_failing_decoder_costs_no_row(tmp_path: Path) -> None:
    def failing(_: bytes | Path) -> Image.Image:
        raise OSError("no process can be started")

    listing = list_input(save_parquet(tmp_path / "a.parquet", cells(range(3))))
    with pytest.raises(OSError, match="no process can be started"):
        list(Reader(listing.folder, failing).read(listing.parts[0]))


# --- what is refused --------------------------------------------------------------------------------------------------


def test_nothing_to_classify_is_refused(tmp_path: Path) -> None:
    for name in ("missing", "missing.parquet"):
        with pytest.raises(InvalidInputError, match=f"there is no .*{name}; give a folder of images"):
            list_input(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InvalidInputError, match="neither a folder nor a Parquet file"):
        list_input(tmp_path / "notes.txt")
    with pytest.raises(InvalidInputError, match=r"no image in it: no file ends in \.bmp"):
        list_input(tmp_path)
    save_parquet(tmp_path / "a.parquet", [])
    with pytest.raises(InvalidInputError, match="no row in"):
        list_input(tmp_path)


def test_a_mixture_is_refused(tmp_path: Path) -> None:
    save_parquet(tmp_path / "a.parquet", cells(range(1)))
    (tmp_path / "b.png").write_bytes(png(1))
    with pytest.raises(InvalidInputError, match=r"several kinds of files \(a.parquet, b.png\)"):
        list_input(tmp_path)


def test_tables_without_one_column_of_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("no table")
    with pytest.raises(InvalidInputError, match="cannot be read as Parquet"):
        list_input(path)
    pq.write_table(pa.table({"pixels": [1], "label": [2]}), path)
    with pytest.raises(InvalidInputError, match="it has none among pixels, label"):
        list_input(path)
    pq.write_table(pa.table({"audio": [{"bytes": [1, 2], "path": "a.wav"}]}), path)
    with pytest.raises(InvalidInputError, match="one column of images"):
        list_input(path)
    image = pa.array(cells(range(1)))
    pq.write_table(pa.table({"left": image, "right": image}), path)
    with pytest.raises(InvalidInputError, match="one column of images, such as 'image'; it has several: left, right"):
        list_input(path)
    pq.write_table(pa.table({"left": image, "image": image}), path)
    assert values(path) == [0]


# --- columns ----------------------------------------------------------------------------------------------------------


def test_a_column_of_plain_bytes(tmp_path: Path) -> None:
    hashes = pa.array([b"x", b"y", b"z"])
    images = pa.array([png(1), None, png(3)], pa.large_binary())
    table = pa.table({"key": ["a", "b", "c"], "sha": hashes, "jpg": images})
    pq.write_table(table, tmp_path / "a.parquet")
    first, second, third = values(tmp_path)
    assert (first, third) == (1, 3) and "the row holds no image bytes" in str(second)
    pq.write_table(table.drop_columns("jpg"), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"none among key, sha, and a column of plain .*: rename 'sha'"):
        list_input(tmp_path)


def test_structs_go_before_plain_bytes(tmp_path: Path) -> None:
    image = pa.array(cells(range(2)), pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"embedding": pa.array([b"x", b"y"]), "photo": image}), tmp_path / "a.parquet")
    assert values(tmp_path) == [0, 1]


def test_several_images_in_a_row_are_refused(tmp_path: Path) -> None:
    images = pa.array([cells(range(2))], pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})))
    pq.write_table(pa.table({"images": images}), tmp_path / "a.parquet")
    with pytest.raises(InvalidInputError, match=r"several images in a row, in 'images'; .*explode\('images'\)"):
        list_input(tmp_path)
    import pandas as pd

    pd.read_parquet(tmp_path / "a.parquet").explode("images").to_parquet(tmp_path / "a.parquet")
    assert values(tmp_path) == [0, 1]
