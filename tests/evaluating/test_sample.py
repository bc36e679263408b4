"""Samples: every class in proportion, and what is refused."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hybridclf.data.holding_out import digests
from hybridclf.errors import InvalidInputError, UnknownLabelError
from hybridclf.evaluating import sample as module
from hybridclf.evaluating.sample import TrainedOn, notes_on, read_sample, stratified

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 cats and 10 dogs."""
    for i, picture in enumerate(PICTURES):
        path = tmp_path / "data" / ("cat" if i < 30 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "data"


def test_a_sample_has_every_class_in_its_proportion() -> None:
    y = np.repeat([0, 1, 2], [600, 300, 100])
    for n in (10, 100, 501):
        chosen = stratified(y, n, seed=n)
        assert len(set(chosen.tolist())) == n and (np.diff(chosen) > 0).all()
        np.testing.assert_allclose(np.bincount(y[chosen], minlength=3), n * np.array([0.6, 0.3, 0.1]), atol=1)
    assert stratified(y, None, 0).tolist() == stratified(y, 2000, 0).tolist() == list(range(1000))
    assert not np.array_equal(stratified(y, 100, 0), stratified(y, 100, 1))


def test_images_are_read_as_the_model_takes_them(folder: Path) -> None:
    found = read_sample(folder, ["dog", "cat", "elk"], (8, 8, 1))
    assert {image.size for image in found.images} == {(8, 8)} and found.images[0].mode == "L"
    assert found.y.tolist() == ["cat"] * 30 + ["dog"] * 10 and notes_on(found, folder) == []
    assert read_sample(folder, ["cat", "dog"], None).images[0].size == (16, 16)
    some = read_sample(folder, ["cat", "dog"], (8, 8, 3), n_images=20)
    assert some.y.tolist() == ["cat"] * 15 + ["dog"] * 5
    (note,) = notes_on(some, "DATA")
    assert note == "A sample of 20 of the 40 images in DATA, every class in proportion."


def test_labels_that_are_numbers_go_by_their_names(folder: Path) -> None:
    (folder / "cat").rename(folder / "3")
    (folder / "dog").rename(folder / "5")
    assert read_sample(folder, [1, 3, 5], (8, 8, 3)).y.tolist() == [3] * 30 + [5] * 10


def test_classes_that_the_model_does_not_know(folder: Path) -> None:
    with pytest.raises(UnknownLabelError, match="does not know: 'dog'; it knows 'cat', 'elk': give another model"):
        read_sample(folder, ["cat", "elk"], (8, 8, 3))
    with pytest.raises(UnknownLabelError, match=r"or rename the classes: spell 'dog' as 'Dog'$"):
        read_sample(folder, ["cat", "Dog"], (8, 8, 3))


def test_unreadable_images_are_left_out_and_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cat" / "03.png").write_text("no image")
    found = read_sample(folder, ["cat", "dog"], (8, 8, 3))
    assert len(found.images) == len(found.y) == 39
    (note,) = notes_on(found, "DATA")
    assert note.startswith("1 images in DATA were left out, as unreadable: ") and "03.png: not an image" in note
    for i in range(4, 9):
        (folder / "cat" / f"{i:02}.png").write_text("no image")
    with pytest.raises(InvalidInputError, match="6 of 40 images cannot be read, more than 5%"):
        read_sample(folder, ["cat", "dog"], (8, 8, 3))
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(InvalidInputError, match="more than the 0 GiB that are held in memory"):
        read_sample(folder, ["cat", "dog"], (8, 8, 3))


def test_csv_and_parquet_with_groups(tmp_path: Path, folder: Path) -> None:
    lines = [
        f"data/{path.parent.name}/{path.name},{path.parent.name},{i // 4}"
        for i, path in enumerate(sorted(folder.rglob("*.png")))
    ]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,label,film", *lines]))
    found = read_sample(table, ["cat", "dog"], (16, 16, 3), group="film")
    assert found.y.tolist() == ["cat"] * 30 + ["dog"] * 10 and found.groups.tolist() == [i // 4 for i in range(40)]
    np.testing.assert_array_equal(np.stack([np.asarray(image) for image in found.images]), PICTURES)

    def png(picture: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()

    images = pa.array([{"bytes": png(p)} for p in PICTURES], pa.struct([("bytes", pa.binary())]))
    columns = {"image": images, "label": found.y.tolist(), "film": found.groups.tolist()}
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    again = read_sample(tmp_path / "table.parquet", ["cat", "dog"], (16, 16, 3), group="film", n_images=20)
    assert len(again.images) == 20 and again.n_listed == 40
    assert [again.groups.tolist(), list(again.y)] == [
        np.unique([i // 4 for i in again.positions], return_inverse=True)[1].tolist(),
        [found.y[i] for i in again.positions],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file,label\na.png,cat\n",
            "has no column 'path'; its first line must name 'path', 'label', separated by commas, and it has 'file'",
        ),
        ("path;label\na.png;cat\n", "separated by commas, and it has 'path;label'"),
        ("", "and it has no line"),
        ("path,label\na.png,cat\nb.png,\n", r"table\.csv, line 3: 'b\.png' has no label"),
        ("path,label\nb.png,cat\nc.png,dog\n", r"none of the files .* is there: paths start .*'b\.png' is /.*/b\.png"),
        ("path,label\na.png,cat\nb.png,cat\n", "holds 'cat'; a classifier needs at least 2 classes"),
    ],
)
def test_a_csv_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "table.csv").write_text(text)
    (tmp_path / "a.png").touch()
    with pytest.raises(InvalidInputError, match=said):
        read_sample(tmp_path / "table.csv", ["cat", "dog"], None)


def test_images_that_a_model_was_trained_on_are_left_out(folder: Path) -> None:
    seen = TrainedOn(frozenset(digests(PICTURES[5:15]).tolist()), (16, 16, 3))
    rest = read_sample(folder, ["cat", "dog"], (16, 16, 3), seen=seen)
    assert (len(rest.images), len(rest.y), len(rest.groups), rest.trained_on) == (30, 30, 30, 10)
    assert notes_on(rest, "DATA") == ["10 images in DATA were left out: the model was trained or calibrated on them."]
    larger = read_sample(folder, ["cat", "dog"], (32, 32, 3), seen=seen)
    assert {image.size for image in larger.images} == {(32, 32)} and larger.trained_on == 10
    assert set(larger.digests) == set(rest.digests) and not seen.known & set(rest.digests) and len(rest.digests) == 30
    with pytest.raises(InvalidInputError, match="calibrated on all of these"):
        read_sample(
            folder, ["cat", "dog"], (32, 32, 3), seen=seen._replace(known=frozenset(digests(PICTURES).tolist()))
        )


@pytest.mark.parametrize("shape", [(64,), (8, 8, 2)])
def test_models_that_take_no_image_files(folder: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"the model takes .*, which image files cannot be made into"):
        read_sample(folder, ["cat", "dog"], shape)


def test_a_table_without_rows(tmp_path: Path) -> None:
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": label}}})
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", struct), ("label", pa.int64())], metadata={"huggingface": features})
    pq.write_table(schema.empty_table(), tmp_path / "none.parquet")
    with pytest.raises(InvalidInputError, match=r"none\.parquet lists no image; give one that has labelled images"):
        read_sample(tmp_path / "none.parquet", ["cat", "dog"], (8, 8, 3))


def test_large_images_of_any_size_are_averaged_down(tmp_path: Path) -> None:
    for name, size in (("cat", (90, 70)), ("dog", (90, 30))):
        (tmp_path / name).mkdir()
        Image.new("RGB", size).save(tmp_path / name / "0.png")
    found = read_sample(tmp_path, ["cat", "dog"], None, side=20)
    assert [image.size for image in found.images] == [(30, 24), (90, 30)]
