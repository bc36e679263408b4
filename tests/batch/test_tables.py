"""Rows of Parquet files: read once, whatever the parts, and the same in any order."""

import io
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybridclf.batch import tables
from hybridclf.batch.folders import LocalFolder
from hybridclf.batch.tables import RowReader, count_rows
from hybridclf.errors import InvalidInputError
from tests.batch.test_inputs import cells, png, save_parquet

PARTS = [range(start, start + 4) for start in range(0, 20, 4)]


class Counting(io.FileIO):
    """File that counts the bytes that are read, and remembers all of its kind."""

    every: list["Counting"]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.n_bytes = 0
        self.every.append(self)

    def read(self, *args: Any) -> Any:
        content = super().read(*args)
        self.n_bytes += len(content)
        return content


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """The files that were opened."""
    Counting.every = []
    monkeypatch.setattr(LocalFolder, "open", lambda self, name: Counting(self.path / name))
    return Counting.every


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH", 4)


def in_order(folder: Path, order: list[range], name: str = "a.parquet") -> dict[range, list[bytes | str]]:
    """Bytes or error of every row, part by part, all read by one reader."""
    reader = RowReader(LocalFolder(folder))
    read = {rows: [c if isinstance(c, bytes) else str(c) for c in reader.read(name, rows)] for rows in order}
    return {rows: read[rows] for rows in sorted(order, key=lambda rows: rows.start)}


def noise(path: Path, n: int = 400, size: int = 20_000) -> list[bytes]:
    """Random bytes of n rows, in one row group of small pages."""
    contents = [np.random.default_rng(i).bytes(size) for i in range(n)]
    pages: dict[str, Any] = {"data_page_size": 2**14, "write_batch_size": 4, "use_dictionary": False}
    save_parquet(path, [{"bytes": content, "path": None} for content in contents], **pages)
    return contents


def damage(path: Path, row_group: int, start: float, stop: float) -> None:
    """Overwrite a share of the bytes of the images in a row group."""
    column = pq.read_metadata(path).row_group(row_group).column(1)
    content = bytearray(path.read_bytes())
    first = column.dictionary_page_offset or column.data_page_offset
    size = column.total_compressed_size
    for at in range(first + int(start * size), first + int(stop * size)):
        content[at] = 0
    path.write_bytes(content)


def test_a_row_group_is_read_once_for_all_parts(tmp_path: Path, files: list[Counting]) -> None:
    contents = noise(tmp_path / "a.parquet")
    parts = [range(start, start + 10) for start in range(0, 400, 10)]
    assert list(chain(*in_order(tmp_path, parts).values())) == contents
    (file,) = files
    assert file.n_bytes < 1.2 * (tmp_path / "a.parquet").stat().st_size


def test_a_row_group_is_read_once_for_every_third_part(tmp_path: Path, files: list[Counting]) -> None:
    """As by one of three workers that take parts in turn."""
    contents = noise(tmp_path / "a.parquet")
    parts = [range(start, start + 10) for start in range(0, 400, 30)]
    assert in_order(tmp_path, parts) == {rows: contents[rows.start : rows.stop] for rows in parts}
    (file,) = files
    assert file.n_bytes < 1.2 * (tmp_path / "a.parquet").stat().st_size


def test_a_part_does_not_read_its_whole_row_group(tmp_path: Path, files: list[Counting]) -> None:
    contents = noise(tmp_path / "a.parquet")
    assert in_order(tmp_path, [range(4)]) == {range(4): contents[:4]}
    assert files[0].n_bytes < 400 * 20_000 / 3


