"""Clients that send slowly, without end or too often: each is cut off in bounded time."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic, sleep
from urllib.parse import urlsplit

import pytest

from hybridclf.serving.connections import SWALLOWED
from tests.serving.processes import PATIENCE, Server, picture, uri

BODY = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.7, -0.7]}
SECONDS = 1.0


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Asks for a key, waits a second for a header, takes eight connections, and 4 MiB of bodies and images."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("right\n")
    options = ["--api-key-file", str(keys), "--header-seconds", str(SECONDS), "--max-connections", "8"]
    with Server([*options, "--max-bytes", str(4 * 2**20), "--max-body-bytes", str(3 * 2**20)]) as process:
        yield process


def connected(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE)  # type: ignore[arg-type]


def seconds_until_closed(connection: socket.socket) -> float:
    start = monotonic()
    try:
        while connection.recv(2**16):
            pass
    except ConnectionError:
        pass
    return monotonic() - start


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_header_that_does_not_come_is_not_waited_for(strict: Server, sent: bytes) -> None:
    with connected(strict) as connection:
        connection.sendall(sent)
        assert seconds_until_closed(connection) < PATIENCE / 2


def test_nor_is_the_header_of_a_second_request(strict: Server) -> None:
    with connected(strict) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert seconds_until_closed(connection) < PATIENCE / 2


def test_a_request_whose_answer_takes_longer_is_not_cut_off(strict: Server) -> None:
    """Only headers have that bound: here the body comes later."""
    with connected(strict) as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer right\r\n")
        connection.sendall(b"Content-Length: 2\r\n\r\n")
        connection.settimeout(2 * SECONDS)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE)
        connection.sendall(b"{}")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 400")


def test_a_stranger_s_body_is_not_swallowed(strict: Server) -> None:
    """It gets 401 at once, and the rest of what it sends is not read."""
    sent = 0
    with connected(strict) as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000000\r\n\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 401")
        with pytest.raises(ConnectionError):
            while sent < 20 * SWALLOWED:
                sent += connection.send(bytes(2**16))
    assert sent < 5 * SWALLOWED  # what the system's buffers hold comes on top


def test_a_stranger_with_a_small_body_reads_its_401(strict: Server) -> None:
    with strict.client() as client:
        for _ in range(3):
            answer = client.post("/v1/rerank", json={**BODY, "query": "x" * (SWALLOWED // 2)})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"


def test_connections_beyond_the_most_get_503(strict: Server) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(connected(strict))
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
        for _ in range(4):
            beyond = stack.enter_context(connected(strict))
            assert beyond.recv(2**16).startswith(b"HTTP/1.1 503")
            assert seconds_until_closed(beyond) < PATIENCE / 2
    until = monotonic() + PATIENCE
    while healthy(strict) != 200 and monotonic() < until:  # once the eight have gone
        sleep(0.05)
    assert healthy(strict) == 200


def test_another_address_takes_the_place_of_a_silent_connection(strict: Server) -> None:
    address = urlsplit(strict.url)
    with ExitStack() as stack:
        silent = [stack.enter_context(connected(strict)) for _ in range(8)]
        other = socket.create_connection((address.hostname, address.port), PATIENCE, ("127.0.0.2", 0))  # type: ignore[arg-type]
        with other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert other.recv(2**16).startswith(b"HTTP/1.1 200")
            beyond = stack.enter_context(connected(strict))
            assert beyond.recv(2**16).startswith(b"HTTP/1.1 503")
        closed = [connection for connection in silent if not seconds_until_closed(connection) > 2 * PATIENCE]
    assert len(closed) == 8  # one at once, the others for want of a header


def healthy(server: Server) -> int:
    with server.client() as client:
        return client.get("/healthz").status_code


def test_stalled_uploads_hold_bytes_until_their_client_s_share_is_gone(strict: Server) -> None:
    """2 MiB for one client: the second body of 1.5 MB gets 429; once the first has gone, all is free again."""
    request = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer right\r\nContent-Length: 1500000\r\n\r\n"
    with connected(strict) as first, connected(strict) as second:
        first.sendall(request + b"{")
        until = monotonic() + PATIENCE
        while strict.metric("hybridclf_bytes_held") != 1_500_000:
            assert monotonic() < until
        second.sendall(request)
        answer = second.recv(2**16)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in answer.lower()
        with strict.client(headers={"Authorization": "Bearer right"}) as client:
            assert client.post("/v1/rerank", json=BODY).status_code == 200
            too_large = client.post("/v1/rerank", content=b"x" * (2 * 2**20 + 1))
            assert too_large.status_code == 413
            assert "takes more than 2097152 bytes of memory" in too_large.json()["message"]
    until = monotonic() + PATIENCE
    while strict.metric("hybridclf_bytes_held"):
        assert monotonic() < until


def test_the_deadline_does_not_hide_what_is_no_image(strict: Server) -> None:
    with strict.client(headers={"Authorization": "Bearer right"}) as client:
        answer = client.post("/v1/rerank", json={**BODY, "query": uri(b"no image"), "deadline_ms": 1e-6})
        assert answer.status_code == 400
        assert "not an image" in answer.json()["message"]
