"""A model loaded anew while requests are under way: none is lost, and each is answered by one of the two."""

import asyncio
import faulthandler
import signal
import threading
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.errors import SavedModelError
from hybridclf.serving import Limits, create_app, fair_executor, reload_model
from hybridclf.serving.server import _DrainingServer
from hybridclf.serving.service import Service
from tests.serving.processes import PATIENCE, picture, uri

ASK = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.7, -0.7]}
CLASSIFY = {"images": [uri(picture(3))], "top_k": 1}


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


@pytest.fixture
def app(clf: HybridClassifier) -> FastAPI:
    return create_app(clf)


@pytest.fixture
def http(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def loaded_anew() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits").set_params(novel_label="other")


def test_an_application_can_be_started_again(app: FastAPI) -> None:
    for _ in range(2):
        with TestClient(app) as http:
            assert http.post("/v1/classify", json=CLASSIFY).status_code == 200


class Held:
    """A request that the service at hand has accepted, and that is not answered until `let_go`."""

    def __init__(self, app: FastAPI, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service: Service = app.state.service
        self.statuses = list[int]()
        self._http, self._hand_in, self._may_go_on = http, self.service._hand_in, threading.Event()
        arrived = threading.Event()

        def hand_in(question: Any) -> Any:
            arrived.set()
            assert self._may_go_on.wait(PATIENCE)
            return self._hand_in(question)

        monkeypatch.setattr(self.service, "_hand_in", hand_in)
        self._asking = threading.Thread(target=self._ask)
        self._asking.start()
        assert arrived.wait(PATIENCE)

    def _ask(self) -> None:
        self.statuses.append(self._http.post("/v1/rerank", json=ASK).status_code)

    def let_go(self) -> None:
        self._may_go_on.set()
        self._asking.join(PATIENCE)


@pytest.fixture
def held(app: FastAPI, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    held = Held(app, http, monkeypatch)
    yield held
    held.let_go()


def reloaded(app: FastAPI) -> threading.Thread:
    """The thread that reloads, once the new model is in place."""
    old, thread, until = app.state.service, reload_model(app, loaded_anew), monotonic() + PATIENCE
    while app.state.service is old and monotonic() < until:
        sleep(0.01)
    assert app.state.service is not old
    return thread


def test_what_is_under_way_is_answered_by_the_old_model_and_new_requests_by_the_new(
    app: FastAPI, http: TestClient, held: Held
) -> None:
    reloading, old, new = reloaded(app), held.service, app.state.service
    assert http.post("/v1/rerank", json=ASK).status_code == 200  # while the old one still works
    assert new.clf.novel_label == "other"
    assert old.alive and old.requests == 1 and not held.statuses
    held.let_go()
    reloading.join(PATIENCE)
    assert held.statuses == [200]
    assert not old.alive and new.alive
    assert http.post("/v1/classify", json=CLASSIFY).json()["results"][0]["label"] == 3
    assert 'hybridclf_requests_total{endpoint="rerank",outcome="ok"} 2.0' in http.get("/metrics").text


def test_an_old_model_that_hangs_stays_in_sight_and_stops_no_later_reload(
    app: FastAPI, http: TestClient, held: Held, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads, until = [reloaded(app)], monotonic() + PATIENCE
    said = "requests that the one before still answers: 1"
    while said not in caplog.text and monotonic() < until:  # a moment after the new model is in place
        sleep(0.01)
    assert said in caplog.text
    threads.append(reloaded(app))
    threads[1].join(PATIENCE)
    assert app.state.services == [held.service, app.state.service]
    with monkeypatch.context() as later:
        later.setattr(fair_executor, "monotonic", lambda: monotonic() + Limits().stuck_seconds)
        assert (http.get("/healthz").status_code, http.get("/readyz").status_code) == (503, 200)
    assert http.get("/healthz").status_code == 200
    held.let_go()
    threads[0].join(PATIENCE)
    assert app.state.services == [app.state.service]


def test_sigterm_after_a_reload_answers_what_the_old_model_has_accepted(
    app: FastAPI, http: TestClient, held: Held
) -> None:
    reloading = reloaded(app)
    server = _DrainingServer(uvicorn.Config(app), drain_seconds=PATIENCE)
    assert not asyncio.run(server.on_tick(1))
    try:
        server.handle_exit(signal.SIGTERM, None)
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert http.post("/v1/rerank", json=ASK).status_code == 503
    assert not asyncio.run(server.on_tick(1)) and not held.statuses
    held.let_go()
    assert held.statuses == [200]
    assert asyncio.run(server.on_tick(1))
    reloading.join(PATIENCE)


def test_the_end_of_an_application_waits_for_the_old_model(app: FastAPI, held: Held, http: TestClient) -> None:
    reloading, close, closed = reloaded(app), held.service.close, list[bool]()
    held.service.close = lambda: (sleep(0.1), close(), closed.append(True))  # type: ignore[method-assign]
    held.let_go()
    http.__exit__()
    assert closed == [True]
    reloading.join(PATIENCE)


def test_the_end_of_an_application_waits_for_a_model_that_is_being_loaded(app: FastAPI, http: TestClient) -> None:
    loading, may_go_on = threading.Event(), threading.Event()

    def load() -> HybridClassifier:
        loading.set()
        assert may_go_on.wait(PATIENCE)
        return loaded_anew()

    old, reloading = app.state.service, reload_model(app, load)
    assert loading.wait(PATIENCE)
    ending = threading.Thread(target=http.__exit__)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive() and old.alive
    may_go_on.set()
    ending.join(PATIENCE)
    reloading.join(PATIENCE)
    assert not ending.is_alive() and not reloading.is_alive()
    assert app.state.services == [app.state.service] and app.state.service is not old
    assert not old.alive and not app.state.service.alive


def test_a_reload_before_the_start_waits_for_it(app: FastAPI) -> None:
    reloading = reload_model(app, loaded_anew)
    with TestClient(app):
        reloading.join(PATIENCE)
        assert app.state.service.clf.novel_label == "other"


def test_a_model_that_cannot_be_loaded_changes_nothing(
    app: FastAPI, http: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> HybridClassifier:
        raise SavedModelError("it is damaged")

    old = app.state.service
    reload_model(app, load).join(PATIENCE)
    assert app.state.service is old
    assert "cannot be loaded anew: it is damaged; the model so far stays" in caplog.text
    assert http.post("/v1/rerank", json=ASK).status_code == 200