def test_a_part_reads_no_other_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parquet(tmp_path / "a.parquet", cells(range(20)), row_group_size=5)
    asked = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, **options: Any) -> Any:
        asked.append(options["row_groups"])
        return iter_batches(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    in_order(tmp_path, PARTS)
    assert asked == [[0], [1], [2], [3]]
    asked.clear()
    assert in_order(tmp_path, [PARTS[2]]) == {PARTS[2]: [png(value) for value in range(8, 12)]}
    assert asked == [[1], [2]]
    asked.clear()
    in_order(tmp_path, [PARTS[0], PARTS[4]])
    assert asked == [[0], [3]]  # and none between two parts


@pytest.mark.parametrize("row_group_size", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "order", [PARTS, PARTS[::-1], [PARTS[i] for i in (2, 3, 0, 1, 4)], [PARTS[i] for i in (0, 2, 4, 1, 3)]]
)
def test_parts_in_any_order(tmp_path: Path, order: list[range], row_group_size: int) -> None:
    save_parquet(tmp_path / "a.parquet", cells(range(20)), row_group_size=row_group_size)
    assert in_order(tmp_path, order) == {rows: [png(value) for value in rows] for rows in PARTS}


def test_a_part_that_was_given_up_is_read_anew(tmp_path: Path) -> None:
    save_parquet(tmp_path / "a.parquet", cells(range(8)))
    reader = RowReader(LocalFolder(tmp_path))
    begun = reader.read("a.parquet", range(4))
    assert next(begun) == png(0)
    assert list(reader.read("a.parquet", range(4))) == [png(value) for value in range(4)]
    assert list(reader.read("a.parquet", range(4, 8))) == [png(value) for value in range(4, 8)]


def test_one_file_is_open_at_a_time(tmp_path: Path, files: list[Counting]) -> None:
    for name in ("a.parquet", "b.parquet"):
        save_parquet(tmp_path / name, cells(range(8)))
    reader = RowReader(LocalFolder(tmp_path))
    for name, rows in (("a.parquet", range(4)), ("a.parquet", range(4, 8)), ("b.parquet", range(4))):
        assert len(list(reader.read(name, rows))) == 4
    assert [file.closed for file in files] == [True, False]
    del reader
    assert files[1].closed


def test_damage_costs_the_rows_behind_it(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", cells(range(12)), row_group_size=4, compression="zstd")
    damage(path, 1, 0, 1)
    first, second, third = in_order(tmp_path, PARTS[:3]).values()
    assert first + third == [png(value) for value in (*range(4), *range(8, 12))]
    assert all("cannot be read here" in str(row) for row in second)


def test_damage_costs_the_same_rows_in_any_order(tmp_path: Path) -> None:
    contents = noise(tmp_path / "a.parquet", 20)
    damage(tmp_path / "a.parquet", 0, 0.39, 0.41)  # the head of the page that begins with row 8
    parts = [range(0, 6), range(6, 12), range(12, 18), range(18, 20)]
    answers = in_order(tmp_path, parts)
    assert in_order(tmp_path, parts[::-1]) == answers
    assert answers[parts[0]] == contents[:6]
    assert all("cannot be read here" in str(row) for rows in parts[1:] for row in answers[rows][-2:])


def test_a_name_that_is_no_unicode_costs_no_image(tmp_path: Path) -> None:
    contents = pa.array([b"one", None, b"three"])
    names = pa.Array.from_buffers(pa.string(), 3, pa.array([b"1.png", b"caf\xe9.png", b"3.png"]).buffers())
    table = pa.table({"image": pa.StructArray.from_arrays([contents, names], ["bytes", "path"])})
    pq.write_table(table, tmp_path / "a.parquet")
    one, two, three = RowReader(LocalFolder(tmp_path)).read("a.parquet", range(3))
    assert (one, three) == (b"one", b"three")
    assert "the row holds no image bytes" in str(two)


def test_rows_are_counted_where_there_are_images(tmp_path: Path) -> None:
    save_parquet(tmp_path / "a.parquet", cells(range(7)), row_group_size=3)
    assert count_rows(LocalFolder(tmp_path), "a.parquet") == 7
    with pytest.raises(InvalidInputError, match=r"b\.parquet cannot be read as Parquet"):
        count_rows(LocalFolder(tmp_path), "b.parquet")
