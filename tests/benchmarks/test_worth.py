"""The benchmark of worth: its rows, its statistics, and all of it on small pictures."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import worth
from contenders.report import cost_table, picture, summary, table, verdict
from contenders.rival import unsure
from contenders.sets import TAIL, Questions, find_rows, questions
from contenders.training import METHODS, Contenders
from PIL import Image
from scipy.stats import binom, binomtest
from timm.models import save_for_hf

from hybridclf.data.arrays import block_means
from hybridclf.errors import TrainingError
from hybridclf.evaluating.corruptions import STRENGTHS, corrupted
from hybridclf.pair_training import planning, time_budget

SIZES = {"dots-train": 240, "dots-test": 60, "dots-testdark": 60, "drawn_dots-test": 60}


def dots(path: Path, n: int, seed: int) -> None:
    """A Parquet file of n pictures: a square of one of three colours, and the column of its track."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8)
        x, y = rng.integers(0, 8, 2)
        pixels[y : y + 8, x : x + 8, i % 3] = rng.integers(120, 255)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        rows.append(
            {"image": {"bytes": file.getvalue(), "path": f"{i}.png"}, "label": i % 3, "track": i, "colour": i % 2}
        )
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["red", "green", "blue"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(metadata), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed, (name, n) in enumerate(SIZES.items()):
        dots(folder / f"{name}.parquet", n, seed)
    sentences = pa.Table.from_pylist([{"sentence": "a dot", "label": "true"}])
    pq.write_table(sentences, folder / "sentences-train.parquet")
    return folder


def test_the_rows_of_a_folder(data: Path, tmp_path: Path) -> None:
    rows = find_rows(data, tmp_path, None, [5], {"tail", "corrupted"})
    assert [(row.name, row.kind, row.test.stem) for row in rows] == [
        ("dots", "clean", "dots-test"),
        ("dots, corrupted", "corrupted", "dots-test"),
        ("dots: dark", "shift", "dots-testdark"),
        ("dots: drawn_dots", "shift", "drawn_dots-test"),
        ("dots, 5 a class", "few", "dots-test"),
        ("dots, long tail", "tail", "dots-test"),
    ]
    assert {row.group for row in rows} == {"track"}
    few, tail = (pq.read_table(row.train)["label"].to_numpy() for row in rows[-2:])
    assert np.bincount(few).tolist() == [5, 5, 5]
    assert np.bincount(tail).tolist() == [80, round(80 / TAIL**0.5), 80 // TAIL]
    with pytest.raises(SystemExit, match=r"has no cats-train.parquet; it has dots, sentences"):
        find_rows(data, tmp_path, ["cats"], [], set())


def test_class_numbers_are_those_of_sorted_names(data: Path, tmp_path: Path) -> None:
    """The file's own order is red, green, blue."""
    [row] = find_rows(data, tmp_path, ["dots"], [], set())[:1]
    asked = questions(row, 16, 20, np.array(["blue", "green", "red"]))
    assert asked.y.tolist() == (2 - asked.pixels.max(axis=(1, 2)).argmax(axis=1)).tolist()
    assert len(asked.y) == len(asked.parts) == 20


def test_all_methods_answer_for_the_same_corrupted_images(data: Path, tmp_path: Path) -> None:
    corrupt = find_rows(data, tmp_path, ["dots"], [], {"corrupted"})[1]
    classes = np.array(["blue", "green", "red"])
    asked = questions(corrupt, 8, 20, classes, 16)
    assert asked.photos is not None
    np.testing.assert_array_equal(asked.pixels, block_means(asked.photos, 2))
    for side, images in ((16, asked.photos), (8, questions(corrupt, 8, 20, classes).pixels)):
        clean = questions(replace(corrupt, kind="clean"), side, 20, classes).pixels
        for i, name in enumerate(STRENGTHS):
            np.testing.assert_array_equal(images[i::8], corrupted(clean[i::8], name, 3))


def test_the_rival_is_asked_where_tier_1_is_unsure() -> None:
    assert unsure(np.array([[0.96, 0.04], [0.5, 0.5], [0.06, 0.94]])).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("minutes", "pretrained", "start_from", "message"),
    [
        (6.0, None, None, r"pair was trained with minutes 4\.0, not 6\.0; give these, or another folder than .*/work$"),
        (4.0, "timm:other", None, r"features was trained with proposer timm:one, not timm:other; give these"),
        (4.0, None, "cifar10", r"pair was trained with start_from None, not .*cifar10; give these"),
    ],
)
def test_pairs_of_other_settings_are_not_used_again(
    minutes: float, pretrained: str | None, start_from: str | None, message: str, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "work" / "dots"
    for name, proposer in (("pair", "timm:convnet64"), ("features", "timm:one")):
        (folder / name / "training").mkdir(parents=True)
        (folder / name / "model.json").touch()
        log = {"settings": {"minutes": 4.0, "proposer": proposer}}
        (folder / name / "training" / "log.json").write_text(json.dumps(log))
    [row] = find_rows(data, tmp_path, ["dots"], [], set())[:1]
    contenders = Contenders(row, folder, minutes, pretrained, start_from)
    with pytest.raises(SystemExit, match=message):
        _ = contenders.pair if pretrained is None else contenders.behind


def test_a_set_whose_features_take_too_long_is_left_without(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_for_hf(timm.create_model("test_resnet", num_classes=7), str(tmp_path / "net"), {"num_classes": 7})
    [row] = find_rows(data, tmp_path, ["dots"], [], set())[:1]
    contenders = Contenders(row, tmp_path / "work", 1e-4, f"timm:local-dir:{tmp_path / 'net'}")
    assert contenders.behind is None and contenders.photo_side is None
    assert "dots: no pair behind timm:local-dir:" in (said := capsys.readouterr().err) and "are too few for" in said
    (tmp_path / "work" / "features").mkdir(parents=True)
    (tmp_path / "work" / "features" / "notes.txt").touch()
    with pytest.raises(TrainingError):  # of another kind
        _ = replace(contenders).behind


def test_answers_beside_another_network_are_not_used_again(data: Path, tmp_path: Path) -> None:
    [row] = find_rows(data, tmp_path, ["dots"], [], set())[:1]
    asked = questions(row, 8, 5, np.array(["blue", "green", "red"]))
    for i, pretrained in enumerate([None, "timm:a/b", "timm:c"]):
        contenders: Any = SimpleNamespace(
            folder=tmp_path, pretrained=pretrained, behind=pretrained, answers=lambda *_, i=i: {"tier 1": i}
        )
        for _ in range(2):
            assert worth.answered(row, contenders, asked) == {"tier 1": i}


def test_the_picture_has_rows_without_some_methods() -> None:
    def row(**more: list[float]) -> dict[str, Any]:
        methods = {name: {"accuracy": values, "ece": 0.0, "ece by chance": [0.0, 0.0]} for name, values in more.items()}
        return {"kind": "clean", "gain p": 0.5, "harm p": 0.5, "methods": methods}

    tiers = {"tier 1": [0.7, 0.6, 0.8], "hybrid": [0.7, 0.6, 0.8]}
    axes = picture({"a": row(**tiers), "b": row(**tiers, features=[0.9, 0.8, 1.0])}).axes[0]
    points = {c.get_label(): c.lines[0].get_xydata().round(6).tolist() for c in axes.containers}
    assert {name: len(own) for name, own in points.items()} == {"tier 1": 2, "hybrid": 2, "features": 1}
    assert points["features"] == [[90.0, 1.12]]


def posterior(answers: np.ndarray, sure: float = 0.9) -> np.ndarray:
    return np.where(np.eye(2)[answers] > 0, sure, 1 - sure)


def test_a_row_is_compared_with_the_better_tier() -> None:
    y = np.zeros(100, dtype=int)
    wrong = {"tier 1": range(40), "tier 2": range(10, 40), "hybrid": range(25, 45)}
    answers = {name: posterior(np.isin(np.arange(100), list(places)).astype(int)) for name, places in wrong.items()}
    found = summary(answers | {"evaluations": np.full(100, 4)}, Questions(np.zeros(100), None, y, np.arange(100) % 2))
    assert found["better tier"] == "tier 2" and found["n"] == 100 and found["evaluations"] == 4
    # 10 to 24 fixed, 40 to 44 broken
    assert found["gain p"] == binomtest(15, 20, alternative="greater").pvalue
    assert found["harm p"] == binomtest(5, 20, alternative="greater").pvalue
    assert found["hybrid minus"]["tier 2"][0] == pytest.approx(0.10)
    assert found["methods"]["hybrid"]["accuracy"][0] == 0.8
    assert found["methods"]["hybrid"]["ece"] == pytest.approx(0.1)
    # all answers have one confidence: by chance the share of right ones is off by a binomial's mean deviation
    deviation = np.abs(0.9 - np.arange(101) / 100) @ binom.pmf(np.arange(101), 100, 0.9)
    assert found["methods"]["hybrid"]["ece by chance"] == pytest.approx([deviation, 0.06], abs=0.005)
    assert found["methods"]["hybrid"]["worst part"] == 0.8


def test_the_pair_behind_features_is_compared_with_these() -> None:
    y, names = np.zeros(100, dtype=int), ("tier 1", "tier 2", "hybrid", "features", "features, hybrid")
    wrong = dict.fromkeys(names, range(40)) | {"features, hybrid": range(20, 45)}  # 20 fixed, 5 broken
    answers = {name: posterior(np.isin(np.arange(100), list(places)).astype(int)) for name, places in wrong.items()}
    found = summary(answers | {"evaluations": np.zeros(100)}, Questions(np.zeros(100), None, y, None))
    assert found["features gain p"] == binomtest(20, 25, alternative="greater").pvalue
    assert found["features harm p"] == binomtest(5, 25, alternative="greater").pvalue
    value, low, high = found["features, hybrid minus"]["features"]
    assert value == pytest.approx(0.15) and 0 < low < value < high


def test_the_verdict_corrects_for_the_number_of_rows() -> None:
    rows = {
        name: {
            "kind": "clean",
            "gain p": gain,
            "harm p": 0.5,
            "methods": {"hybrid": {"ece": 0.03, "ece by chance": [0.01, chance]}},
        }
        for name, gain, chance in (("a", 0.02, 0.01), ("b", 0.001, 0.04), ("c", 0.03, 0.02))
    }
    found = verdict(rows)
    assert found["gain"] == ["b", "a", "c"]  # against levels of 0.05 / 3, 0.05 / 2 and 0.05
    assert found["harm"] == [] and found["ece above 0.02"] == ["a", "b", "c"]
    assert found["ece above chance"] == ["a", "c"]
    assert verdict({name: row | {"gain p": 0.04} for name, row in rows.items()})["gain"] == []


@pytest.mark.slow
def test_all_of_it_runs_and_resumes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(planning, "WIDTHS", (16,))
    monkeypatch.setattr(time_budget, "MIN_STEPS", 1)
    save_for_hf(timm.create_model("test_resnet", num_classes=7), str(tmp_path / "net"), {"num_classes": 7})
    pretrained = f"timm:local-dir:{tmp_path / 'net'}"
    options = ["--minutes", "1", "--pretrained", pretrained, "--sets", "dots", "--images", "30"]
    arguments = [str(data), str(tmp_path / "work"), *options, "--out", str(tmp_path)]
    worth.main(arguments)
    report = json.loads((tmp_path / "worth.json").read_text())
    assert list(report["rows"]) == ["dots", "dots: dark", "dots: drawn_dots"]
    assert (report["minutes"], report["pretrained"], report["start_from"]) == (1, pretrained, None)
    assert set(report["rows"]["dots"]["methods"]) == set(METHODS)
    assert report["rows"]["dots"]["methods"]["tier 1"]["accuracy"][0] > 0.8
    costs = report["costs"]["dots"]
    assert tuple(costs) == METHODS
    assert all(set(cost) == {"minutes", "training flops", "flops"} for cost in costs.values())
    first, second, hybrid = (costs[name] for name in METHODS[:3])
    assert hybrid["flops"] >= first["flops"] > 0 and second["flops"] > first["flops"]
    assert hybrid["training flops"] == first["training flops"] + second["training flops"]
    assert hybrid["minutes"] > first["minutes"] + second["minutes"]
    assert costs["rival"]["training flops"] > first["training flops"] > 0 < costs["features"]["training flops"]
    assert (tmp_path / "worth.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert printed.startswith(f"| row | images | {' | '.join(METHODS)} | hybrid minus the better tier |")
    assert table(report["rows"]) in printed and cost_table(report["costs"]) in printed
    monkeypatch.setattr("contenders.training.train_pair", None)  # nothing is trained again
    worth.main(arguments)
    again = json.loads((tmp_path / "worth.json").read_text())
    assert (again["rows"], again["costs"]) == (report["rows"], report["costs"])
    assert picture(report["rows"]).axes
