"""Data sets of the package datasets, saved to folders."""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridclf import InvalidInputError, MissingDependencyError
from hybridclf.data.listing import list_labelled

datasets = pytest.importorskip("datasets")
CLASSES = ["ant", "bee", "cow"]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
    return [Image.fromarray(p) for p in pixels]


def table(pictures: list[Image.Image], **columns: Any) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    data = {"image": pictures, "label": [0, 1, 2, 2, 1, 0]}
    made = datasets.Dataset.from_dict(data, features=features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def test_images_labels_and_groups(pictures: list[Image.Image], tmp_path: Path) -> None:
    table(pictures, track=list("aabbcc")).save_to_disk(tmp_path / "saved")
    found = list_labelled(f"datasets:{tmp_path / 'saved'}", "track")
    assert found.classes == CLASSES and found.n == 6
    for _ in range(2):  # it can be read again
        items = list(found.items)
        assert [item.y for item in items] == [0, 1, 2, 2, 1, 0]
        assert list(found.class_numbers()) == [item.y for item in items]
        assert [item.group for item in items] == list("aabbcc")
        for item, picture in zip(items, pictures, strict=True):
            np.testing.assert_array_equal(np.asarray(item.open()), np.asarray(picture))


def test_splits(pictures: list[Image.Image], tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": table(pictures), "test": table(pictures[::-1])})
    both.save_to_disk(tmp_path / "saved")
    source = f"datasets:{tmp_path / 'saved'}"
    first = next(iter(list_labelled(f"{source}?split=test").items))
    np.testing.assert_array_equal(np.asarray(first.open()), np.asarray(pictures[-1]))
    with pytest.raises(InvalidInputError, match=r"has several splits; give one of train, test"):
        list_labelled(source)
    with pytest.raises(InvalidInputError, match="no split 'val'"):
        list_labelled(f"{source}?split=val")


def test_labels_without_class_names_and_files_by_name(pictures: list[Image.Image], tmp_path: Path) -> None:
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    data = {"photo": [str(tmp_path / f"{i}.png") for i in range(6)], "label": list("bababa")}
    made = datasets.Dataset.from_dict(data).cast_column("photo", datasets.Image())
    made.save_to_disk(tmp_path / "saved")
    found = list_labelled(f"datasets:{tmp_path / 'saved'}")
    assert found.classes == ["a", "b"] and [item.y for item in found.items] == [1, 0] * 3
    np.testing.assert_array_equal(np.asarray(next(iter(found.items)).open()), np.asarray(pictures[0]))


def test_columns_that_are_named(pictures: list[Image.Image], tmp_path: Path) -> None:
    kinds = {"fine_label": CLASSES, "coarse_label": ["x", "y"]}
    features = {"image": datasets.Image(), "thumbnail": datasets.Image()}
    features |= {name: datasets.ClassLabel(names=names) for name, names in kinds.items()}
    data = {
        "image": pictures,
        "thumbnail": pictures[::-1],
        "fine_label": [0, 1, 2, 2, 1, 0],
        "coarse_label": [0, 1] * 3,
    }
    two = datasets.Dataset.from_dict(data, features=datasets.Features(features))
    two.save_to_disk(tmp_path / "saved")
    source = f"datasets:{tmp_path / 'saved'}"
    with pytest.raises(InvalidInputError, match=r"2 columns that may be its images, among image, thumbnail"):
        list_labelled(source)
    with pytest.raises(InvalidInputError, match=r"2 columns that may be its labels.*as in datasets:NAME\?label=COLUMN"):
        list_labelled(f"{source}?image=image")
    found = list_labelled(f"{source}?image=thumbnail&label=coarse_label")
    items = list(found.items)
    assert found.classes == ["x", "y"] and [item.y for item in items] == [0, 1] * 3
    np.testing.assert_array_equal(np.asarray(items[0].open()), np.asarray(pictures[-1]))
    with pytest.raises(InvalidInputError, match="no column 'kind'; it has image, thumbnail"):
        list_labelled(f"{source}?image=image&label=kind")
    for wrong in ("subset=a", "train", "split=a&lable=b"):
        with pytest.raises(InvalidInputError, match="accepted are split, config, image, label"):
            list_labelled(f"{source}?{wrong}")


def test_a_configuration_of_a_repository(pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names) or {"test": table(pictures)})
    for source in ("datasets:somebody/photos?config=small&split=test", "datasets:somebody/photos"):
        assert list_labelled(source).n == 6
    assert asked == [("somebody/photos", "small"), ("somebody/photos", None)]


def test_a_damaged_image_costs_only_itself(pictures: list[Image.Image], tmp_path: Path) -> None:
    file = BytesIO()
    pictures[0].save(file, "png")
    contents = [{"bytes": b"no image", "path": None}, *[{"bytes": file.getvalue(), "path": None}] * 5]
    made = datasets.Dataset.from_dict({"image": contents, "label": [0, 1, 2, 2, 1, 0]})
    made.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=CLASSES)).save_to_disk(
        tmp_path / "saved"
    )
    first, second, *_ = list_labelled(f"datasets:{tmp_path / 'saved'}").items
    with pytest.raises(InvalidInputError):
        first.open()
    assert second.open().size == (7, 5)


