"""Batches on a local S3 server: kills at random points, flipped bits, and two runs at a time (`make test-s3`)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("s3fs", reason="S3's libraries take an older python-dateutil; make test-s3 has them")
server = pytest.importorskip("moto.server", reason="make test-s3 has it")

import fsspec  # noqa: E402

from hybridclf import batch  # noqa: E402
from hybridclf.batch import output  # noqa: E402
from hybridclf.batch.inputs import list_input  # noqa: E402
from hybridclf.batch.stores import RemoteFolder  # noqa: E402
from hybridclf.errors import InvalidInputError  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
Check = Callable[[Path], None]

PROGRAM = """
from hybridclf.batch import inputs, stores
stores.BEAT, stores.LEASE = 0.2, 1.0
inputs.PART = 10
from hybridclf.cli import app
app()
"""


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A file system of a new S3 server."""
    threaded = server.ThreadedMotoServer(port=0)
    threaded.start()
    host, port = threaded.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": host,
    }.items():
        patch.setenv(name, value)
    system = fsspec.filesystem("s3")
    system.mkdir("bucket")
    yield system
    threaded.stop()
    patch.undo()


@pytest.fixture(scope="module")
def uploaded(digits_folder: Callable[[int], tuple[Path, Check]], store: Any) -> tuple[Path, Check]:
    folder, check = digits_folder(100)
    store.put(f"{folder}/", "bucket/in/", recursive=True)
    return folder, check


def parts(store: Any, out: str) -> dict[str, bytes]:
    store.invalidate_cache()
    return {path.rpartition("/")[2]: store.cat_file(path) for path in store.find(out) if "part-" in path}


def download(store: Any, out: str, folder: Path) -> Path:
    folder.mkdir()
    for name, content in parts(store, out).items():
        (folder / name).write_bytes(content)
    return folder


def test_a_batch_in_s3(
    uploaded: tuple[Path, Check], store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridclf.batch.inputs.PART", 40)
    monkeypatch.setattr("hybridclf.batch.PART", 40)
    summary = batch.run("s3://bucket/in", "s3://bucket/out", "digits")
    assert (summary.output, summary.parts, summary.images) == ("s3://bucket/out", 3, 100)
    uploaded[1](download(store, "bucket/out", tmp_path / "out"))
    content = parts(store, "bucket/out")["part-000001.parquet"]
    out, part = RemoteFolder("s3://bucket/out"), list_input("s3://bucket/in").parts[1]
    assert output.is_done(out, part)
    for bit in np.random.default_rng(0).choice(8 * len(content), 200, replace=False).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        store.pipe_file("bucket/out/part-000001.parquet", bytes(damaged))
        assert not output.is_done(out, part), bit
    assert batch.run("s3://bucket/in", "s3://bucket/out", "digits").done_before == 60
    assert parts(store, "bucket/out")["part-000001.parquet"] == content


def test_a_folder_that_a_console_has_made_is_empty(store: Any) -> None:
    store.call_s3("put_object", Bucket="bucket", Key="made/", Body=b"")
    assert RemoteFolder("s3://bucket/made").names() == []
    RemoteFolder("s3://bucket/made").write("a.txt", b"a")
    assert RemoteFolder("s3://bucket/made").names() == ["a.txt"]


def test_a_second_run_is_refused(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.batch.stores.BEAT", 0.1)
    with (
        output.exclusive(RemoteFolder("s3://bucket/locked")),
        pytest.raises(InvalidInputError, match="another run writes to s3://bucket/locked"),
        output.exclusive(RemoteFolder("s3://bucket/locked")),
    ):
        pass
    store.invalidate_cache()
    assert not store.exists("bucket/locked/_lock")


def test_a_missing_bucket_is_one_clear_error(uploaded: tuple[Path, Check], tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"s3://nowhere/out cannot be written: .*bucket does not exist"):
        batch.run("s3://bucket/in", "s3://nowhere/out", "digits")


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_points_it_ends_with_the_same_bytes(
    uploaded: tuple[Path, Check], store: Any, tmp_path: Path, n_kills: int
) -> None:
    out, rng = f"bucket/killed-{n_kills}", np.random.default_rng(n_kills)
    command = [sys.executable, "-c", PROGRAM, "batch", "s3://bucket/in", f"s3://{out}", "--model", "digits", "--json"]
    n_killed = 0
    while n_killed < n_kills:
        n_before, wanted = len(parts(store, out)), n_killed % 3  # within the start-up, or after a part or two
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while wanted and len(parts(store, out)) < n_before + wanted and process.poll() is None:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.2 if wanted else 4))
            n_killed += process.poll() is None
            process.kill()
        for name in sorted(parts(store, out))[6:]:  # so that there is something left to do
            store.rm_file(f"{out}/{name}")
    n_before = len(parts(store, out))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["done_before"] == 10 * n_before
    uploaded[1](download(store, out, tmp_path / "out"))
    once = subprocess.run([*command[:5], f"s3://{out}-once", *command[6:]], cwd=ROOT, capture_output=True, check=False)
    assert once.returncode == 0, once.stderr
    assert parts(store, out) == parts(store, f"{out}-once")
    assert {path.rpartition("/")[2] for path in store.find(out)} == {"_manifest.json", *parts(store, out)}
