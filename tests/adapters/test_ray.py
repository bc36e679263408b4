"""Batches on a Ray cluster of this machine, and the service on Ray Serve."""

import base64
import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier
from hybridclf.batch import Job, Part
from hybridclf.batch.folders import LocalFolder
from hybridclf.errors import InvalidInputError, MissingDependencyError, SavedModelError
from hybridclf.pretrained.catalog import pretrained_folder
from hybridclf_adapters import ray

ROOT = Path(__file__).resolve().parents[2]
NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason='needs Ray: pip install "hybridclf[ray]"')
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
NEEDS_SERVE = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("ray", "grpc", "aiohttp", "hybridclf.serving")),
    reason='needs Ray Serve and the service: pip install "hybridclf[ray,server]"',
)
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}


@pytest.mark.parametrize("call", [lambda: ray.load("local"), lambda: ray.deployment("digits")])
def test_without_ray_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> None:
    for name in ("ray", "ray.data", "ray.serve"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r'type: pip install "ray\[data,serve\]'):
        call()


def test_an_error_of_ours_is_a_row(tmp_path: Path) -> None:
    stage = ray._Stage(Job(LocalFolder(tmp_path), LocalFolder(tmp_path), pretrained_folder("digits"), {}), "run")
    row = stage({"part": pickle.dumps(Part(0, ("a.png",)))})
    assert type(pickle.loads(row["outcome"])) is SavedModelError
    assert not list(tmp_path.iterdir())


# --- batches ----------------------------------------------------------------------------------------------------------

PROGRAM = """
from hybridclf.batch import inputs
inputs.PART = 20
from hybridclf.cli import app
app()
"""


@pytest.mark.slow
@NEEDS_RAY
@NEEDS_PROC
def test_killed_driver_and_killed_actor(
    digits_folder: Callable[[int], tuple[Path, Callable[[Path], None]]], tmp_path: Path
) -> None:
    """Driver killed, started again, an actor killed: every row once, as from one local run."""
    folder, check = digits_folder(2100)
    out = tmp_path / "out"
    arguments = ["batch", str(folder), str(out), "--model", "digits", "--engine", "ray", "--actors", "2", "--json"]
    command = [sys.executable, "-c", PROGRAM, *arguments]

    with open(tmp_path / "log", "w") as log:
        driver = subprocess.Popen(command, cwd=ROOT, env=os.environ | QUIET, stdout=log, stderr=log)
        wait_for(lambda: n_parts(out) >= 2, driver)
        cluster = list(descendants(driver.pid))
        driver.kill()
        driver.wait()
        wait_for(lambda: not any(map(is_alive, cluster)))  # nothing stays behind

    n_before = n_parts(out)
    assert n_before < 105
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | QUIET, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as driver:
        wait_for(lambda: n_parts(out) >= n_before + 2, driver)
        actors = [pid for pid in descendants(driver.pid) if "MapWorker" in command_line(pid)]
        os.kill(actors[0], signal.SIGKILL)
        assert n_parts(out) < 105
        output, errors = driver.communicate()
    assert driver.returncode == 0, errors
    assert len(actors) == 2
    summary = json.loads(output)
    assert (summary["parts"], summary["images"], summary["done_before"]) == (105, 2100, 20 * n_before)
    check(out)