def test_hidden_labels(pictures: list[Image.Image], tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    for name, labels in (("some", [0, -1, 2, -1, 1, 0]), ("none", [-1] * 6)):
        datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features).save_to_disk(
            tmp_path / name
        )
    found = list_labelled(f"datasets:{tmp_path / 'some'}")
    assert found.n == 4 and [item.y for item in found.items] == [0, 2, 1, 0]
    with pytest.raises(InvalidInputError, match="has no labels"):
        list_labelled(f"datasets:{tmp_path / 'none'}")


def test_a_repository_names_no_files_of_ours(
    pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures[0].save(tmp_path / "private.png")
    made = datasets.Dataset.from_dict({"image": [str(tmp_path / "private.png")] * 2, "label": list("ab")})
    made = made.cast_column("image", datasets.Image())
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: made)
    first = next(iter(list_labelled("datasets:somebody/something").items))
    with pytest.raises(InvalidInputError, match="files that a table only names are not followed"):
        first.open()


def test_bad_sources(pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="cannot be opened"):
        list_labelled(f"datasets:{tmp_path}")
    table(pictures).rename_column("label", "kind").remove_columns("kind").save_to_disk(tmp_path / "a")
    with pytest.raises(
        InvalidInputError,
        match=r"has no columns that may be its labels, among image; name one, as in datasets:NAME\?label=COLUMN",
    ):
        list_labelled(f"datasets:{tmp_path / 'a'}")
    table(pictures).save_to_disk(tmp_path / "b")
    with pytest.raises(InvalidInputError, match="no column 'track'; it has image, label"):
        list_labelled(f"datasets:{tmp_path / 'b'}", "track")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        list_labelled(f"datasets:{tmp_path / 'b'}")


@pytest.mark.parametrize("name", ["./nope", "~/nope", "/nope", "no/such/folder"])
def test_a_missing_folder_is_not_sought_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(InvalidInputError, match=f"datasets:{name} names no folder that is there; give the name"):
        list_labelled(f"datasets:{name}")


def test_files_of_a_repository_are_read_from_the_cache_alone(
    pictures: list[Image.Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository of image files has a table of their paths, as `load_dataset` makes it."""
    paths = []
    for i, picture in enumerate(pictures):
        folder = tmp_path / ("cache" if i else "elsewhere")
        folder.mkdir(exist_ok=True)
        picture.save(folder / f"{i}.png")
        paths.append({"bytes": None, "path": str(folder / f"{i}.png")})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    made = datasets.Dataset.from_dict({"image": paths, "label": [0, 1, 2, 2, 1, 0]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: made)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    outside, *inside = list_labelled("datasets:somebody/photos").items
    with pytest.raises(InvalidInputError):
        outside.open()
    for item, picture in zip(inside, pictures[1:], strict=True):
        np.testing.assert_array_equal(np.asarray(item.open()), np.asarray(picture))
