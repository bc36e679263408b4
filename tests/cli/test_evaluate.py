"""`hybridclf evaluate`, from arguments to files."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from hybridclf import HybridClassifier, Race
from hybridclf.cli import app
from hybridclf.cli.evaluate import _read
from tests.adapters.tiny_pair import specs_of

SHORT = ("--trials", "4", "--quiet")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair trained on a few digits."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("evaluate") / "model"
    clf = HybridClassifier(max_iter=20, cv=0.3, allocation=Race(0.95, 4), random_state=0)
    clf.fit(digits.images[:300], digits.target[:300]).save(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a subfolder per digit, one image of which is damaged."""
    digits, folder = load_digits(), tmp_path_factory.mktemp("digits")
    for i in range(300, 450):
        path = folder / str(digits.target[i]) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((digits.images[i] * 255 / 16).round().astype(np.uint8)).save(path)
    next(folder.glob("3/*.png")).write_text("no image")
    return folder


def test_help() -> None:
    shown = invoke("--help").output
    options = (
        "--model",
        "--proposer",
        "--denoiser",
        "--labels",
        "--calibrate",
        "--images",
        "--trials",
        "--top-k",
        "--out",
    )
    assert all(option in shown for option in ("DATA", *options, "--group", "--device", "--quiet", "--json"))


def test_a_folder_becomes_a_report(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = invoke(data, "--model", model, "--out", out, *SHORT)
    assert result.exit_code == 0, result.output
    assert "hybrid, calibrated here" in result.stdout and "as unreadable" in result.stdout
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert result.stdout.startswith(report["verdict"]["sentence"][:30])
    assert report["about"]["test_images"] + report["about"]["calibration_images"] == 149
    assert report["verdict"]["sentence"][:30] in (out / "report.html").read_text("utf-8")
    again = invoke(data, "--model", model, "--out", out, "--json", *SHORT)
    assert json.loads(again.stdout)["methods"][0] | {"seconds": 0} == report["methods"][0] | {"seconds": 0}
    refused = invoke(data, "--model", model, "--out", out, "--trials", "5", "--quiet")
    assert refused.exit_code == 2 and "of other settings (settings/trials was 4, is 5)" in refused.output
    assert "--out ANOTHER" in refused.output


def test_a_sample_with_other_images_to_calibrate_on(model: Path, data: Path, tmp_path: Path) -> None:
    arguments = ("--model", model, "--out", tmp_path, "--images", "60", "--calibrate", data, "--json", *SHORT)
    found = json.loads(invoke("digits", *arguments).stdout)
    assert (found["about"]["test_images"], found["about"]["calibration_images"]) == (60, 58)
    sampled, copies = found["about"]["notes"][0], found["about"]["notes"][-1]
    assert sampled == "A sample of 60 of the 1,797 images in digits, every class in proportion."
    assert copies == "2 images to calibrate on were left out: they, or others of their group, are tested on."


@pytest.mark.slow
def test_tiers_by_name_know_the_classes_of_the_data(text_pair: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(80):
        path = tmp_path / "data" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    proposer, denoiser = specs_of(text_pair)
    tiers = ("--proposer", proposer, "--denoiser", denoiser)
    result = invoke(tmp_path / "data", *tiers, "--out", tmp_path / "out", "--json", *SHORT)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["about"]["labels"] == ["cat", "dog"]


def test_images_are_read_as_classify_takes_them(tmp_path: Path) -> None:
    """Tiers of any size are shown photographs averaged down, here to 24 pixels; films are those of the column."""
    lines = ["path,label,film"]
    for i in range(4):
        Image.new("RGB", (100, 75)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{'cat' if i % 2 else 'dog'},{i // 2}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    clf = HybridClassifier.__new__(HybridClassifier)
    clf.classes_, clf.image_shape_ = np.array(["cat", "dog"]), None
    clf.proposer_, clf.denoiser_ = SimpleNamespace(feature_side=8), SimpleNamespace(resolution=6)
    data = str(tmp_path / "data.csv")
    found = _read(clf, data, data, [data], None, "film", None, progress=False)
    (shifted,) = found["shifted"]
    for images in (found["X"], found["calibrate"][0], shifted.images):
        assert [image.size for image in images] == [(34, 25)] * 4
    assert list(found["groups"]) == list(found["calibrate"][2]) == ["0", "0", "1", "1"]
    assert shifted.units.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no nowhere"),
        (["digits", "--model", "cifar10"], "digits has classes that the model does not know: '0', '1'"),
        (["digits", "--proposer", "sklearn:SVC"], "tiers by name come as a pair"),
        (["digits", "--model", "digits", "--group", "film"], "has no column 'film'"),
        (["nowhere", "--max-loss", "1"], "--max-loss must be a finite number above 0 and below 1"),
        (["nowhere", "--max-loss", "0.1", "--delta", "0"], "--delta must be a finite number above 0 and below 1"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_a_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = invoke(*arguments, "--out", tmp_path / "out", "--quiet")
    assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_baselines_need_weights_and_a_shift(model: Path, data: Path, tmp_path: Path) -> None:
    known = tmp_path / "known.csv"
    known.write_text("name,clean,shifted\na,90,80\nb,80,60\n")
    result = invoke(data, "--model", model, "--baseline", known, *SHORT)
    assert result.exit_code == 2 and "give shifted images or corrupt as well" in result.output
    result = invoke(data, "--model", model, "--baseline", "sklearn:LogisticRegression", "--corrupt", *SHORT)
    assert result.exit_code == 2 and "is not fitted" in result.output
    out = tmp_path / "out"
    result = invoke(data, "--model", model, "--baseline", known, "--shifted", data, "--out", out, *SHORT)
    assert result.exit_code == 0, result.output
    rows = json.loads((out / "report.json").read_text())["shifts"]
    assert all(row["beyond_line"] for row in rows[3:]) and 'id="figure-robustness"' in (out / "report.html").read_text()
