"""The command line, from arguments to exit code."""

import functools
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import hybridclf
from hybridclf import HybridClassifier
from hybridclf.batch.answers import FileAnswer, LabelProbability
from hybridclf.cli import app
from hybridclf.cli.classify import _print_table
from hybridclf.demo import digits as demo
from hybridclf.pair_training import planning, tier_1
from hybridclf.pair_training import run as training_run
from hybridclf.reranking.allocation import FixedTrials
from hybridclf.utils.installing import pip_install
from tests.adapters.tiny_pair import specs_of

ROOT = Path(__file__).resolve().parents[2]


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
    choice = (
        "--labels",
        "--template",
        "--proposer",
        "--denoiser",
        "--top-k",
        "--model",
        "--device",
        "--quiet",
        "--json",
    )
    for command, options in (
        ("demo", ("--seed", "--out", "--quiet", "--json")),
        ("classify", ("PATH", *choice, "--json")),
        ("models", ("--json",)),
        ("batch", ("INPUT", "OUTPUT", "--model", "--engine", "--address", "--actors", "--device", "--quiet")),
        ("serve", ("--model", "--host", "--port", "--api-key-file", "--max-queue", "--device", "--quiet")),
        ("train", ("DATA", "OUT", "--resume", "--quiet")),
        ("app", ("--model", "--host", "--port", "--device", "--quiet")),
    ):
        output = invoke(command, "--help").output
        assert all(option in output for option in options)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["classify"],
        ["classify", "x.png", "--top-k", "0"],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", "x"],
        ["demo", "--out", __file__],
        ["batch", "in", "out"],
        ["batch", "in", "out", "--model", "digits", "--engine", "spark"],
        ["batch", "in", "out", "--model", "digits", "--engine", "ray", "--actors", "0"],
    ],
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
    assert "sklearn" in done.stderr.split()
    assert {"matplotlib", "diffusers", "open_clip", "skops", "timm", "transformers"}.isdisjoint(done.stderr.split())


