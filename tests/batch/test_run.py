"""Batches from start to end: every row right, whatever happened on the way."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import hybridclf
from hybridclf import HybridClassifier, batch
from hybridclf.batch import Done, Job, Part, Worker, folders, inputs, output
from hybridclf.batch.folders import LocalFolder
from hybridclf.cli import app
from hybridclf.errors import HybridClfError, InvalidInputError, SavedModelError
from hybridclf.pretrained.catalog import pretrained_folder
from tests.data.hostile import many_scans

ROOT = Path(__file__).resolve().parents[2]
Check = Callable[[Path], None]


@pytest.fixture
def few(digits_folder: Callable[[int], tuple[Path, Check]]) -> tuple[Path, Check]:
    """300 images, two parts."""
    return digits_folder(300)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


# --- the rows ---------------------------------------------------------------------------------------------------------


def test_rows_are_those_for_the_same_arrays_in_one_go(few: tuple[Path, Check], tmp_path: Path) -> None:
    folder, check = few
    summary = batch.run(folder, tmp_path / "out", "digits")
    check(tmp_path / "out")
    rows = pq.read_table(tmp_path / "out")
    assert (summary.parts, summary.images, summary.errors, summary.done_before) == (2, 300, 2, 0)
    assert summary.evaluations == pytest.approx(np.mean(rows["evaluations"].drop_null().to_pylist()))
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "_manifest.json",
        "part-000000.parquet",
        "part-000001.parquet",
    ]


def test_parquet_rows_get_the_answers_of_the_files(few: tuple[Path, Check], tmp_path: Path) -> None:
    folder, _ = few
    files = sorted(folder.iterdir())
    image = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    (tmp_path / "in").mkdir()
    for i, part in enumerate((image[:170], image[170:])):
        pq.write_table(pa.table({"image": part}), tmp_path / "in" / f"train-{i}.parquet", row_group_size=100)
    batch.run(folder, tmp_path / "of files", "digits")
    batch.run(tmp_path / "in", tmp_path / "of rows", "digits")
    of_files = pq.read_table(tmp_path / "of files").to_pylist()
    of_rows = pq.read_table(tmp_path / "of rows").to_pylist()
    keys = [(f"train-{i}.parquet", row) for i, n in enumerate((170, 130)) for row in range(n)]
    assert [(row["path"], row["row"]) for row in of_rows] == keys
    for one, other in zip(of_files, of_rows, strict=True):
        assert one["row"] is None
        assert (one["label"], one["evaluations"], one["error"]) == (
            other["label"],
            other["evaluations"],
            other["error"],
        )
        np.testing.assert_allclose(one["top_posterior"] or [], other["top_posterior"] or [], atol=1e-5)


def test_hostile_files_cost_a_bounded_time_and_a_row_each(few: tuple[Path, Check], tmp_path: Path) -> None:
    """Scans that would take minutes, more scans than any encoder writes, a pipe that nobody writes to."""
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes((few[0] / "00000.png").read_bytes())
    (source / "b.jpg").write_bytes(many_scans(90))
    (source / "c.jpg").write_bytes(many_scans(5000))
    os.mkfifo(source / "d.png")
    (source / "e.png").write_bytes((few[0] / "00001.png").read_bytes())
    start = time.monotonic()
    summary = batch.run(source, tmp_path / "out", "digits", decode_seconds=0.5)
    assert time.monotonic() - start < 60
    assert (summary.images, summary.errors, len(summary.first_errors)) == (5, 3, 3)
    rows = pq.read_table(tmp_path / "out").to_pylist()
    expected = pq.read_table(run_once(few[0], tmp_path))["label"].to_pylist()
    assert [row["label"] for row in rows] == [expected[0], None, None, None, expected[1]]
    for row, message in zip(rows[1:4], ("more than 0.5 seconds", "more than 100 scans", "not a regular"), strict=True):
        assert message in row["error"]


def run_once(source: Path, tmp_path: Path) -> Path:
    batch.run(source, tmp_path / "once", "digits")
    return tmp_path / "once"


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "5"])
def test_a_time_limit_must_be_one(few: tuple[Path, Check], tmp_path: Path, seconds: Any) -> None:
    with pytest.raises(InvalidInputError, match="decode_seconds must be a finite number above 0"):
        batch.run(few[0], tmp_path / "out", "digits", decode_seconds=seconds)


def test_an_input_that_goes_away_ends_the_run_and_costs_no_image(few: tuple[Path, Check], tmp_path: Path) -> None:
    folder, check = few
    away, seen = tmp_path / "away", tmp_path / "in"
    shutil.copytree(folder, seen)

    def losing(leave: bool) -> batch.Engine:
        def engine(job: Job, parts: Sequence[Part]) -> Iterator[Done]:
            for i, done in enumerate(batch.local(job, parts)):
                yield done
                if i == 0:
                    seen.rename(away)
                    if leave:  # as a mount point is when nothing is mounted
                        seen.mkdir()

        return engine

    for leave in (False, True):
        out = tmp_path / f"out-{leave}"
        with pytest.raises(InvalidInputError, match=r"cannot be read.*repeat the command to go on"):
            batch.run(seen, out, "digits", losing(leave))
        shutil.rmtree(seen, ignore_errors=True)
        away.rename(seen)
        assert batch.run(seen, out, "digits").done_before == 256
        check(out)


def test_a_table_that_goes_away_ends_the_run(few: tuple[Path, Check], tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    images = [{"bytes": image.read_bytes(), "path": image.name} for image in sorted(few[0].iterdir())]
    pq.write_table(pa.table({"image": images}), file)

    def engine(job: Job, parts: Sequence[Part]) -> Iterator[Done]:
        file.unlink()
        yield from batch.local(job, parts)

    with pytest.raises(InvalidInputError, match=r"in.parquet cannot be read: .*No such file.*to go on"):
        batch.run(file, tmp_path / "out", "digits", engine)


def test_an_image_that_a_tier_fails_on_costs_itself(
    few: tuple[Path, Check], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide, rejected = HybridClassifier.decide, 5

    def failing(clf: HybridClassifier, X: Any) -> Any:
        if any(np.asarray(x).sum() == total for x in X):
            raise RuntimeError("out of memory")
        return decide(clf, X)

    names = sorted(path.name for path in few[0].iterdir())
    with Image.open(few[0] / names[rejected]) as image:
        total = np.asarray(image).sum()
    plain, failed = tmp_path / "plain", tmp_path / "failed"
    batch.run(few[0], plain, "digits")
    monkeypatch.setattr(HybridClassifier, "decide", failing)
    batch.run(few[0], failed, "digits")
    before, after = (pq.read_table(out).to_pylist() for out in (plain, failed))
    differing = [row["path"] for row, own in zip(after, before, strict=True) if row["error"] != own["error"]]
    assert names[rejected] in differing and len(differing) < 5
    assert {row["error"] for row in after if row["path"] in differing} == {"out of memory"}
    monkeypatch.setattr(HybridClassifier, "decide", lambda clf, X: {}["key"])
    with pytest.raises(HybridClfError, match=r"no image of part-000000.parquet is answered: KeyError: 'key'; mend"):
        batch.run(few[0], tmp_path / "none", "digits")


def test_an_image_that_a_tier_fails_on_costs_itself_where_it_is_alone(
    few: tuple[Path, Check], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a part of its own would end every run, and without it the input would be another one."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes((few[0] / "00000.png").read_bytes())
    decide = HybridClassifier.decide

    def failing(clf: HybridClassifier, X: Any) -> Any:
        if any(np.asarray(x).any() for x in X):
            raise RuntimeError("too many lines")
        return decide(clf, X)

    monkeypatch.setattr(HybridClassifier, "decide", failing)
    assert batch.run(tmp_path / "in", tmp_path / "out", "digits").first_errors == ["a.png: too many lines"]


def test_a_name_for_rejected_images_that_no_column_can_hold(few: tuple[Path, Check], tmp_path: Path) -> None:
    clf = HybridClassifier.from_pretrained("digits")
    for wrong in ("unknown", 1.5):
        clf.set_params(reject=0.05, novel_label=wrong).save(tmp_path / "model")
        with pytest.raises(InvalidInputError, match="give one of their kind, or None"):
            batch.run(few[0], tmp_path / "out", tmp_path / "model")
        shutil.rmtree(tmp_path / "out")
    clf.set_params(novel_label=-1).save(tmp_path / "model")
    batch.run(few[0], tmp_path / "out", tmp_path / "model")
    rows = [row for row in pq.read_table(tmp_path / "out").to_pylist() if row["error"] is None]
    assert [row["rejected"] for row in rows] == [row["novelty"] <= 0.05 for row in rows]
    assert [row["rejected"] for row in rows] == [row["label"] == -1 for row in rows]


def test_names_that_are_no_unicode_are_written_out(few: tuple[Path, Check], tmp_path: Path) -> None:
    folder, _ = few
    (tmp_path / "in").mkdir()
    content = (folder / "00000.png").read_bytes()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.png")).write_bytes(content)
    (tmp_path / "in" / "café.png").write_bytes(content)
    batch.run(tmp_path / "in", tmp_path / "out", "digits")
    assert pq.read_table(tmp_path / "out")["path"].to_pylist() == ["café.png", "caf\\xe9.png"]


def test_labels_that_are_text(few: tuple[Path, Check], tmp_path: Path) -> None:
    digits = load_digits()
    names = np.array(["zero", "one"])[digits.target[digits.target < 2][:80]]
    clf = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(digits.images[digits.target < 2][:80], names)
    clf.save(tmp_path / "model")
    batch.run(few[0], tmp_path / "out", tmp_path / "model")
    rows = [row for row in pq.read_table(tmp_path / "out").to_pylist() if row["error"] is None]
    assert {row["label"] for row in rows} == {"zero", "one"}
    assert all(sorted(row["top_labels"]) == ["one", "zero"] for row in rows)


def test_parts_by_processors_of_several_kinds_are_told(
    few: tuple[Path, Check], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = Path(shutil.copytree(pretrained_folder("digits"), tmp_path / "model")), tmp_path / "out"
    saved = json.loads((model / "model.json").read_text())
    saved["denoiser"] |= {"dtype": "float32", "mixed": True}
    (model / "model.json").write_text(json.dumps(saved))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert batch.run(few[0], out, model, device="cpu").precisions == ["float32, multiplied in bfloat16"]
    parts(out)[1].unlink()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    command = ["batch", str(few[0]), str(out), "--model", str(model), "--device", "cpu"]
    note = "tier 2 computed in float32 and in float32, multiplied in bfloat16"
    assert note in CliRunner().invoke(app, command).stderr
    assert note not in CliRunner().invoke(app, [*command, "--quiet"]).stderr
    assert len(pq.read_table(out)) == 300  # still one table
    parts(out)[0].unlink()
    assert batch.run(few[0], out, model, device="cpu").precisions == ["float32"]


# --- going on ---------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_or_damaged_is_done_again(few: tuple[Path, Check], tmp_path: Path) -> None:
    folder, check = few
    out = tmp_path / "out"
    batch.run(folder, out, "digits")
    first, second = parts(out)
    untouched = second.stat().st_mtime_ns, second.stat().st_ino
    for damage in (
        first.unlink,
        lambda: first.write_bytes(first.read_bytes()[:-100]),
        lambda: first.write_bytes(b"PAR1" + bytes(400) + first.read_bytes()[404:]),  # with its footer whole
    ):
        damage()
        (out / ".part-000000.parquet.0123.tmp").write_bytes(b"half writt")
        summary = batch.run(folder, out, "digits")
        assert (summary.done_before, summary.images) == (44, 300)
        check(out)
        assert not list(out.glob(".*"))
        assert (second.stat().st_mtime_ns, second.stat().st_ino) == untouched
    assert batch.run(folder, out, "digits").done_before == 300


def test_every_flipped_bit_is_noticed_and_healed(few: tuple[Path, Check], tmp_path: Path) -> None:
    """The part is written again, to the same bytes."""
    out = tmp_path / "out"
    batch.run(few[0], out, "digits")
    part = parts(out)[1]
    content, rng = part.read_bytes(), np.random.default_rng(0)
    place = Part(1, tuple(f"{i:05}.png" for i in range(256, 300)))
    assert output.is_done(LocalFolder(out), place)
    for bit in rng.choice(8 * len(content), 1000, replace=False).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        part.write_bytes(damaged)
        assert not output.is_done(LocalFolder(out), place), bit
    assert batch.run(few[0], out, "digits").done_before == 256
    assert part.read_bytes() == content
    parts(out)[0].write_bytes(content)  # whole, but another part
    assert batch.run(few[0], out, "digits").done_before == 44
    few[1](out)


@pytest.mark.skipif(find_spec("fcntl") is None, reason="has no locks")
def test_a_second_run_into_an_output_is_refused(few: tuple[Path, Check], tmp_path: Path) -> None:
    out = tmp_path / "out"

    def engine(job: Job, missing: Any) -> Any:
        with pytest.raises(InvalidInputError, match=r"another run writes to .*/out; wait for its end"):
            batch.run(few[0], out, "digits")
        yield from batch.local(job, missing)

    batch.run(few[0], out, "digits", engine=engine)
    few[1](out)
    assert batch.run(few[0], out, "digits").done_before == 300


@pytest.mark.skipif(find_spec("fcntl") is None, reason="has no locks")
def test_an_output_is_locked_before_its_manifest_is_written(few: tuple[Path, Check], tmp_path: Path) -> None:
    """Of two runs that begin at the same time, one is refused."""
    out = tmp_path / "out"
    with output.exclusive(LocalFolder(out)):
        with pytest.raises(InvalidInputError, match="another run writes to"):
            batch.run(few[0], out, "digits")
        assert [file.name for file in out.iterdir()] == [folders.LOCK]
    (out / folders.LOCK).write_bytes(b"")  # as a run that was killed leaves it
    batch.run(few[0], out, "digits")
    few[1](out)
    assert not (out / folders.LOCK).exists()


@pytest.mark.skipif(find_spec("fcntl") is None, reason="has no locks")
def test_a_lock_that_was_removed_while_it_was_opened_is_none(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("ab") as file:
        folders._lock(file)
        (tmp_path / "lock").unlink()
        with pytest.raises(BlockingIOError):
            folders._lock(file)


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--max-errors", "1"], 0), (["--max-errors", "0"], 1)])
def test_the_exit_code_tells_of_errors(tmp_path: Path, options: list[str], code: int) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no image")
    command = ["batch", str(tmp_path / "in"), str(tmp_path / "out"), "--model", "digits"]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == code, done.output
    (tmp_path / "in" / "a.png").unlink()
    command[2] = str(tmp_path / "none")
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 1
    assert "1 of 1 images have an error" in done.output


def test_a_first_run_that_died_at_once_left_nothing_in_the_way(few: tuple[Path, Check], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "._manifest.json.0123.tmp").write_bytes(b"{")
    batch.run(few[0], out, "digits")
    few[1](out)


PROGRAM = """
import sys
from hybridclf.batch import inputs
inputs.PART = int(sys.argv.pop(1))
from hybridclf.cli import app
app()
"""


class Killer:
    """Runs one command again and again, and kills it at random points."""

    def __init__(self, command: list[str], out: Path, seed: int) -> None:
        self.command, self.out, self.rng = command, out, np.random.default_rng(seed)
        self.startup = 0.0

    def kill_once(self) -> bool:
        """Within the start-up, or within a few hundredths of a second of a part's appearing; False if it had ended."""
        n_parts, wanted = len(parts(self.out)), self.rng.integers(0, 2)
        start = time.monotonic()
        with subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            while wanted and len(parts(self.out)) == n_parts and process.poll() is None:
                time.sleep(0.002)
            if wanted:
                self.startup = time.monotonic() - start
            time.sleep(self.rng.uniform(0, 0.05 if wanted else 1.1 * self.startup))
            was_running = process.poll() is None
            process.kill()
        return was_running


