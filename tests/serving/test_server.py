"""A server under more load than it can take: refusals at once, deadlines kept, nothing lost when it is stopped."""

import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from tests.serving.processes import PATIENCE, Server, picture, uri
from tests.serving.slow_server import BATCH, TRIALS

SECONDS, QUEUE = 0.15, 6
BODY: dict[str, Any] = {
    "query": uri(picture(3)),
    "documents": ["8", "3", "5"],
    "log_prior": [-1.0, -1.1, -1.2],
    "return_documents": True,
}


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    """Every batch of 4 rows takes 0.15 s, an image 8 trials; 4 images in the loop and 6 in the queue.

    The last test ends it.
    """
    with Server([str(SECONDS), str(QUEUE)], script="slow_server") as server:
        yield server


def test_over_the_queue_429_comes_at_once_and_the_rest_is_answered(slow: Server) -> None:
    n = 40

    def ask(_: int) -> tuple[httpx.Response, float]:
        start = monotonic()
        with slow.client() as client:
            ready.wait(PATIENCE)
            start = monotonic()
            return client.post("/v1/rerank", json=BODY), monotonic() - start

    ready = threading.Barrier(n)
    before = slow.metric("hybridclf_requests_total")
    with ThreadPoolExecutor(n) as threads:
        answers = list(threads.map(ask, range(n)))
    busy = [(r, s) for r, s in answers if r.status_code == 429]
    fine = [(r, s) for r, s in answers if r.status_code == 200]
    assert len(busy) + len(fine) == n
    assert len(fine) >= BATCH + QUEUE
    assert len(busy) >= n / 2
    assert all(int(r.headers["retry-after"]) >= 1 and r.json()["message"] for r, _ in busy)
    assert max(s for _, s in busy) < max(s for _, s in fine)
    assert {r.json()["meta"]["evaluations"] for r, _ in fine} == {TRIALS * 3}
    assert slow.metric("hybridclf_queue_depth") == slow.metric("hybridclf_images_under_way") == 0
    assert slow.metric("hybridclf_requests_total") == before + n


def test_deadlines_are_kept_and_clients_that_leave_make_room(slow: Server) -> None:
    with slow.client() as client:
        client.post("/v1/rerank", json=BODY)  # warm
        start = monotonic()
        answer = client.post("/v1/rerank", json={**BODY, "deadline_ms": 1.5 * SECONDS * 1000})
        seconds = monotonic() - start
        assert answer.json()["meta"]["stopped_by"] == "deadline"
        assert answer.json()["meta"]["degraded"] is True
        assert answer.json()["meta"]["evaluations"] in (0, TRIALS * 3 // 2)
        assert 1.5 * SECONDS <= seconds < 10 * SECONDS
    gone = gone_so_far(slow)
    with ThreadPoolExecutor(8) as threads:
        leaving = [threads.submit(leave_early, slow) for _ in range(8)]
        assert all(future.result() for future in leaving)
    until = monotonic() + PATIENCE
    while slow.metric("hybridclf_queue_depth") + slow.metric("hybridclf_images_under_way") and monotonic() < until:
        sleep(0.05)
    assert slow.metric("hybridclf_queue_depth") == slow.metric("hybridclf_images_under_way") == 0
    assert gone_so_far(slow) == gone + 8


def gone_so_far(server: Server) -> float:
    with server.client() as client:
        found = re.search(r'requests_total{endpoint="rerank",outcome="gone"} (\S+)', client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def leave_early(server: Server) -> bool:
    """Hang up before the answer can have come."""
    try:
        httpx.post(f"{server.url}/v1/rerank", json=BODY, timeout=SECONDS, trust_env=False)
    except httpx.ReadTimeout:
        return True
    return False


def test_sigterm_under_load_answers_what_was_accepted(slow: Server) -> None:
    """Ten clients ask all the time; every request that was sent before the signal is answered, later ones get 503."""
    outcomes: list[tuple[float, int | None]] = []
    over = threading.Event()

    def ask_on() -> None:
        with slow.client() as client:
            while not over.is_set():
                start = monotonic()
                try:
                    outcomes.append((start, client.post("/v1/rerank", json=BODY).status_code))
                except httpx.TransportError:
                    outcomes.append((start, None))
                    return

    counted = slow.metric("hybridclf_evaluations_per_image_count")
    clients = [threading.Thread(target=ask_on) for _ in range(BATCH + QUEUE)]
    for client in clients:
        client.start()
    while slow.metric("hybridclf_evaluations_per_image_count") < counted + 8:
        sleep(0.05)
    signalled = monotonic()
    slow.process.send_signal(signal.SIGTERM)
    sleep(SECONDS)
    with slow.client() as client:
        late = client.post("/v1/rerank", json=BODY)
        ready = client.get("/readyz")
    assert (late.status_code, ready.status_code) == (503, 503)
    assert "shutting down" in late.json()["message"]
    assert slow.process.wait(PATIENCE) == 0
    over.set()
    for thread in clients:
        thread.join(PATIENCE)
    before = [status for start, status in outcomes if start < signalled - 0.1]
    assert len(before) >= 10
    assert set(before) == {200}
    assert {status for _, status in outcomes} <= {200, 503, None}
