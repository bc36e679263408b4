"""Labelled images, listed before any is read."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hybridclf.data.listing import list_labelled
from hybridclf.errors import InvalidInputError
from tests.data.test_datasets import folder, of_class, table


def test_class_numbers_are_those_of_the_items(tmp_path: Path) -> None:
    found = list_labelled(folder(tmp_path / "folder", cat=2, dog=3))
    assert list(found.class_numbers()) == [item.y for item in found.items] == [0, 0, 1, 1, 1]
    for i in range(2):
        table(tmp_path / f"train-0000{i}-of-00002.parquet", [1, 0, 1], of_class(["ant", "bee"]))
    found = list_labelled(tmp_path)
    assert list(found.class_numbers()) == [item.y for item in found.items] == [1, 0, 1, 1, 0, 1]


def test_class_numbers_of_a_table_are_read_without_its_images(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", ["b", "a", "b"])
    images = pq.read_metadata(path).row_group(0).column(0)
    content = bytearray(path.read_bytes())
    start = images.dictionary_page_offset or images.data_page_offset
    content[start : start + images.total_compressed_size] = bytes(images.total_compressed_size)
    path.write_bytes(content)
    found = list_labelled(path)
    assert list(found.class_numbers()) == [1, 0, 1]
    with pytest.raises(InvalidInputError, match="is damaged"):
        list(found.items)


def test_class_numbers_of_unknown_labels_are_refused(tmp_path: Path) -> None:
    found = list_labelled(table(tmp_path / "x.parquet", [0, 2], of_class(["a", "b"])))
    with pytest.raises(InvalidInputError, match="label 2, which is no class"):
        list(found.class_numbers())


def test_a_file_of_a_csv_with_a_name_that_is_too_long_is_unreadable_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "x.csv").write_text(f"path,label\n{300 * 'a'}.png,cat\na.png,dog\n")
    first, _ = list_labelled(tmp_path / "x.csv").items
    with pytest.raises(InvalidInputError, match="File name too long"):
        first.open()