@pytest.mark.parametrize(
    ("n_images", "part", "n_kills"), [(300, 10, 1), pytest.param(2100, 50, 20, marks=pytest.mark.slow)]
)
def test_killed_at_random_points_it_ends_with_every_row_once(
    digits_folder: Callable[[int], tuple[Path, Check]], tmp_path: Path, n_images: int, part: int, n_kills: int
) -> None:
    folder, check = digits_folder(n_images)
    out = tmp_path / "out"
    arguments = ["batch", str(folder), str(out), "--model", "digits", "--json"]
    command = [sys.executable, "-c", PROGRAM, str(part), *arguments]
    killer = Killer(command, out, seed=20)  # the first one when a part has appeared
    n_killed = 0
    while n_killed < n_kills:
        if killer.kill_once():
            n_killed += 1
        else:  # too quick for us: its output must be right too, and most of it is taken away again
            check(out)
            for path in parts(out)[10:]:
                path.unlink()
    n_before = len(parts(out))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done_before"] == part * n_before
    check(out)
    assert {path.name for path in out.iterdir()} == {"_manifest.json", *(path.name for path in parts(out))}


def test_a_part_that_workers_die_of_ends_the_run(tmp_path: Path) -> None:
    """Only deaths in the same run, of the same part, and in a row count."""
    part = Part(7, ("a.png", "z.png"))

    def die(part: Part, run: str) -> None:
        if not (pid := os.fork()):
            with output.attempt(LocalFolder(tmp_path), part, run):
                os._exit(1)
        os.waitpid(pid, 0)

    def leftovers() -> int:
        return len(list(tmp_path.iterdir()))

    for _ in range(output.ATTEMPTS - 1):
        die(part, "run")
    die(part, "another run")
    die(Part(8, ("a.png",)), "run")
    with output.attempt(LocalFolder(tmp_path), part, "run"):
        assert leftovers() == 3
    assert leftovers() == 2  # it was done, and its deaths are forgotten
    with pytest.raises(ZeroDivisionError), output.attempt(LocalFolder(tmp_path), part, "run"):
        raise ZeroDivisionError  # an error is no death
    assert leftovers() == 2
    for _ in range(output.ATTEMPTS):
        die(part, "run")
    with (
        pytest.raises(InvalidInputError, match=r"^3 workers have died on part-000007.parquet \(a.png to z.png\)"),
        output.attempt(LocalFolder(tmp_path), part, "run"),
    ):
        pass
    output.remove_leftovers(LocalFolder(tmp_path))
    assert leftovers() == 0


