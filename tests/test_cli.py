"""The command line, from arguments to exit code."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import hybridclf
from hybridclf import HybridClassifier, demo
from hybridclf.allocation import FixedTrials
from hybridclf.cli import app

ROOT = Path(__file__).resolve().parents[1]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits()
    folder = tmp_path_factory.mktemp("cli") / "model"
    clf = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(digits.images[:120], digits.target[:120])
    clf.save(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four digits as PNG files."""
    for i, digit in enumerate(load_digits().images[200:204]):
        Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


# --- the program ------------------------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert invoke("--version").output == f"hybridclf {hybridclf.__version__}\n"
    shown = invoke("--help")
    assert shown.exit_code == 0
    assert "demo" in shown.output
    assert "classify" in shown.output
    for command, options in (
        ("demo", ("--seed", "--out", "--json")),
        ("classify", ("PATH", "--model", "--json")),
        ("serve", ("--model", "--host", "--port", "--api-key-file", "--max-queue", "--max-pixels")),
    ):
        output = invoke(command, "--help").output
        assert all(option in output for option in options)


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["classify"], ["demo", "--seed", "-1"], ["demo", "--seed", "x"], ["demo", "--out", __file__]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_as_a_program(model: Path, images: Path) -> None:
    """In a process of its own: only JSON on stdout, the exit code, and no library loaded that it does not need."""
    code = (
        "import atexit, sys; from hybridclf.cli import app;"
        "atexit.register(lambda: print(*sorted({n.partition('.')[0] for n in sys.modules}), file=sys.stderr)); app()"
    )
    command = [sys.executable, "-c", code, "classify", "--json", "--model", str(model), str(images), "missing.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [answer["error"] is None for answer in answers] == [True] * 4 + [False]
    assert "Traceback" not in done.stderr
    assert {"matplotlib", "diffusers", "open_clip", "timm", "transformers"}.isdisjoint(done.stderr.split())


# --- classify ---------------------------------------------------------------------------------------------------------


def test_classify_prints_one_line_per_image(model: Path, images: Path) -> None:
    result = invoke("classify", "--model", model, images)
    assert result.exit_code == 0, result.output
    expected = HybridClassifier.load(model).predict(load_digits().images[200:204])
    rows = [line.split() for line in result.stdout.splitlines() if ".png" in line]
    assert [row[1] for row in rows] == list(map(str, expected))


def test_classify_prints_one_json_object_per_line(model: Path, images: Path) -> None:
    result = invoke("classify", "--model", model, "--json", images)
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(answer["path"]).name for answer in answers] == ["0.png", "1.png", "2.png", "3.png"]
    for answer in answers:
        assert list(answer) == [
            "path",
            "label",
            "probability",
            "posterior",
            "evaluations",
            "rows",
            "stopped_by",
            "error",
        ]
        assert answer["posterior"][0] == {"label": answer["label"], "probability": answer["probability"]}
        assert answer["stopped_by"] in ("confident", "budget")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_unreadable_files_are_reported_and_skipped(model: Path, images: Path, options: list[str]) -> None:
    (images / "1b.png").write_text("no image")
    result = invoke("classify", "--model", model, *options, images / "0.png", images / "1b.png", images / "2.png")
    assert result.exit_code == 1
    assert "not an image" in result.stdout
    assert all(name in result.stdout for name in ("0.png", "1b.png", "2.png"))


def test_names_are_shown_as_they_are(model: Path, images: Path) -> None:
    """Neither as markup, nor as commands to the terminal, nor as a crash where they cannot be encoded."""
    strange = [images / "[red]a[bold].png", images / "b\x1b[31m.png", images / os.fsdecode(b"c\xff.png")]
    for path in strange:
        path.write_bytes((images / "0.png").read_bytes())
    result = invoke("classify", "--model", model, *strange)
    assert result.exit_code == 0, result.output
    assert "[red]a[bold].png" in result.stdout
    assert "\x1b[31m.png" not in result.stdout
    result = invoke("classify", "--model", model, "--json", *strange)
    assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == list(map(str, strange))


@pytest.mark.parametrize("content", [None, "{}", '{"format": "hybridclf", "version": 999}'])
def test_what_is_no_model_is_one_line_and_exit_code_2(tmp_path: Path, images: Path, content: str | None) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    if content is not None:
        (folder / "model.json").write_text(content)
    result = invoke("classify", "--model", folder, images)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("hybridclf: ")
    assert str(folder) in line


def test_the_embedded_model_is_the_default(images: Path) -> None:
    result = invoke("classify", "--json", images)
    assert result.exit_code == 0, result.output
    labels = [json.loads(line)["label"] for line in result.stdout.splitlines()]
    assert labels == load_digits().target[200:204].tolist()


# --- demo -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on a tiny budget; all else is as it is."""
    tiny = functools.partial(demo.run, max_iter=1, n_images=100, allocations={"two trials": FixedTrials(2)})
    monkeypatch.setattr(demo, "run", tiny)


@pytest.mark.usefixtures("small_demo")
def test_demo_prints_a_table_and_writes_its_files(tmp_path: Path) -> None:
    result = invoke("demo", "--seed", 1, "--out", tmp_path / "new" / "out")
    assert result.exit_code == 0, result.output
    for text in (demo.TIER_1, demo.RIVAL, "two trials", demo.HYBRID, "seed 1", "report.json"):
        assert text in result.stdout
    assert "100%" in result.stderr
    names = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert names == {"report.json", "cost-accuracy.png", "reliability.png", "race.png"}


@pytest.mark.usefixtures("small_demo")
def test_demo_prints_json(tmp_path: Path) -> None:
    result = invoke("demo", "--json", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "report.json").read_text())


def test_demo_without_matplotlib_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    result = invoke("demo", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert 'pip install "hybridclf[plot]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


# --- serve: what it answers is in tests/serving -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nonsense"], "there is no embedded model 'nonsense'"),
        (["--model", "./missing"], "is not a saved model"),
        (["--api-key-file", "missing"], "the API keys in missing cannot be read"),
    ],
)
def test_serve_says_in_one_line_why_it_does_not_start(arguments: list[str], message: str) -> None:
    result = invoke("serve", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line


def test_serve_without_its_extra_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("hybridclf.serving")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(hybridclf, "serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = invoke("serve")
    assert result.exit_code == 2
    assert 'pip install "hybridclf[server]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1
