"""A model loaded anew while requests are under way: none is lost, and each is answered by one of the two."""

import threading
from collections.abc import Iterator
from time import monotonic, sleep
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.errors import SavedModelError
from hybridclf.serving import create_app, reload_model
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


def test_what_is_under_way_is_answered_by_the_old_model_and_new_requests_by_the_new(
    app: FastAPI, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, arrived, may_go_on = app.state.service, threading.Event(), threading.Event()
    hand_in, statuses = old._hand_in, list[int]()

    def slow(question: Any) -> Any:
        arrived.set()
        assert may_go_on.wait(PATIENCE)
        return hand_in(question)

    monkeypatch.setattr(old, "_hand_in", slow)
    asking = threading.Thread(target=lambda: statuses.append(http.post("/v1/rerank", json=ASK).status_code))
    asking.start()
    assert arrived.wait(PATIENCE)
    reloading = reload_model(app, loaded_anew)
    until = monotonic() + PATIENCE
    while app.state.service is old and monotonic() < until:
        sleep(0.01)
    new = app.state.service
    assert http.post("/v1/rerank", json=ASK).status_code == 200  # while the old one still works
    assert new.clf.novel_label == "other"
    assert old.alive and old.requests == 1 and not statuses
    may_go_on.set()
    asking.join(PATIENCE)
    reloading.join(PATIENCE)
    assert statuses == [200]
    assert not old.alive and new.alive
    assert http.post("/v1/classify", json=CLASSIFY).json()["results"][0]["label"] == 3
    assert 'hybridclf_requests_total{endpoint="rerank",outcome="ok"} 2.0' in http.get("/metrics").text


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