def test_a_part_of_rows_that_workers_die_of(tmp_path: Path) -> None:
    (tmp_path / ".part-000000.parquet.run.tmp").write_bytes(b"...")
    with (
        pytest.raises(
            InvalidInputError, match=r"^3 workers have died on part-000000.parquet \(caf\\xe9, rows 4 to 8\)"
        ),
        output.attempt(LocalFolder(tmp_path), Part(0, (os.fsdecode(b"caf\xe9"),), range(4, 9)), "run"),
    ):
        pass


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.fixture
def begun(few: tuple[Path, Check], tmp_path: Path) -> Callable[..., Any]:
    """A finished batch; called, it runs once more with what is passed instead."""
    model = tmp_path / "model"
    HybridClassifier.from_pretrained("digits").save(model)
    source = tmp_path / "in"
    source.mkdir()
    for file in sorted(few[0].iterdir())[:5]:
        (source / file.name).write_bytes(file.read_bytes())

    def run(**changed: Any) -> Any:
        return batch.run(**{"source": source, "output": tmp_path / "out", "model": model, **changed})

    run()
    return run


def test_another_model_is_refused_with_the_files_that_differ(begun: Callable[..., Any], tmp_path: Path) -> None:
    saved = json.loads((tmp_path / "model" / "model.json").read_text())
    saved["seed"] += 1
    (tmp_path / "model" / "model.json").write_text(json.dumps(saved))
    before = parts(tmp_path / "out")[0].read_bytes()
    with pytest.raises(InvalidInputError, match=r"begun with another model \(model/model.json changed\)") as caught:
        begun()
    assert "safetensors" not in str(caught.value)
    assert parts(tmp_path / "out")[0].read_bytes() == before


