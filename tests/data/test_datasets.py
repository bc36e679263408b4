"""Labelled images: where they come from, what is left out, and what is refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf.data import datasets
from hybridclf.data.datasets import (
    channel_statistics,
    largest_multiple,
    load_labelled,
    numbered,
    typical_side,
    without_gaps,
)
from hybridclf.errors import InvalidInputError

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def folder(path: Path, **counts: int) -> Path:
    """A subfolder per class with so many pictures, in order."""
    pictures = iter(PICTURES)
    for name, count in counts.items():
        (path / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(next(pictures)).save(path / name / f"{i}.png")
    return path


def encoded(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def table(path: Path, labels: list[Any] | pa.Array, metadata: dict[str, str] | None = None, **columns: Any) -> Path:
    """A Parquet file as `datasets` writes it: image {bytes, path}, label."""
    images = [{"bytes": encoded(picture), "path": None} for picture in PICTURES[: len(labels)]]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = pa.table({"image": pa.array(images, kind), "label": labels, **columns})
    pq.write_table(made.replace_schema_metadata(metadata), path)
    return path


def of_class(names: list[str]) -> dict[str, str]:
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_subfolder_is_a_class(tmp_path: Path) -> None:
    folder(tmp_path, cat=2, dog=3)
    (tmp_path / ".git").mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("no image, and not taken for one")
    found = load_labelled(tmp_path, 16)
    np.testing.assert_array_equal(found.pixels, PICTURES[:5])
    assert found.pixels.dtype == np.uint8
    assert (found.classes, found.y.tolist(), found.unreadable) == (["cat", "dog"], [0, 0, 1, 1, 1], ())


def test_images_are_stretched_to_the_size(tmp_path: Path) -> None:
    for name, size in (("wide", (32, 8)), ("grey", (16, 16))):
        (tmp_path / name).mkdir()
        Image.new("L", size, 90).save(tmp_path / name / "a.jpg")
    assert load_labelled(tmp_path, 8).pixels.shape == (2, 8, 8, 3)


def test_digits() -> None:
    digits, found = load_digits(), load_labelled("digits", 8)
    np.testing.assert_array_equal(found.pixels[..., 1], (digits.images * 255 / 16).round())
    assert found.y.tolist() == digits.target.tolist()
    assert found.classes == list("0123456789")


def test_a_few_damaged_files_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, cat=3, dog=3)
    (tmp_path / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(
        InvalidInputError, match=r"1 of 6 images cannot be read, more than 5%; the first: .*1\.png: not an"
    ):
        load_labelled(tmp_path, 16)
    monkeypatch.setattr(datasets, "MAX_UNREADABLE", 0.2)
    found = load_labelled(tmp_path, 16)
    np.testing.assert_array_equal(found.pixels, np.delete(PICTURES, 1, axis=0))
    assert found.y.tolist() == [0, 0, 1, 1, 1]
    (line,) = found.unreadable
    assert str(tmp_path / "cat" / "1.png") in line and "not an image" in line


def test_a_class_whose_only_files_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MAX_UNREADABLE", 0.5)
    folder(tmp_path, cat=3, dog=1)
    (tmp_path / "dog" / "0.png").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="'dog' has no image that can be read"):
        load_labelled(tmp_path, 16)


def test_what_a_folder_must_hold(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InvalidInputError, match=r"no subfolders; give a folder with a subfolder of images per class"):
        load_labelled(empty, 16)
    with pytest.raises(InvalidInputError, match="there is no"):
        load_labelled(tmp_path / "missing", 16)
    with pytest.raises(InvalidInputError, match=r"holds 'cat'; a classifier needs at least 2"):
        load_labelled(folder(tmp_path / "one", cat=2), 16)
    (folder(tmp_path / "hollow", cat=2) / "dog").mkdir()
    with pytest.raises(InvalidInputError, match="class 'dog' has no image in"):
        load_labelled(tmp_path / "hollow", 16)
    with pytest.raises(InvalidInputError, match=r"holds test, train, which are no classes; give .*test or the like"):
        load_labelled(folder(tmp_path / "splits", train=1, test=1), 16)


@pytest.mark.parametrize("name", ["x.tsv", "x.zip", "gray.png", "captions.json", "x"])
def test_a_file_of_another_kind_is_not_called_damaged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("PK")
    with pytest.raises(InvalidInputError, match=rf"{name} is neither a folder, nor \.parquet, nor .*; give") as got:
        load_labelled(tmp_path / name, 16)
    assert ("captions in .jsonl" in str(got.value)) == name.endswith(".json")


def test_more_than_memory_holds_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "MAX_BYTES", 6 * 3 * 16**2 - 1)
    folder(tmp_path, cat=3, dog=3)
    (tmp_path / "cat" / "0.png").write_bytes(b"would be found damaged")
    with pytest.raises(InvalidInputError, match=r"6 images of 16x16 pixels take .* smaller image size, or give fewer"):
        load_labelled(tmp_path, 16)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_with_names(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", [1, 0, 1, 0], of_class(["zebra", "ant"]), width=[16] * 4)
    found = load_labelled(path, 16)
    np.testing.assert_array_equal(found.pixels, PICTURES[:4])
    assert (found.classes, found.y.tolist()) == (["zebra", "ant"], [1, 0, 1, 0])


def test_parquet_by_any_name(tmp_path: Path) -> None:
    assert load_labelled(table(tmp_path / "0123abc", [0, 1]), 16).y.tolist() == [0, 1]


@pytest.mark.parametrize("labels", [[7, 3, 7, 3], ["7", "3", "7", "3"]])
def test_parquet_without_names(tmp_path: Path, labels: list[Any]) -> None:
    found = load_labelled(table(tmp_path / "x.parquet", labels), 16)
    assert (found.classes, found.y.tolist()) == (["3", "7"], [1, 0, 1, 0])


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["7", "3", "7", "3"], pa.string_view()),
        pa.array(["7", "3", "7", "3"], pa.large_string()),
        pa.array(["7", "3", "7", "3"]).dictionary_encode(),
        pa.array([7, 3, 7, 3]).dictionary_encode(),
    ],
    ids=lambda labels: str(labels.type),
)
def test_labels_of_any_type_of_text_or_number(tmp_path: Path, labels: pa.Array) -> None:
    found = load_labelled(table(tmp_path / "x.parquet", labels, track=labels), 16, group="track")
    assert (found.classes, found.y.tolist(), found.groups.tolist()) == (["3", "7"], [1, 0, 1, 0], [0, 1, 0, 1])


def test_categories_of_pandas(tmp_path: Path) -> None:
    import pandas as pd

    images = [{"bytes": encoded(picture), "path": None} for picture in PICTURES[:4]]
    kinds = pd.Categorical(["dog", "cat", "dog", "cat"], categories=["elk", "dog", "cat"])
    pd.DataFrame({"image": images, "label": kinds}).to_parquet(tmp_path / "x.parquet")
    found = load_labelled(tmp_path / "x.parquet", 16)
    assert (found.classes, found.y.tolist()) == (["cat", "dog"], [1, 0, 1, 0])


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view()], ids=str)
def test_a_row_without_a_label_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    path = table(tmp_path / "x.parquet", pa.array(["a", None, "b"], kind))
    with pytest.raises(InvalidInputError, match="the label None, which is no class of it"):
        load_labelled(path, 16)


def test_the_parts_of_a_split_are_one_table(tmp_path: Path) -> None:
    for i in range(2):
        table(tmp_path / f"train-0000{i}-of-00002.parquet", [0, 1], of_class(["a", "b"]))
    assert load_labelled(tmp_path, 16).y.tolist() == [0, 1, 0, 1]
    table(tmp_path / "train-00001-of-00002.parquet", [0, 1], of_class(["b", "a"]))
    with pytest.raises(InvalidInputError, match=r"train-00001.* other columns or classes than .*train-00000"):
        load_labelled(tmp_path, 16)
    table(tmp_path / "test-00000-of-00001.parquet", [0, 1])
    with pytest.raises(InvalidInputError, match="several tables: test, train; give one file"):
        load_labelled(tmp_path, 16)


def test_what_parquet_must_hold(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InvalidInputError, match="cannot be read as Parquet"):
        load_labelled(tmp_path / "text.parquet", 16)
    pq.write_table(pa.table({"label": [0, 1]}), tmp_path / "labels.parquet")
    with pytest.raises(InvalidInputError, match="one column of images, such as 'image'; it has none among label"):
        load_labelled(tmp_path / "labels.parquet", 16)
    images = pq.read_table(table(tmp_path / "x.parquet", [0, 1], fine=[0, 1])).rename_columns(["image", "a", "b"])
    pq.write_table(images, tmp_path / "two.parquet")
    with pytest.raises(InvalidInputError, match="one column of labels, such as 'label'; it has several: a, b"):
        load_labelled(tmp_path / "two.parquet", 16)
    with pytest.raises(InvalidInputError, match="'c' has no image"):
        load_labelled(table(tmp_path / "hollow.parquet", [0, 1], of_class(["a", "b", "c"])), 16)
    with pytest.raises(InvalidInputError, match="label 2, which is no class"):
        load_labelled(table(tmp_path / "other.parquet", [0, 2], of_class(["a", "b"])), 16)


def test_files_that_a_table_only_names_are_not_opened(tmp_path: Path) -> None:
    Image.fromarray(PICTURES[0]).save(tmp_path / "secret.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}] * 2, kind)
    pq.write_table(pa.table({"image": images, "label": [0, 1]}), tmp_path / "x.parquet")
    with pytest.raises(InvalidInputError, match=r"2 of 2 images cannot be read.*no bytes"):
        load_labelled(tmp_path / "x.parquet", 16)


def test_shared_cifar10(shared_data: Path) -> None:
    found = load_labelled(shared_data / "cifar10-test.parquet", 32)
    assert found.pixels.shape == (5000, 32, 32, 3)
    assert (found.classes[0], found.classes[-1]) == ("airplane", "truck")
    assert np.bincount(found.y).tolist() == [500] * 10


# --- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [["x", "y", "x", None, None], [7, 9, 7, None, None], [True, False, True, None, None]]
)
def test_a_column_says_what_belongs_together(tmp_path: Path, values: list[Any]) -> None:
    labels = [0, 1, 1, 0, 1]
    path = table(tmp_path / "x.parquet", labels, group=values)
    assert load_labelled(path, 16).groups.tolist() == [0, 1, 0, 2, 3]
    path = table(tmp_path / "y.parquet", labels, track=values)
    assert load_labelled(path, 16).groups.tolist() == [0, 1, 2, 3, 4]
    assert load_labelled(path, 16, group="track").groups.tolist() == [0, 1, 0, 2, 3]


def test_groups_of_what_could_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MAX_UNREADABLE", 0.5)
    made = pq.read_table(table(tmp_path / "x.parquet", [0, 1, 0, 1], group=["a", "b", "b", "a"]))
    rows = made.to_pylist()
    rows[1]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows, schema=made.schema), tmp_path / "x.parquet")
    assert load_labelled(tmp_path / "x.parquet", 16).groups.tolist() == [0, 1, 0]


def test_groups_that_are_not_there(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", [0, 1], track=[1, 2], tags=[["a"], ["b"]])
    with pytest.raises(InvalidInputError, match=r"no column 'tracks' of single values.*it has label, track$"):
        load_labelled(path, 16, group="tracks")
    with pytest.raises(InvalidInputError, match=r"no column 'tags' of single values"):
        load_labelled(path, 16, group="tags")
    for source in (folder(tmp_path / "pictures", cat=1, dog=1), "digits"):
        with pytest.raises(InvalidInputError, match=r"has no column 'track'; only Parquet and CSV have"):
            load_labelled(source, 16, group="track")


def test_channel_statistics() -> None:
    pixels = RNG.integers(0, 256, (2500, 2, 3, 3), dtype=np.uint8)
    mean, scale = channel_statistics(pixels)
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(scale, pixels.std(axis=(0, 1, 2)))


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", [0, 1, 2], metadata=of_class(["crane", "dog", "crane"]))
    with pytest.raises(InvalidInputError, match="several classes named 'crane'; rename all but one"):
        load_labelled(path, 16)


def test_names_are_those_of_the_images_that_were_read(tmp_path: Path) -> None:
    data = folder(tmp_path, a=2, b=2)
    assert [Path(name).relative_to(data).as_posix() for name in load_labelled(data, 16).names] == [
        "a/0.png",
        "a/1.png",
        "b/0.png",
        "b/1.png",
    ]


def test_the_side_to_read_images_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path, a=2, b=2)
    Image.new("RGB", (40, 30)).save(data / "a" / "0.png")
    (data / "a" / "2.png").write_bytes(b"damaged")
    assert typical_side(data) == 16  # the median of 40, 16, 16, 16
    assert [largest_multiple(data, 8, wanted) for wanted in (0, 8, 23, 24)] == [8, 8, 16, 24]
    monkeypatch.setattr(datasets, "MAX_BYTES", 2 * 5 * 3 * 16**2)  # five images, the damaged one too, twice
    assert largest_multiple(data, 8, 64) == 16


def test_each_gap_among_groups_is_a_group_of_its_own() -> None:
    groups = ["b", None, "a", float("nan"), "b", np.datetime64("NaT"), None]
    assert numbered(groups).tolist() == [0, 1, 2, 3, 0, 4, 5]
    assert without_gaps(["a", float("nan"), float("nan"), "b", "a"]).tolist() == [0, 1, 2, 3, 0]
    assert without_gaps(["a", "b", "a"]).tolist() == ["a", "b", "a"]
    assert without_gaps(np.array([3, 1, 3])).tolist() == [3, 1, 3]
