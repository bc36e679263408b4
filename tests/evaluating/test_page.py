"""The page: whole in itself, readable in light and dark, in a real browser."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hybridclf.evaluating import Report, evaluate

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; Debian's package is called chromium")


@pytest.fixture(scope="module")
def report(world: Any) -> Report:
    return evaluate(world.clf, world.images, world.labels, trials=4, notes=["<b>No markup</b>."])


@pytest.fixture(scope="module")
def page(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    json_file, html_file = report.write(tmp_path_factory.mktemp("page"))
    assert json.loads(json_file.read_text("utf-8"))["verdict"]["sentence"] == str(report.verdict)
    return html_file


class Addresses(HTMLParser):
    """All that a page names to be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]


def test_nothing_is_fetched_and_nothing_is_markup(page: Path) -> None:
    text = page.read_text("utf-8")
    addresses = Addresses()
    addresses.feed(text)
    assert [a for a in addresses.found if not a.startswith(("data:", "#"))] == []
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "<script" not in text
    assert "&lt;b&gt;No markup&lt;/b&gt;." in text
    assert "Expected calibration error in 15 bins of equal width." in " ".join(text.split())


def test_pictures_are_those_of_the_images(report: Report, page: Path) -> None:
    assert report.examples and {example.fixed for example in report.examples} <= {True, False}
    for example in report.examples:
        assert (example.label == example.after) == example.fixed and (example.label == example.before) != example.fixed
        assert [share.label for share in example.shares if share.right] == [example.label]
        content = base64.b64decode(example.picture.removeprefix("data:image/png;base64,"))
        assert content.startswith(b"\x89PNG") and example.picture in page.read_text("utf-8")


def open_page(page: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,1600"]
    options += ["--disable-background-networking", "--disable-features=NetworkTimeServiceQuerying"]  # its own requests
    command = [str(BROWSER), *options, f"--user-data-dir={folder / 'profile'}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@browser
def test_a_browser_shows_the_verdict_and_the_pictures(report: Report, page: Path, tmp_path: Path) -> None:
    shown = open_page(page, tmp_path, "--dump-dom").stdout
    heading = re.search(r'<h1 id="verdict"[^>]*>(.*?)</h1>', shown)
    assert heading and heading[1].replace("&lt;", "<") == str(report.verdict)
    assert shown.count("<tr") > len(report.methods) and shown.count("<svg") == 2
    for name in ("figure-frontier", "figure-reliability", "methods"):
        assert f'id="{name}"' in shown


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that answers nothing, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


@browser
def test_a_browser_asks_the_network_for_nothing(page: Path, tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    address, asked = proxy
    options = [f"--proxy-server={address}", "--dump-dom"]
    open_page(page, tmp_path, *options)
    text = page.read_text("utf-8")
    assert [url for url in asked if url.removesuffix(":443") in text] == []  # a browser asks for things of its own
    other = tmp_path / "other.html"  # which does ask, so that the proxy is known to hear of it
    other.write_text('<img src="http://pictures.invalid/page.png">')
    open_page(other, tmp_path, *options)
    assert "http://pictures.invalid/page.png" in asked


@browser
@pytest.mark.parametrize(("scheme", "preferred", "bright"), [("light", 1, True), ("dark", 0, False)])
def test_light_and_dark(page: Path, tmp_path: Path, scheme: str, preferred: int, bright: bool) -> None:
    picture = tmp_path / f"{scheme}.png"
    open_page(page, tmp_path, f"--blink-settings=preferredColorScheme={preferred}", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(picture).convert("L")).astype(int)
    ground = pixels[5, 5]
    assert (ground > 200) == bright
    differs = np.abs(pixels - ground) > 100  # text and pictures stand out from the ground
    assert 0.005 < differs.mean() < 0.5