def test_hidden_files_are_no_part_of_a_model(begun: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "model" / ".DS_Store").write_bytes(b"x")
    assert begun().done_before == 5


def test_another_input_is_refused(begun: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "in" / "new.png").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"other images \(input/images was 5, is 6; input/names"):
        begun()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hybridclf.batch.TOP", 3, "settings/labels per row was 5, is 3"),
        ("hybridclf.batch.PART", 3, "settings/images per part was 256, is 3"),
        ("hybridclf.batch.__version__", "9.9", rf"hybridclf was {hybridclf.__version__}, is 9\.9"),
    ],
)
def test_other_settings_are_refused(
    begun: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str, value: object, message: str
) -> None:
    monkeypatch.setattr(name, value)
    with pytest.raises(InvalidInputError, match=message):
        begun()


def test_the_same_elsewhere_is_not_refused(begun: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "in").rename(tmp_path / "moved")
    (tmp_path / "model").rename(tmp_path / "model moved")
    assert begun(source=tmp_path / "moved", model=tmp_path / "model moved").done_before == 5


def test_folders_of_something_else_are_refused(begun: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is no output of a batch; give a new or empty folder"):
        begun(output=tmp_path / "in" / ".." / "model")
    assert not (tmp_path / "model" / folders.LOCK).exists()
    with pytest.raises(InvalidInputError, match="is no output of a batch; give a new or empty folder"):
        begun(output=tmp_path / "model" / "model.json")
    with pytest.raises(InvalidInputError, match="lies in INPUT"):
        begun(output=tmp_path / "in" / "out")
    (tmp_path / "out" / output.MANIFEST).write_text("[]")
    with pytest.raises(InvalidInputError, match="cannot be read as a manifest"):
        begun()


def test_what_is_no_model_is_refused(begun: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"there is no embedded model 'nonsense'; .* for a saved model give its folder"
    ):
        begun(model="nonsense")
    with pytest.raises(SavedModelError, match="is not a saved model"):
        begun(model=tmp_path / "in")
    digits = load_digits()
    vectors = HybridClassifier(max_iter=1, cv=0.3, random_state=0).fit(digits.data[:60], digits.target[:60])
    vectors.save(tmp_path / "vectors")
    with pytest.raises(InvalidInputError, match="the model takes vectors of 64 numbers"):
        begun(model=tmp_path / "vectors", output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_that_changes_under_way_stops_the_batch(begun: Callable[..., Any], tmp_path: Path) -> None:
    """An actor that starts late must not answer with a model of its own."""
    hashes = output.fingerprint(tmp_path / "model")
    job = Job(LocalFolder(tmp_path / "in"), LocalFolder(tmp_path / "out"), tmp_path / "model", hashes)
    Worker(job)
    (tmp_path / "model" / "proposer.safetensors").unlink()
    with pytest.raises(SavedModelError, match="is not what it was when the batch began"):
        Worker(job)


def test_an_engine_that_leaves_parts_out_is_noticed(few: tuple[Path, Check], tmp_path: Path) -> None:
    def forgetful(job: Job, missing: Any) -> Any:
        yield Worker(job)(missing[0])
        yield Done(44, 0, 0)  # as an actor would whose OUTPUT is another machine's

    with pytest.raises(InvalidInputError, match=r"part-000001.parquet is missing or damaged; is OUTPUT one folder"):
        batch.run(few[0], tmp_path / "out", "digits", engine=forgetful)


def test_parts_know_their_length() -> None:
    assert len(Part(0, ("a.png", "b.png"))) == 2
    assert len(Part(0, ("a.parquet",), range(4, 9))) == 5
    assert inputs.PART == 256


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to")
def test_an_output_that_cannot_be_written_is_one_clear_error(few: tuple[Path, Check]) -> None:
    with pytest.raises(InvalidInputError, match=r"/proc/out cannot be written: .*; mend that"):
        batch.run(few[0], "/proc/out", "digits")