def n_parts(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def wait_for(
    condition: Callable[[], bool], process: "subprocess.Popen[str] | None" = None, seconds: float = 300
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "ended too soon"
        assert time.monotonic() < end, "took too long"
        time.sleep(0.01)


def descendants(pid: int) -> Iterator[int]:
    """All processes that a process and its children have started."""
    parents = {int(stat.parent.name): parent_of(stat) for stat in Path("/proc").glob("[0-9]*/stat")}
    for child, parent in parents.items():
        if parent == pid:
            yield child
            yield from descendants(child)


def parent_of(stat: Path) -> int | None:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return None


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def is_alive(pid: int) -> bool:
    """Whether it runs; one that has ended and that nobody asked for its exit code does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ADAPTER = """
import os
import numpy as np
from hybridclf import HybridClassifier

class Deadly:
    takes_images = True

    def __init__(self, proposer):
        self.proposer, self.classes_ = proposer, proposer.classes_

    def predict_log_proba(self, images):
        if (np.asarray(images).reshape(len(images), -1).max(axis=1) == 0).any():
            os.kill(os.getpid(), 9)
        return self.proposer.predict_log_proba(np.asarray(images).reshape(len(images), -1))

def load(name):
    return Deadly(HybridClassifier.from_pretrained("digits").proposer_)
"""


def model_with(proposer: str, folder: Path) -> Path:
    """The digits pair with a proposer that is named."""
    shutil.copytree(pretrained_folder("digits"), folder)
    saved = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(saved | {"proposer": proposer, "fitted_proposer": False}))
    return folder


def refused(source: Path, out: Path, model: Path, *path: Path) -> str:
    """What the command says, in one line, when the run ends with an error of ours."""
    arguments = ["batch", str(source), str(out), "--model", str(model), "--engine", "ray", "--actors", "1"]
    env = os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "adapters", *path)))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hybridclf: ")
    return last


@pytest.mark.slow
@NEEDS_RAY
def test_a_part_that_kills_its_actor_again_and_again_ends_the_run(
    digits_folder: Callable[[int], tuple[Path, Callable[[Path], None]]], tmp_path: Path
) -> None:
    source = Path(shutil.copytree(digits_folder(60)[0], tmp_path / "in"))
    Image.new("L", (8, 8)).save(sorted(source.iterdir())[30])
    (tmp_path / "deadly.py").write_text(ADAPTER)
    info = tmp_path / "deadly-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hybridclf.proposers]\ndeadly = deadly:load\n")
    model = model_with("deadly:x", tmp_path / "model")
    message = refused(source, tmp_path / "out", model, tmp_path)
    assert re.search(r"3 workers have died on part-000001\.parquet \(00020\.\w+ to 00039\.\w+\)", message)


@pytest.mark.slow
@NEEDS_RAY
def test_an_error_on_an_actor_is_one_line(
    digits_folder: Callable[[int], tuple[Path, Callable[[Path], None]]], tmp_path: Path
) -> None:
    model = model_with("nonsense:x", tmp_path / "model")
    message = refused(digits_folder(60)[0], tmp_path / "out", model)
    assert "'nonsense:x' is not a known proposer; type" in message


# --- the service ------------------------------------------------------------------------------------------------------

SERVICE = """
import sys
from ray import serve
from hybridclf_adapters import ray

serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(ray.deployment("digits", num_replicas=2))
print("ready", flush=True)
input()
serve.shutdown()
"""


@pytest.mark.slow
@NEEDS_SERVE
def test_replicas_answer_as_the_classifier_does() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pixels = (load_digits().images[:20] * 255 / 16).round().astype(np.uint8)
    command = [sys.executable, "-c", SERVICE, str(port)]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert any(line == "ready\n" for line in server.stdout)
        answers = [classify(port, image) for image in pixels]
        server.communicate("\n")
    assert server.returncode == 0
    posterior = HybridClassifier.from_pretrained("digits").predict_proba(pixels * (16 / 255))
    assert [answer["label"] for answer in answers] == posterior.argmax(axis=1).tolist()
    np.testing.assert_allclose([answer["probability"] for answer in answers], posterior.max(axis=1), atol=1e-5)


@NEEDS_SERVE
def test_a_replica_whose_loop_has_ended_is_not_healthy() -> None:
    from fastapi.testclient import TestClient

    from hybridclf.serving import create_app

    app = create_app(HybridClassifier.from_pretrained("digits"))
    replica = ray._Replica()
    replica.app = app
    replica.check_health()
    with TestClient(app):
        replica.check_health()
        app.state.service.stage.close()
        with pytest.raises(RuntimeError, match="must be replaced"):
            replica.check_health()


def classify(port: int, pixels: np.ndarray) -> dict[str, Any]:
    """The service's best label for one image."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    image = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/classify",
        json.dumps({"images": [image]}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)["results"][0]["posterior"][0]


@NEEDS_SERVE
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Serve's own use of pydantic
def test_a_deployment_needs_a_model_that_is_there() -> None:
    with pytest.raises(InvalidInputError, match="there is no embedded model 'nonsense'"):
        ray.deployment("nonsense")