@pytest.mark.slow
def test_as_a_module_in_ascii(model: Path, images: Path, tmp_path: Path) -> None:
    """With names that are in no encoding, progress wanted and stderr a file: no crash and no carriage return."""
    folder = tmp_path / os.fsdecode(b"d\xff")
    folder.mkdir()
    (images / "0.png").rename(folder / os.fsdecode("é\x1b".encode() + b"\xff.png"))
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for options in ([], ["--json"]):
        command = [sys.executable, "-m", "hybridclf", "classify", "--model", str(model), str(folder), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert "\r" not in done.stderr and "rerank: 100%" in done.stderr
        assert ("\\xe9\\x1b\\udcff.png" if not options else "\\u00e9\\u001b\\udcff.png") in done.stdout


def test_the_page_needs_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = invoke("app")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the page needs gradio, which is not installed; type: pip install" in result.stderr


def test_completion_is_offered() -> None:
    environment = os.environ | {"_HYBRIDCLF_COMPLETE": "complete_bash", "COMP_WORDS": "hybridclf cl", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "hybridclf"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["classify"]


def test_an_error_of_the_system_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = invoke("demo", "--out", tmp_path / "file" / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"hybridclf: {tmp_path / 'file' / 'out'}: Not a directory\n"


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "arguments", "message"),
    [
        ("hybridclf.demo.digits.run", ("demo", "--out", "{tmp}/out"), "interrupted"),
        ("hybridclf.pretrained.catalog.pretrained_folder", ("classify", "{tmp}"), "interrupted"),
        ("hybridclf.pretrained.catalog.pretrained_folder", ("serve",), "interrupted"),
        ("hybridclf.batch.list_input", ("batch", "a", "b", "--model", "digits"), "repeat the command to go on"),
        (
            "hybridclf.pair_training.train_pair.load_labelled",
            ("train", "digits", "{tmp}/out"),
            "before the training began",
        ),
        (
            "hybridclf.training.trainer.Trainer._advance",
            ("train", "digits", "{tmp}/my out", "--minutes", "10", "--device", "cpu", "-q"),
            "hybridclf train digits '{tmp}/my out' --resume --device cpu",
        ),
    ],
)
def test_an_interrupted_command_says_how_to_go_on(
    where: str, arguments: tuple[str, ...], message: str, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, interrupt)
    monkeypatch.setattr(training_run, "steps_in", lambda *_: 100)  # these three time steps, which would be interrupted
    monkeypatch.setattr(planning, "seconds_per_row", lambda *_: 1e-6)
    for module in (planning, tier_1):
        monkeypatch.setattr(module, "seconds_per_step", lambda *_: 1e-2)
    result = invoke(*(argument.format(tmp=images) for argument in arguments))
    assert (result.exit_code, result.stdout) == (130, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("hybridclf: interrupted") and message.format(tmp=images) in last


# --- classify ---------------------------------------------------------------------------------------------------------


def test_classify_prints_one_line_per_image(model: Path, images: Path) -> None:
    result = invoke("classify", "--model", model, images)
    assert result.exit_code == 0, result.output
    expected = HybridClassifier.load(model).predict(load_digits().images[200:204])
    rows = [line.split() for line in result.stdout.splitlines() if ".png" in line]
    assert [row[1] for row in rows] == list(map(str, expected))
    assert result.stdout.splitlines()[-1] == f"4 images, {sum(int(row[-2]) for row in rows):,} evaluations"
    assert "rerank: 100%" in result.stderr and "evaluations=" in result.stderr


@pytest.mark.slow
def test_classify_draws_why(model: Path, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (images / "9.png").write_text("no image")
    files = [images / f"{i}.png" for i in (0, 1, 2, 3, 9)]  # the folder will have the pictures, too
    asked, widths = ("classify", *files, "--model", model, "--quiet", "--explain"), []
    for options in ((), ("--counterfactual",)):
        folder = tmp_path / f"why{len(options)}"
        result = invoke(*asked, folder, *options)
        assert result.exit_code == 1, result.output
        assert sorted(path.name for path in folder.iterdir()) == [f"0000{i}-{i}.png" for i in range(4)]
        with Image.open(folder / "00000-0.png") as picture:
            assert picture.height > 250
            widths.append(picture.width / picture.height)
    assert 3 < widths[0] < 4 < widths[1]  # four parts, and six with the image under either class


def test_counterfactuals_are_a_part_of_the_pictures(model: Path, images: Path) -> None:
    result = invoke("classify", images, "--model", model, "--counterfactual")
    assert result.exit_code == 2 and "--explain DIR; give both" in result.stderr, result.output


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
            "novelty",
            "rejected",
            "error",
        ]
        assert answer["posterior"][0] == {"label": answer["label"], "probability": answer["probability"]}
        assert answer["stopped_by"] in ("confident", "budget", "off")


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


def test_an_embedded_model_goes_by_its_name(images: Path) -> None:
    """Without one it is that for photographs: tests/test_cifar10_pair.py."""
    result = invoke("classify", "--json", "--model", "digits", images)
    assert result.exit_code == 0, result.output
    labels = [json.loads(line)["label"] for line in result.stdout.splitlines()]
    assert labels == load_digits().target[200:204].tolist()


@pytest.mark.parametrize("options", [[], ["--model", "cifar10", "--reject", "0.01"]])
def test_a_picture_of_no_class_is_none_of_these(options: list[str], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    files = [ROOT / "docs" / "images" / "cat.jpg", tmp_path / "noise.png"]
    shown = invoke("classify", *files, *options)
    assert ("it knows airplane" in shown.stderr) is (not options)
    cat, rejected = (
        next(line for line in shown.stdout.splitlines() if name in line).split() for name in ("cat.jpg", "noise.png")
    )
    assert cat[1] == "cat" and rejected[1:4] == ["none", "of", "these"]
    lines = invoke("classify", *files, *options, "--json").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert first["label"] == "cat" and first["probability"] == first["posterior"][0]["probability"]
    assert second["label"] is second["probability"] is None
    assert second["novelty"] <= 0.01 < first["novelty"] and (first["rejected"], second["rejected"]) == (False, True)
    assert second["posterior"][0]["label"] == rejected[4]  # what it would be, if it had to be one of them
    forced = invoke("classify", *files, *options, "--reject", "0")
    assert "none of these" not in forced.stdout and ("forces whatever" in forced.stderr) is (not options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reject", "1"], "reject must be"),
        (["--reject", "2"], "--reject"),
        (["--reject", "0.01", "--labels", "cat,dog"], "novelty needs a calibration"),
        (["--reject", "1e-6"], "finer than 1000 scores can tell"),
    ],
)
def test_a_rate_that_no_image_could_be_rejected_at(options: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    refused = invoke("classify", tmp_path / "broken.png", "--model", "cifar10", *options)
    assert refused.exit_code == 2 and message in refused.stderr


def test_a_rejected_image_in_a_narrow_terminal() -> None:
    likeliest = (LabelProbability("frog", 0.6), LabelProbability("cat", 0.4))
    answer = FileAnswer("x" * 60 + ".png", None, None, likeliest, 10, 1, "budget")
    _print_table([answer], Console(file=(out := io.StringIO()), width=30))
    assert "\n  none of these\n  frog 60.0\n  cat 40.0\n" in out.getvalue()


def test_a_model_that_nobody_chose_says_what_it_knows(images: Path) -> None:
    shown = invoke("classify", images)
    (note,) = [line for line in shown.stderr.splitlines() if line.startswith("No --model is named")]
    assert "cifar10 answers: it knows airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck" in note
    for options in (["--quiet"], ["--json"], ["--model", "cifar10"]):
        assert "No --model" not in invoke("classify", images, *options).stderr


def test_re_ranking_that_is_off_is_said(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    clf, folder = HybridClassifier.load(model), tmp_path_factory.mktemp("off")
    assert clf.calibration_ is not None
    for pays in (True, False):
        fusion = replace(clf.fusion_, pays=pays)
        clf.fusion_, clf.calibration_ = fusion, replace(clf.calibration_, fusion=fusion)
        clf.save(folder / f"{pays}")
        for command in (("classify", images), ("batch", images, folder / f"{pays}-out")):
            shown = invoke(*command, "--model", folder / f"{pays}")
            assert shown.exit_code == 0, shown.output
            assert shown.stderr.count("Re-ranking is off in this model") == (not pays)
            assert "is off" not in invoke(*command, "--model", folder / f"{pays}", "--quiet").output


def test_quiet_shows_the_answers_alone(model: Path, images: Path, tmp_path: Path) -> None:
    loud, quiet = (invoke("classify", "--model", model, images, *options) for options in ([], ["-q"]))
    assert quiet.stdout == loud.stdout and quiet.stderr == "" != loud.stderr
    done = invoke("batch", images, tmp_path.parent / f"{tmp_path.name}-out", "--model", model, "--quiet")
    assert (done.exit_code, done.stderr) == (0, "")


def test_files_that_are_missing_cost_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.cli.classifier.choose_classifier", lambda *_: pytest.fail("a model was loaded"))
    result = invoke("classify", tmp_path / "gone.png", tmp_path)
    assert result.exit_code == 1
    assert "No such file" in result.stdout and "a folder with no image in it" in result.stdout


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_here(device: str, images: Path, tmp_path: Path) -> None:
    for arguments in (("classify", images), ("batch", images, tmp_path.parent / "never"), ("serve",)):
        result = invoke(*arguments, "--model", "digits", "--device", device, "-q")
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
        assert f"device '{device}'" in result.stderr


@pytest.mark.parametrize(
    "path", ["a.png", "photographs/2024/07.png", "a/folder of many/images of the summer holidays/in the Alps 1.png"]
)
def test_names_are_not_broken_on_a_narrow_terminal(path: str) -> None:
    names = ["golden retriever", "west highland terrier", "old english sheepdog"]
    shares = tuple(LabelProbability(label, 0.3) for label in names)
    answer = FileAnswer(path, names[0], 0.3, shares, 12, 3, "confident")
    file = io.StringIO()
    screen = Console(width=80, file=file, force_terminal=True, color_system=None)
    _print_table([answer, FileAnswer("b.png", error="cannot be read: " + "for a reason " * 4)], screen)
    lines = file.getvalue().splitlines()
    assert all(any(name in line for line in lines) for name in (path, *names, "b.png"))
    assert max(map(len, lines)) <= 80


# --- batch ------------------------------------------------------------------------------------------------------------


def test_batch_writes_parts_and_prints_json(
    model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("batch") / "out"
    (images / "1b.png").write_text("no image")
    result = invoke("batch", images, out, "--model", model, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["images"], summary["errors"], summary["done_before"]) == (5, 1, 0)
    assert "5/5" in result.stderr
    assert "evaluations=" in result.stderr
    rows = pq.read_table(out).to_pylist()
    expected = HybridClassifier.load(model).predict(load_digits().images[200:204]).tolist()
    assert [row["label"] for row in rows] == [*expected[:2], None, *expected[2:]]
    again = invoke("batch", images, out, "--model", model)
    assert again.exit_code == 0
    assert again.stdout.startswith(f"5 images in {out}, 1 with an error, ")
    assert "; 0 of them in this run" in again.stdout
    assert again.stdout.splitlines()[1:] == [f"  {rows[2]['path']}: {rows[2]['error']}"]


def test_batch_takes_names_that_are_no_utf_8(
    model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("batch") / os.fsdecode(b"\xff")
    folder.mkdir()
    (images / "0.png").rename(folder / os.fsdecode(b"\xfe.png"))
    out = folder.parent / os.fsdecode(b"\xfd")
    for _ in range(2):
        assert invoke("batch", folder, out, "--model", model).stdout.startswith("1 images in ")
    content = pa.array([{"bytes": next(folder.iterdir()).read_bytes(), "path": None}])
    with (folder / "t.parquet").open("wb") as file:
        pq.write_table(pa.table({"image": content}), file)
    assert invoke("batch", folder / "t.parquet", folder.parent / "out", "--model", model).exit_code == 0


def test_batch_refuses_in_one_line(model: Path, images: Path) -> None:
    result = invoke("batch", images, images / "out", "--model", model)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "lies in INPUT" in result.stderr.splitlines()[0]
    for option in (["--address", "auto"], ["--actors", "2"]):
        result = invoke("batch", images, "out", "--model", model, *option)
        assert result.exit_code == 2
        assert "add --engine ray" in result.stderr


# --- classify: labels -------------------------------------------------------------------------------------------------


def answers_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def photos(pictures: list[Image.Image], tmp_path: Path) -> Path:
    """Two pictures of different sizes as PNG files."""
    (tmp_path / "photos").mkdir()
    for i, picture in enumerate(pictures[:2]):
        picture.save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def tiers(text_pair: Path) -> tuple[str, ...]:
    proposer, denoiser = specs_of(text_pair)
    return "--proposer", proposer, "--denoiser", denoiser


def test_classify_by_labels_with_tiers_by_name(text_pair: Path, photos: Path, pictures: list[Image.Image]) -> None:
    options = ("--labels", "hen, fox,cat", "--template", "a {}, a pet.", "--top-k", "2", "--json")
    answers = answers_of(invoke("classify", photos, *tiers(text_pair), *options))
    clf = HybridClassifier(*specs_of(text_pair), prompts="a {}, a pet.", top_k=2, random_state=0)
    posterior, results = clf.fit(None, ["hen", "fox", "cat"]).decide(pictures[:2])
    for answer, row, rerank in zip(answers, posterior, results, strict=True):
        assert {share["label"] for share in answer["posterior"]} == {"hen", "fox", "cat"}
        np.testing.assert_allclose(sorted(share["probability"] for share in answer["posterior"]), np.sort(row))
        assert answer["label"] == clf.classes_[row.argmax()]
        assert answer["evaluations"] == rerank.evaluations > 0


def test_classify_by_labels_with_a_saved_model(
    text_pair: Path, photos: Path, pictures: list[Image.Image], tmp_path: Path
) -> None:
    clf = HybridClassifier(*specs_of(text_pair), allocation=FixedTrials(2), prompts="a {}", random_state=0)
    clf.fit(None, ["cat", "dog"]).save(tmp_path / "model")
    for options, prompts in ((("--top-k", "1"), None), (("--template", "the {}"), "the {}")):
        answers = answers_of(
            invoke("classify", photos, "--model", tmp_path / "model", "--labels", "hen,fox,cat", "--json", *options)
        )
        loaded = HybridClassifier.load(tmp_path / "model", prompts=prompts).with_labels(["hen", "fox", "cat"])
        loaded.set_params(top_k=1 if prompts is None else None)
        assert [answer["label"] for answer in answers] == loaded.predict(pictures[:2]).tolist()
        assert [answer["evaluations"] for answer in answers] == ([0, 0] if prompts is None else [6, 6])


def test_classify_by_some_of_a_models_own_labels(images: Path) -> None:
    wanted = load_digits().target[200:204]
    answers = answers_of(invoke("classify", images, "--model", "digits", "--labels", "0,1,2,3", "--json"))
    assert [a["label"] for a, y in zip(answers, wanted, strict=True) if y < 4] == [int(y) for y in wanted if y < 4]
    assert {share["label"] for a in answers for share in a["posterior"]} <= {0, 1, 2, 3}


PAIR = ("--proposer", "sklearn:SVC", "--denoiser", "diffusers:gone", "--labels", "a,b")
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no labels": (("--labels", ""), "at least two different names, got ['']"),
    "one label": (("--labels", "cat"), "at least two different names, got ['cat']"),
    "the same twice": (("--labels", "cat,dog,cat"), "at least two different names"),
    "an empty one": (("--labels", "cat,,dog"), "a label is empty"),
    "read the same": (("--labels", "cat,Cat"), "'cat' and 'Cat' read the same to the model"),
    "template": (("--labels", "cat,dog", "--template", "a photo"), "prompts must be a template with {}"),
}


@pytest.mark.parametrize("case", BAD)
def test_labels_that_cannot_be_asked_about(case: str, text_pair: Path, photos: Path) -> None:
    options, message = BAD[case]
    check_refused(invoke("classify", photos, *tiers(text_pair), *options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--labels", "a,b"), "--labels need a model to tell them apart"),
        (("--proposer", "sklearn:SVC"), "give --proposer, --denoiser and --labels"),
        (("--denoiser", "diffusers:gone", "--labels", "a,b"), "give --proposer, --denoiser and --labels"),
        (PAIR[:4], "give --proposer, --denoiser and --labels"),
        ((*PAIR, "--model", "digits"), "give --proposer, --denoiser and --labels"),
        (("--proposer", "clip:x", *PAIR[2:]), "'clip:x' is not a known proposer; type \"ADAPTER:NAME\" with one of"),
        (PAIR, "'gone' is neither the folder of a saved diffusers pipeline nor a repository on the hub"),
        (("--proposer", "open_clip:RN5/openai", *PAIR[2:]), "did you mean"),
        (("--model", "no-such"), "there is no embedded model 'no-such'; there is "),
        (("--model", "digits", "--labels", "cat,dog"), "label 'cat' is not in the proposer's classes"),
        (("--model", "digits", "--template", "a {}"), "neither tier reads prompts"),
    ],
)
def test_a_choice_that_cannot_be_had(options: tuple[str, ...], message: str, photos: Path) -> None:
    check_refused(invoke("classify", photos, *options), message)


def test_a_missing_package_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    result = invoke("classify", photos, "--proposer", "open_clip:RN50/openai", *PAIR[2:])
    check_refused(result, "'open_clip:RN50/openai' needs a module that cannot be imported")


def check_refused(result: Result, message: str) -> None:
    """One line that says what to do, beside the progress bars of loading, and exit code 2."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = (line for line in result.stderr.splitlines() if line and "it/s]" not in line)
    assert line.startswith("hybridclf: ") and message in line


# --- models -----------------------------------------------------------------------------------------------------------


def test_models_are_listed() -> None:
    result = invoke("models")
    assert result.exit_code == 0, result.output
    for text in (
        "handwritten digits",
        "open_clip:local-dir:FOLDER",
        "diffusers:REPO_OR_FOLDER",
        "sklearn:SVC",
    ):
        assert text in result.stdout
    listed = json.loads(invoke("models", "--json").stdout)
    assert {"digits"} <= {model["name"] for model in listed["models"]}
    assert {"tier": "denoiser", "name": "diffusers"} in [
        {k: a[k] for k in ("tier", "name")} for a in listed["adapters"]
    ]


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
    assert pip_install("plot") in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


# --- serve: what it answers is in tests/serving -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nonsense"], "there is no embedded model 'nonsense'"),
        (["--model", "./missing"], "for a saved model give its folder"),
        (["--api-key-file", "missing"], "the API keys in missing cannot be read"),
        (["--private", "--model", "nonsense"], "a private server needs keys"),  # before the model
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
    assert pip_install("server") in result.stderr
    assert len(result.stderr.splitlines()) == 1
