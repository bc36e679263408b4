"""The page in a real browser: upload, race, map, and what is refused."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from hybridclf import HybridClassifier, Race

if find_spec("gradio") is None:
    pytest.skip("no gradio here, which dev lacks: it needs Pillow < 13; make test-app", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(
    BROWSER is None or find_spec("playwright") is None,
    reason="no Chromium or no playwright here; Debian's package is called chromium, the other is in the extra dev-app",
)
PATIENCE = 300
"""Seconds that any one thing may take on a busy machine."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that answers nothing, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_POST = do_HEAD = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, proxy: tuple[str, list[str]]) -> Iterator[str]:
    """The page of `hybridclf app`, its model one whose races go on until they are stopped."""
    folder = tmp_path_factory.mktemp("app")
    clf = HybridClassifier.from_pretrained("digits").set_params(allocation=Race(1 - 1e-15, 2000))
    clf.save(folder / "model")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = ["app", "--model", str(folder / "model"), "--port", str(port), "--quiet"]
    where = os.environ | {"HTTP_PROXY": proxy[0], "HTTPS_PROXY": proxy[0], "GRADIO_TEMP_DIR": str(folder / "files")}
    process = subprocess.Popen([sys.executable, "-m", "hybridclf", *arguments], cwd=ROOT, env=where)
    address, since = f"http://127.0.0.1:{port}/", monotonic()
    try:
        while True:
            assert process.poll() is None and monotonic() < since + PATIENCE, "the page does not come up"
            try:
                httpx.get(address)
                break
            except httpx.TransportError:
                sleep(0.2)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(address)
        page.get_by_role("button", name="Race").wait_for()
        yield page
        assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
        chromium.close()


def upload(page: Any, file: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(file)


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    pixels = (load_digits().images[900] * 255 / 16).round().astype(np.uint8)
    Image.fromarray(pixels).resize((80, 60)).save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


@browser
def test_upload_race_stop_map_download(page: Any, digit: Path) -> None:
    upload(page, digit)
    for least in (1, 2):
        page.wait_for_function(f"Number(document.querySelector('#hc-race')?.dataset.trials) >= {least}")
    page.get_by_role("button", name="Stop").click()
    finish = page.locator("#hc-finish")
    finish.wait_for()
    said = finish.inner_text()
    assert "you stopped it" in said and "Why" in said and re.search(r"p = [\d.]+", said)
    assert page.locator("#hc-finish li .share").count() == 10 + 3  # classes, and what either tier says
    for pair in ("#hc-map", "#hc-change"):  # the picture and its map; the picture as one class and as the other
        pictures = page.locator(f"{pair} img")
        pictures.nth(1).wait_for()
        sizes = [
            image.evaluate("async i => (await i.decode(), [i.naturalWidth, i.naturalHeight])")
            for image in pictures.all()
        ]
        assert sizes == [[80, 60], [80, 60]]
    with page.expect_download() as download:
        page.get_by_text("Download as JSON").click()
    saved = json.loads(Path(download.value.path()).read_text("utf-8"))
    assert saved["stopped_by"] == "stopped" and saved["trials"] == len(saved["errors"]) >= 2
    assert np.shape(saved["explanation"]["map"]) == (60, 80)
    assert said.startswith(f"{saved['label']}, {100 * saved['classes'][0]['posterior']:.1f} %")
    assert page.get_by_role("button", name="Stop").is_disabled()


@browser
def test_what_cannot_be_read_is_said_and_the_next_picture_races(page: Any, digit: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + 50 * b"nonsense")
    Image.new("L", (8000, 5000)).save(tmp_path / "large.jpg")
    for name, message in (("broken.png", "cannot be read"), ("large.jpg", "more than 25000000 pixels")):
        upload(page, tmp_path / name)
        error = page.locator(".hc .error", has_text=message)
        error.wait_for()
        assert error.inner_text().startswith("This cannot be raced: ")
        page.get_by_text("Click to Upload").wait_for()  # no broken picture is left
    upload(page, digit)
    page.locator("#hc-race").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator("#hc-finish").wait_for()


def test_large_files_are_refused(address: str) -> None:
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("x.png", bytes(11 * 2**20))}, timeout=PATIENCE)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("http://127.0.0.1:1/cat.png", "an address is not fetched"),
        (str(ROOT / "README.md"), '"process_completed"'),
    ],
)
def test_neither_addresses_nor_other_files_are_opened(address: str, path: str, message: str) -> None:
    race = next(d for d in httpx.get(f"{address}config").json()["dependencies"] if len(d["inputs"]) == 2)
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file, ""], "fn_index": race["id"], "session_hash": "a-stranger"}
    assert httpx.post(f"{address}gradio_api/queue/join", json=body, timeout=PATIENCE).status_code == 200
    told = httpx.get(f"{address}gradio_api/queue/data?session_hash=a-stranger", timeout=PATIENCE).text
    assert '"success": false' in told.replace('":', '": ').replace("  ", " ")
    assert re.search(message, told)


def test_the_server_asks_the_network_for_nothing(address: str, proxy: tuple[str, list[str]]) -> None:
    assert httpx.get(address).status_code == 200 and proxy[1] == []
