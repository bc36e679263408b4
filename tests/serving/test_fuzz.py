"""500 malformed requests, seeded: no 5xx, no hang, no leak."""

import json
import socket
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving.processes import Server, picture, uri

N_REQUESTS = 500
PATHS = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/classify")
FORMS = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")

Request = dict[str, Any]
Maker = Callable[[np.random.Generator], Request]


def body(**change: Any) -> dict[str, Any]:
    """A body that both endpoints take, but for the change."""
    image = uri(picture(7))
    return {"query": image, "images": [image], "documents": ["3", "7"], "log_prior": [-1.0, -0.5], **change}


def sent(value: Any) -> Request:
    return {"content": json.dumps(value).encode(), "headers": {"content-type": "application/json"}}


def odd_value(rng: np.random.Generator) -> Any:
    deep: Any = 1
    for _ in range(int(rng.integers(1, 150))):
        deep = [deep] if rng.random() < 0.5 else {"a": deep}
    odd = [None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x" * 5000, "\x00", "\ud800", [], {}, deep]
    odd += [[None], [[]], {"image": None}, {"text": 1}, ["3"] * 5000, list(range(3000)), [float("nan")] * 2]
    return odd[rng.integers(len(odd))]


# --- kinds of malformed requests --------------------------------------------------------------------------------------


def truncated(rng: np.random.Generator) -> Request:
    content = sent(body())["content"]
    return {"content": content[: rng.integers(len(content))]}


def scrambled(rng: np.random.Generator) -> Request:
    content = bytearray(sent(body())["content"])
    for _ in range(int(rng.integers(1, 20))):
        content[rng.integers(len(content))] = rng.integers(256)
    return {"content": bytes(content)}


def wrong_type(rng: np.random.Generator) -> Request:
    names = ["query", "images", "documents", "labels", "log_prior", "top_n", "top_k", "deadline_ms", "max_evaluations"]
    names += ["model", "return_documents", "unknown"]
    return sent(body(**{str(name): odd_value(rng) for name in rng.choice(names, size=rng.integers(1, 4))}))


def wrong_prior(rng: np.random.Generator) -> Request:
    values = rng.choice([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, -1.0], size=rng.integers(0, 5)).tolist()
    return sent(body(log_prior=values))


def not_even_json(rng: np.random.Generator) -> Request:
    choices = [
        b"",
        b" ",
        b"[",
        b"null",
        b"[" * 100_000,
        b'{"query":' * 20_000,
        b'{"query": "\xff\xfe"}',
        b"\xef\xbb\xbf{}",
    ]
    choices += [
        b"1" * 6000,
        b'{"documents": [' + b"0," * 50_000 + b"0]}",
        bytes(rng.integers(0, 256, 300, dtype=np.uint8)),
    ]
    return {"content": choices[rng.integers(len(choices))]}


def huge_count(rng: np.random.Generator) -> Request:
    n = int(rng.choice([101, 10_000, 10_001, 200_000]))
    name = str(rng.choice(["documents", "labels", "images", "log_prior"]))
    return sent(body(**{name: [0.5 if name == "log_prior" else f"{i}" for i in range(n)]}))


def address(rng: np.random.Generator) -> Request:
    schemes = ("http", "https", "ftp", "file", "data", "javascript")
    query = f"{rng.choice(schemes)}://127.0.0.1:1/etc/passwd"
    return sent(body(query=query, images=[{"image": query}]))


def broken_image(rng: np.random.Generator) -> Request:
    form = str(rng.choice(FORMS))
    data = bytearray(picture(int(rng.integers(100)), form))
    if rng.random() < 0.5:
        data = data[: rng.integers(len(data))]
    for _ in range(int(rng.integers(1, 12)) if data else 0):
        data[rng.integers(len(data))] = rng.integers(256)
    return sent(body(query=uri(bytes(data), form), images=[uri(bytes(data), form)]))


def bomb(rng: np.random.Generator) -> Request:
    data = [promised(int(10 ** rng.uniform(3.8, 9.3))), inflated(), chatty()][rng.integers(3)]
    return sent(body(query=uri(data), images=[uri(data)]))


def promised(side: int) -> bytes:
    """A PNG of a few bytes that says it is that large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@cache
def inflated() -> bytes:
    """36 million pixels in 5 kB."""
    file = BytesIO()
    Image.new("1", (6000, 6000)).save(file, "png")
    return file.getvalue()


@cache
def chatty() -> bytes:
    """A small PNG with a text of 40 MB in it."""
    data = picture(3)
    chunk = b"zTXtnote\x00\x00" + zlib.compress(bytes(40 * 2**20), 1)
    return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def bad_form(rng: np.random.Generator) -> Request:
    boundary, head = b"xyz", b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    form = b"--xyz\r\n" + head + picture(1) + b"\r\n--xyz--\r\n"
    types = [b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=abc"]
    types += [b"multipart/form-data; boundary=" + boundary, b"multipart/form-data; charset=rot13; boundary=" + boundary]
    content = bytearray(form if rng.random() < 0.5 else form[: rng.integers(len(form))])
    for _ in range(int(rng.integers(0, 6)) if content else 0):
        content[rng.integers(len(content))] = rng.integers(256)
    return {"content": bytes(content), "headers": {b"content-type": types[rng.integers(len(types))]}}


def odd_header(rng: np.random.Generator) -> Request:
    headers = [
        {b"authorization": b"Bearer \xff\xfe"},
        {b"content-type": b"\xff/\xfe"},
        {b"content-type": b"application/x-www-form-urlencoded"},
        {b"content-encoding": b"gzip"},
        {b"content-type": b"multipart/form-data; boundary=\xc3\xa9"},
    ]
    return {"content": sent(body())["content"], "headers": headers[rng.integers(len(headers))]}


KINDS: tuple[Maker, ...] = (
    truncated,
    scrambled,
    wrong_type,
    wrong_type,
    wrong_prior,
    not_even_json,
    huge_count,
    address,
    broken_image,
    broken_image,
    bomb,
    bad_form,
    odd_header,
)


# --- the test ---------------------------------------------------------------------------------------------------------


def state(server: Server) -> tuple[int, int, int]:
    """Bytes in memory, open files and threads of the server."""
    process = Path(f"/proc/{server.process.pid}")
    resident = int((process / "statm").read_text().split()[1]) * 4096
    return resident, len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def test_nothing_malformed_harms_the_server(server: Server) -> None:
    rng = np.random.default_rng(0)
    statuses: dict[int, int] = {}
    slowest, settled = 0.0, (0, 0, 0)
    with server.client() as client:
        for i in range(N_REQUESTS):
            make, path = KINDS[i % len(KINDS)], PATHS[rng.integers(len(PATHS))]
            request = make(rng)
            start = monotonic()
            answer = client.post(path, **request)
            slowest = max(slowest, monotonic() - start)
            assert answer.status_code < 500, (make.__name__, path, answer.text)
            if answer.status_code >= 400:
                assert list(answer.json()) == ["message"], (make.__name__, answer.text)
                assert len(answer.json()["message"]) < 500, make.__name__
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            if i == N_REQUESTS // 3:
                settled = state(server)
        assert statuses[400] > N_REQUESTS / 2
        assert slowest < 30
        good = client.post("/v1/rerank", json=body())
        assert good.status_code == 200
    assert server.metric("hybridclf_queue_depth") == server.metric("hybridclf_images_under_way") == 0
    memory, files, threads = state(server)
    assert memory - settled[0] < 64 * 2**20
    assert files <= settled[1] + 2
    assert threads <= settled[2]


@pytest.mark.parametrize(
    "sent_before_leaving", [b"", b"POST /v1/rerank HT", b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\n\r\n"]
)
def test_clients_that_hang_up_harm_nobody(server: Server, sent_before_leaving: bytes) -> None:
    where = httpx.URL(server.url)
    for _ in range(20):
        with socket.create_connection((where.host, where.port or 80)) as connection:
            connection.sendall(sent_before_leaving)
    half = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    with socket.create_connection((where.host, where.port or 80)) as connection:
        connection.sendall(half)
    with server.client() as client:
        assert client.post("/v1/rerank", json=body()).status_code == 200
    assert server.metric("hybridclf_queue_depth") == 0
