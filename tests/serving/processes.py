"""Servers as processes of their own, on loopback."""

import base64
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from types import TracebackType

import httpx
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0
"""Seconds after which a test gives up."""


class Server:
    """A process that serves, from its first answer to its end.

    Parameters
    ----------
    arguments : sequence of str
        Of `hybridclf serve`; or, with a script, of that.
    script : str, optional
        A file beside this one.
    """

    def __init__(self, arguments: Sequence[str] = (), script: str | None = None) -> None:
        program = ["-c", "from hybridclf.cli import app; app()", "serve", "--port", "0", "--model", "digits"]
        if script is not None:
            program = ["-m", f"tests.serving.{script}"]
        self.process = subprocess.Popen(
            [sys.executable, *program, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        self.url = self._await_url()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _await_url(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"running on (http://[\d.]+:\d+|unix socket \S+)", line):
                return found[1]
        self.process.wait(PATIENCE)
        self.process.stderr.close()
        raise AssertionError(f"the server did not start:\n{''.join(self.log)}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, trust_env=False, **options)  # type: ignore[arg-type]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}(\{{.*\}})? ", line))

    def stop(self) -> int:
        """SIGTERM; its exit code, once it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        code = self.stop()
        if error is None:
            log = "".join(self.log)
            assert code == 0, log
            assert "Traceback" not in log, log


@cache
def digits() -> np.ndarray:
    return load_digits().images


@cache
def picture(number: int, form: str = "png") -> bytes:
    """One of scikit-learn's digits as the bytes of an image file."""
    file = BytesIO()
    pixels = (digits()[number] * 255 / 16).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def uri(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
