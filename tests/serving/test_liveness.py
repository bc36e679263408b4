"""Servers that hang, reload and end: what the probes say, and that the process ends in bounded time."""

import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, sleep

import httpx
import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.serving import check_address, run
from hybridclf.serving.server import _hangups
from tests.data.hostile import many_scans
from tests.serving.processes import PATIENCE, Server, picture, uri

BODY = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.7, -0.7]}


def ask_in_the_background(server: Server, body: object) -> threading.Thread:
    def ask() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{server.url}/v1/rerank", json=body, timeout=PATIENCE, trust_env=False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def wait_for(client: httpx.Client, path: str, status: int) -> float:
    """Seconds until a probe has that status."""
    start = monotonic()
    while client.get(path).status_code != status:
        assert monotonic() - start < PATIENCE, client.get(path).text
        sleep(0.05)
    return monotonic() - start


@pytest.fixture
def hung() -> Iterator[Server]:
    server = Server(["4", "2"], script="hung_server")
    yield server
    server.process.kill()
    server.stop()


@pytest.mark.slow
def test_a_hung_denoiser_is_not_ready_then_not_alive_and_the_process_ends(hung: Server) -> None:
    with hung.client() as client:
        assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200
        thread = ask_in_the_background(hung, BODY)
        wait_for(client, "/readyz", 503)
        assert client.get("/healthz").json() == {"status": "ok"}
        wait_for(client, "/healthz", 503)
        assert client.get("/healthz").json() == {"status": "stuck"}
        assert hung.metric("hybridclf_oldest_seconds") >= 4
    start = monotonic()
    hung.process.send_signal(signal.SIGTERM)
    assert hung.process.wait(PATIENCE) == 1
    assert monotonic() - start >= 1.5
    thread.join(PATIENCE)
    hung._reader.join(PATIENCE)
    assert "in predict" in "".join(hung.log)  # where it hung


def test_a_second_signal_ends_a_hung_server_at_once(hung: Server) -> None:
    thread = ask_in_the_background(hung, BODY)
    with hung.client() as client:
        wait_for(client, "/readyz", 503)
        hung.process.send_signal(signal.SIGTERM)
        while client.post("/v1/rerank", json=BODY).status_code != 503:
            sleep(0.05)
    hung.process.send_signal(signal.SIGTERM)
    assert hung.process.wait(PATIENCE) == 128 + signal.SIGTERM
    thread.join(PATIENCE)


@pytest.mark.slow
def test_decodings_that_hang_neither_stop_others_nor_the_end() -> None:
    """Two images that would take minutes; small ones are answered meanwhile, SIGTERM is obeyed meanwhile."""
    hostile = {**BODY, "query": uri(many_scans(95), "jpeg")}
    with Server(["--decode-seconds", "1.5", "--drain-seconds", "20"]) as server:
        threads = [ask_in_the_background(server, hostile) for _ in range(4)]
        with server.client() as client:
            for _ in range(20):
                assert client.post("/v1/rerank", json=BODY).status_code == 200
            refused = client.post("/v1/rerank", json={**BODY, "query": uri(many_scans(5000), "jpeg")})
            assert refused.status_code == 400
            assert "more than 100 scans" in refused.json()["message"]
        start = monotonic()
        assert server.stop() == 0
        assert monotonic() - start < 20
    for thread in threads:
        thread.join(PATIENCE)


def test_a_taken_port_is_said_before_the_model_is_loaded() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InvalidInputError, match=r"cannot listen to port \d+ of 127.0.0.1: .*another --host or --port"),
    ):
        check_address("127.0.0.1", taken.getsockname()[1])
    check_address("127.0.0.1", 0)


@pytest.mark.parametrize("bounds", [{"drain_seconds": 0}, {"header_seconds": -1}, {"connections": 0}])
def test_bounds_out_of_range_are_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(bounds))):
        run(None, **bounds)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")
def test_sighup_is_the_servers_only_while_it_runs() -> None:
    calls: list[str] = []
    before = signal.signal(signal.SIGHUP, lambda *_: calls.append("before"))
    try:
        with pytest.raises(ZeroDivisionError), _hangups(lambda: calls.append("server")):
            signal.raise_signal(signal.SIGHUP)
            raise ZeroDivisionError
        with _hangups(None):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert calls == ["server", "before"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")
def test_sighup_is_left_alone_on_other_threads() -> None:
    def handler_within() -> object:
        with _hangups(None):
            return signal.getsignal(signal.SIGHUP)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(handler_within).result() is signal.getsignal(signal.SIGHUP)
