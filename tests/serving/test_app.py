"""The HTTP surface of a real server, against the same classifier in this process."""

import json
import re
import signal
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import replace
from io import BytesIO
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from hybridclf import HybridClassifier
from hybridclf.data.image_files import as_item, read_image
from hybridclf.errors import ClosedError, InvalidInputError
from hybridclf.live import fault_isolation
from hybridclf.live.fault_isolation import FAILING
from hybridclf.serving import Limits, create_app, service
from tests.serving.processes import PATIENCE, Server, picture, uri

TEXTS = list("0123456789")
RERANK = ("/v1/rerank", "/v2/rerank", "/rerank")


@pytest.fixture(scope="module")
def clf() -> HybridClassifier:
    return HybridClassifier.from_pretrained("digits")


def item(clf: HybridClassifier, number: int) -> np.ndarray:
    return as_item(read_image(BytesIO(picture(number))), clf.image_shape_, clf.pixel_range_)


def undecided(clf: HybridClassifier) -> int:
    """A digit that the prior does not settle."""
    return next(i for i in range(900, 1797) if clf.rerank(item(clf, i)[None])[0].evaluations)


def ask(client: httpx.Client, path: str = "/v1/rerank", **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: httpx.Client, path: str = "/v1/rerank", status: int = 400, **body: Any) -> str:
    """The one sentence of a refusal; NaN and Infinity travel as Python writes them."""
    answer = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["message"]
    message = answer.json()["message"]
    assert message and "\n" not in message
    return message


# --- rerank -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RERANK)
@pytest.mark.parametrize("form", ["object", "bare"])
def test_all_labels_without_a_prior_are_what_the_classifier_says(
    client: httpx.Client, clf: HybridClassifier, path: str, form: str
) -> None:
    number = undecided(clf)
    posterior, (result,) = clf.decide(item(clf, number)[None])
    image = uri(picture(number))
    answer = ask(client, path, query={"image": image} if form == "object" else image, documents=TEXTS)
    shares = {r["index"]: r["relevance_score"] for r in answer["results"]}
    np.testing.assert_allclose([shares[i] for i in range(10)], posterior[0], rtol=1e-9)
    scores = [r["relevance_score"] for r in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["meta"] == {"evaluations": result.evaluations, "stopped_by": result.stopped_by, "degraded": False}
    assert answer["usage"] == {"evaluations": result.evaluations, "total_tokens": 0}
    assert answer["model"] == "digits"
    assert all("document" not in r for r in answer["results"])


def test_with_a_prior_it_is_the_reranker_behind_another_classifier(client: httpx.Client, clf: HybridClassifier) -> None:
    candidates, log_prior = [3, 8, 9, 5], [-1.0, -1.1, -1.9, -2.0]
    for number in (920, 927, 1000):
        (result,) = clf.reranker().rerank(item(clf, number)[None], [candidates], [log_prior])
        documents = [{"text": "3"}, "8", {"text": "9"}, "5"]
        answer = ask(client, query=uri(picture(number)), documents=documents, log_prior=log_prior)
        assert [candidates[r["index"]] for r in answer["results"]] == list(result.ranking)
        np.testing.assert_allclose(
            [r["relevance_score"] for r in answer["results"]], np.sort(result.posterior)[::-1], rtol=1e-9
        )
        assert answer["meta"]["evaluations"] == result.evaluations


def test_top_n_and_return_documents(client: httpx.Client) -> None:
    image = uri(picture(1000, "jpeg"), "jpeg")
    answer = ask(client, query=image, documents=["4", {"text": "1"}, "7"], top_n=2, return_documents=True)
    assert len(answer["results"]) == 2
    for result in answer["results"]:
        assert result["document"] == {"text": ["4", "1", "7"][result["index"]]}
    assert len(ask(client, query=image, documents=["4", "1"], top_n=100)["results"]) == 2
    assert answer["id"] != ask(client, query=image, documents=["4"])["id"]


def test_a_prior_of_minus_infinity_is_a_prior(client: httpx.Client) -> None:
    body = {"query": uri(picture(5)), "documents": ["5", "9"], "log_prior": [float("-inf"), 1e-7]}  # 0, rounded
    answer = client.post("/v1/rerank", content=json.dumps(body))
    assert answer.status_code == 200
    assert sum(r["relevance_score"] for r in answer.json()["results"]) == pytest.approx(1)


def test_a_bound_on_evaluations_is_kept(client: httpx.Client, clf: HybridClassifier) -> None:
    even, stage = [-2.3] * 10, clf.reranker()
    digits = (stage.rerank(item(clf, i)[None], [clf.classes_.tolist()], [np.array(even)])[0] for i in range(900, 1797))
    hard = 900 + next(i for i, result in enumerate(digits) if result.rows > 1)
    free = ask(client, query=uri(picture(hard)), documents=TEXTS, log_prior=even)
    assert free["meta"]["evaluations"] > 10
    bounded = ask(client, query=uri(picture(hard)), documents=TEXTS, log_prior=even, max_evaluations=10)
    assert bounded["meta"] == {"evaluations": 10, "stopped_by": "budget", "degraded": False}
    none = ask(client, query=uri(picture(3)), documents=["8", "3"], log_prior=[-0.6, -0.7], max_evaluations=0)
    assert [r["index"] for r in none["results"]] == [0, 1]
    assert none["meta"]["evaluations"] == 0


def test_a_deadline_that_is_over_gets_tier_1s_order(client: httpx.Client) -> None:
    answer = ask(client, query=uri(picture(3)), documents=["8", "3"], log_prior=[-0.6, -0.8], deadline_ms=1e-6)
    assert [r["index"] for r in answer["results"]] == [0, 1]
    assert answer["meta"] == {"evaluations": 0, "stopped_by": "deadline", "degraded": True}


@pytest.mark.parametrize("limits", [Limits(deadline_seconds=1e-9), Limits(max_deadline_seconds=1e-9)], ids=str)
def test_a_server_has_a_deadline_of_its_own(clf: HybridClassifier, limits: Limits) -> None:
    asked = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.6, -0.8]}
    with TestClient(create_app(clf, limits)) as client:
        assert ask(client, **asked)["meta"]["stopped_by"] == "deadline"
        bounded = ask(client, **asked, deadline_ms=60_000)["meta"]["stopped_by"] == "deadline"
        assert bounded == (limits.max_deadline_seconds is not None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": ["3", "yak"]}, r"does not know the label 'yak'; it knows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ({"documents": ["3", "8", "3"]}, "documents has '3' twice"),
        ({"documents": []}, "documents: .*at least 1"),
        ({"documents": "3"}, "documents: .*array"),
        ({"documents": ["3", 8]}, r"documents\[1\]: .*string"),
        ({"documents": ["3", {"txt": "8"}]}, r"documents\[1\]: .*string"),
        ({"documents": [str(i) for i in range(101)]}, "got 101 documents; at most 100"),
        ({"documents": None}, "documents: "),
        ({"query": "http" + "s://example.org/cat.png"}, "must be a data URI.*not fetched"),
        ({"query": {"image": "http" + "://example.org/cat.png"}}, "must be a data URI.*not fetched"),
        ({"query": {"url": "x"}}, "query: .*string"),
        ({"query": "data:image/png,abc"}, "must be a data URI"),
        ({"query": "data:image/png;base64,$$$"}, "not valid base64"),
        ({"query": uri(b"no image")}, "not an image in one of the formats"),
        ({"query": uri(picture(0)[:-30])}, "the image is unusable: cannot be read"),
        ({"log_prior": [-1.0]}, "got 2 documents and 1 numbers in log_prior"),
        ({"log_prior": [-1.0, float("nan")]}, r"log_prior\[1\] is nan"),
        ({"log_prior": [float("inf"), -1.0]}, r"log_prior\[0\] is inf"),
        ({"log_prior": [0.6, 0.3]}, r"log_prior\[0\] is 0.6; send logarithms"),
        ({"log_prior": [0.0, 1e308]}, r"log_prior\[1\] is 1e\+308"),
        ({"log_prior": [-1.0, "x"]}, r"log_prior\[1\]: .*number"),
        ({"deadline_ms": 0}, "deadline_ms: .*greater than 0"),
        ({"deadline_ms": float("nan")}, "deadline_ms: "),
        *[({"max_evaluations": n}, "max_evaluations: ") for n in (-1, 2.5, True, "x")],
        *[({name: True}, f"{name}: ") for name in ("top_n", "deadline_ms")],
        ({"log_prior": [-1.0, True]}, r"log_prior\[1\]: "),
        ({"top_n": 0}, "top_n: "),
        *[({"return_documents": value}, "return_documents: .*boolean") for value in (1, "yes", "true")],
        *[({n: 1}, f"no field '{n}'; did you mean '{m}'") for n, m in (("logprior", "log_prior"), ("topn", "top_n"))],
    ],
)
def test_bad_input_is_refused_in_one_sentence(client: httpx.Client, change: dict[str, Any], message: str) -> None:
    body = {"query": uri(picture(3)), "documents": ["3", "8"], **change}
    assert re.search(message, refused(client, **body))


def test_another_model_is_not_here(client: httpx.Client) -> None:
    message = refused(client, status=404, model="cifar", query=uri(picture(3)), documents=["3"])
    assert message == "there is no model 'cifar' here; this server has 'digits'"


# --- classify ---------------------------------------------------------------------------------------------------------


def shares(result: dict[str, Any]) -> dict[Any, float]:
    return {share["label"]: share["probability"] for share in result["posterior"]}


def test_classify_as_json_and_as_a_form(client: httpx.Client, clf: HybridClassifier) -> None:
    numbers = [900, 901, 902]
    posterior, results = clf.decide(np.stack([item(clf, n) for n in numbers]))
    images = [uri(picture(n)) for n in numbers]
    as_json = ask(client, "/v1/classify", images=images, top_k=10)
    files = [("image", (f"{n}.png", picture(n))) for n in numbers]
    answer = client.post("/v1/classify", files=files, data={"top_k": "10", "model": "digits"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == as_json["results"]
    assert as_json["usage"]["evaluations"] == sum(r.evaluations for r in results)
    for row, result, got in zip(posterior, results, as_json["results"], strict=True):
        np.testing.assert_allclose([shares(got)[label] for label in range(10)], row, rtol=1e-9)
        assert got["posterior"][0]["label"] == row.argmax()
        assert got["meta"] == {"evaluations": result.evaluations, "stopped_by": result.stopped_by, "degraded": False}
    assert (
        ask(client, "/v1/classify", images=images[0], top_k=2)["results"][0]["posterior"]
        == (as_json["results"][0]["posterior"][:2])
    )


def test_classify_among_some_labels(client: httpx.Client) -> None:
    (result,) = ask(client, "/v1/classify", images=[uri(picture(5))], labels=["5", "9"])["results"]
    assert set(shares(result)) == {5, 9}
    assert sum(shares(result).values()) == pytest.approx(1)
    assert result["posterior"][0]["label"] == 5
    form = client.post("/v1/classify", files={"image": picture(5)}, data={"labels": ["5", "9"]})
    assert shares(form.json()["results"][0]) == pytest.approx(shares(result))
    assert "does not know the label 'cat'" in refused(client, "/v1/classify", images=[uri(picture(5))], labels=["cat"])


def test_what_is_none_of_the_classes_is_rejected(clf: HybridClassifier) -> None:
    """Digits in negative are novel. Among labels of the request nothing is rejected: the test is of the model's own."""
    rejecting = copy(clf).set_params(reject=0.01, novel_label=-1)
    pixels = 255 - np.asarray(Image.open(BytesIO(picture(5))))
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        images = [uri(file.getvalue()), uri(picture(5))]
    with TestClient(create_app(rejecting)) as client:
        novel, usual = ask(client, "/v1/classify", images=images)["results"]
        assert (novel["label"], novel["rejected"]) == (-1, True) and novel["novelty"] <= 0.01
        assert (usual["label"], usual["rejected"]) == (5, False) and usual["novelty"] > 0.01
        assert [len(result["posterior"]) for result in (novel, usual)] == [5, 5]
        assert usual["meta"]["evaluations"] == clf.rerank(item(clf, 5)[None])[0].evaluations + 10
        (some,) = ask(client, "/v1/classify", images=images[:1], labels=list("0123456789"))["results"]
        assert "novelty" not in some and "rejected" not in some and some["label"] in range(10)


def test_a_model_that_cannot_reject_is_refused(clf: HybridClassifier) -> None:
    uncalibrated = copy(clf).set_params(reject=0.01)
    uncalibrated.calibration_ = None
    with pytest.raises(InvalidInputError, match="novelty needs a calibration"):
        create_app(uncalibrated)


def test_bad_forms_are_refused(client: httpx.Client) -> None:
    for request, message in (
        ({"files": {"top_k": (None, "3")}}, "the form has no file"),
        ({"files": {"image": b"no image"}}, "not an image"),
        ({"files": {"image": picture(1)}, "data": {"top_k": "many"}}, "top_k: "),
        ({"files": {"image": picture(1)}, "data": {"topk": "3"}}, "no field 'topk'; did you mean 'top_k'"),
        ({"files": {"image": picture(1)}, "data": {"label": ["3", "8"]}}, "no field 'label'; did you mean 'labels'"),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data"}}, "cannot be read"),
        ({"content": b"abc", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "cannot be read|no file"),
    ):
        answer = client.post("/v1/classify", **request)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert re.search(message, answer.json()["message"])


def test_more_images_than_ever_fit_are_refused(client: httpx.Client) -> None:
    assert "images; at most" in refused(client, "/v1/classify", images=[uri(picture(1))] * 1000)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_large_bodies_are_refused_while_they_are_read(client: httpx.Client) -> None:
    body = json.dumps({"query": uri(bytes(9 * 2**20)), "documents": ["3"]}).encode()
    assert len(body) > 10 * 2**20

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    for content in (body, pieces()):  # the second without a Content-Length
        answer = client.post("/v1/rerank", content=content)
        assert answer.status_code == 413
        assert "larger than 10485760 bytes" in answer.json()["message"]
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("size", [(6000, 6000), (100_000, 100_000)])
def test_bombs_are_refused_unread(client: httpx.Client, size: tuple[int, int]) -> None:
    file = BytesIO()
    Image.new("1", (6000, 6000)).save(file, "png")
    data = bytearray(file.getvalue())
    data[16:24] = b"".join(side.to_bytes(4, "big") for side in size)
    if size != (6000, 6000):
        data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    assert "more than 25000000 pixels" in refused(client, query=uri(bytes(data)), documents=["3"])


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_health_and_readiness(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


class Device:
    """Around a denoiser: while it is broken, every batch raises."""

    def __init__(self, denoiser: Any) -> None:
        self.denoiser, self.broken, self.batches = denoiser, False, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def predict(self, *arguments: Any) -> Any:
        self.batches += 1
        if self.broken:
            raise RuntimeError("the device is lost")
        return self.denoiser.predict(*arguments)


def equipped(**parameters: Any) -> tuple[HybridClassifier, Device]:
    """The digits pair on a device that can break."""
    clf = HybridClassifier.from_pretrained("digits").set_params(**parameters)
    clf.denoiser_ = Device(clf.denoiser_)
    return clf, clf.denoiser_


def test_a_server_whose_device_is_broken_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY_SECONDS", 1e6)
    clf, device = equipped()
    body = {"query": uri(picture(undecided(clf))), "documents": TEXTS}
    with TestClient(create_app(clf)) as client:

        def readiness(broken: bool) -> list[int]:
            """Before and after each of a few requests."""
            device.broken = broken
            statuses = [client.get("/readyz").status_code]
            for _ in range(FAILING):
                assert client.post("/v1/rerank", json=body).json()["meta"]["degraded"] is broken
                statuses.append(client.get("/readyz").status_code)
            return statuses

        assert readiness(broken=True) == [200] * FAILING + [503]
        assert readiness(broken=False) == [503] + [200] * FAILING
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("reject", [None, 0.05])
def test_a_device_that_works_again_is_noticed_without_requests(
    clf: HybridClassifier, monkeypatch: pytest.MonkeyPatch, reject: float | None
) -> None:
    """With `reject`, the test of an image asks the denoiser even where its prior is sure."""
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.02)
    broken, device = equipped(reject=reject)
    number = undecided(clf) if reject is None else 5
    with TestClient(create_app(broken)) as client:
        device.broken = True
        for _ in range(FAILING):
            (result,) = ask(client, "/v1/classify", images=uri(picture(number)))["results"]
            assert (result["meta"]["stopped_by"], result["meta"]["degraded"]) == ("fallback", True)
            assert "novelty" not in result and "rejected" not in result
        assert (client.get("/readyz").status_code, client.get("/healthz").status_code) == (503, 200)
        with monkeypatch.context() as later:
            later.setattr(fault_isolation, "monotonic", lambda: monotonic() + Limits().stuck_seconds)
            assert client.get("/healthz").status_code == 503
        device.broken = False
        until = monotonic() + PATIENCE
        while client.get("/readyz").status_code != 200 and monotonic() < until:
            sleep(0.02)
        assert client.get("/readyz").status_code == client.get("/healthz").status_code == 200


def test_images_that_a_test_of_novelty_refuses_do_not_count_as_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise InvalidInputError("too dark")

    clf, _ = equipped(reject=0.05)
    with TestClient(create_app(clf)) as client:
        monkeypatch.setattr(clf, "_p_values", refuse)
        for _ in range(FAILING):
            assert refused(client, "/v1/classify", images=uri(picture(5))) == "too dark"
        assert client.get("/readyz").status_code == 200


def test_a_tier_1_that_runs_out_of_its_own_time_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    clf, _ = equipped()
    with TestClient(create_app(clf), raise_server_exceptions=False) as client:

        def late(labels: Any, image: Any) -> Any:
            raise TimeoutError("the other server is silent")

        monkeypatch.setattr(client.app.state.service.labels, "log_prior", late)
        for deadline in ({}, {"deadline_ms": 60_000}):
            assert "failed on this request" in refused(
                client, "/v1/classify", status=500, images=uri(picture(5)), **deadline
            )


def test_answers_of_tier_1_count_as_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RETRY_SECONDS", 1e6)
    clf, device = equipped()
    with TestClient(create_app(clf)) as client:
        number, device.broken = undecided(clf), True
        ask(client, query=uri(picture(number)), documents=TEXTS)
        assert 'hybridclf_images_total{stopped_by="fallback"} 1.0' in client.get("/metrics").text


def test_decoders_are_started_before_the_first_request(clf: HybridClassifier) -> None:
    with TestClient(create_app(clf, Limits(decoders=2))) as client:
        started = client.app.state.service.decoders._all
        assert [decoder._process.poll() for decoder in started] == [None, None]


def test_a_refusal_says_which_image_it_is_about(client: httpx.Client) -> None:
    whole = picture(3)
    images = [uri(whole), uri(whole[: len(whole) // 2])]
    message = refused(client, "/v1/classify", images=images)
    assert message.startswith("images[1]: the image is unusable")
    assert refused(client, "/v1/classify", images=images[1:]).startswith("the image is unusable")
    assert refused(client, "/v1/classify", images=[uri(whole), "data:image/png;base64,!"]).startswith("images[1]: ")
    form = client.post("/v1/classify", files=[("image", whole), ("image", b"no image")])
    assert form.json()["message"].startswith("images[1]: the image is unusable")


def test_warming_up_asks_the_denoiser_whatever_it_is_not_asked_about() -> None:
    """Tier 1 answers images that it takes for a 0 by itself."""
    clf, device = equipped()
    clf.fusion_ = replace(clf.fusion_, harmed=frozenset([0]))
    with TestClient(create_app(clf)):
        assert device.batches == 1


def test_fields_of_other_services_are_named_not_refused(client: httpx.Client) -> None:
    more = {"rank_fields": ["text"], "truncation": True, "x" * 500: None}
    answer = ask(client, query=uri(picture(3)), documents=["3", "8"], **more)
    assert answer["meta"]["ignored"] == ["rank_fields", "truncation", "x" * 100]
    (result,) = ask(client, "/v1/classify", images=uri(picture(3)), **{f"f{i}": i for i in range(50)})["results"]
    assert result["meta"]["ignored"] == [f"f{i}" for i in range(20)]
    form = client.post("/v1/classify", files={"image": picture(3)}, data={"truncation": "yes", "top_k": "2"})
    assert form.json()["results"][0]["meta"]["ignored"] == ["truncation"]
    assert "no field 'image'; did you mean 'images'" in refused(
        client, "/v1/classify", image="x", images=[uri(picture(3))]
    )


def test_a_request_keeps_its_id(client: httpx.Client) -> None:
    for body in ({"query": uri(picture(3)), "documents": ["3"]}, {}):
        given = client.post("/v1/rerank", json=body, headers={"X-Request-ID": "abc-123"})
        assert given.headers["x-request-id"] == "abc-123"
        ids = {client.post("/v1/rerank", json=body).headers["x-request-id"] for _ in range(2)}
        assert len(ids) == 2
    too_long = client.post("/v1/rerank", json=body, headers={"X-Request-ID": "a" * 1000})
    assert len(too_long.headers["x-request-id"]) == 32


def test_what_other_services_have_too(client: httpx.Client) -> None:
    assert client.get("/v1/models").json()["data"] == [{"id": "digits", "object": "model", "owned_by": "hybridclf"}]
    for path in ("/healthz", "/health", "/readyz"):
        assert client.get(path).status_code == 200
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")


def test_errors_of_the_framework_are_json_too(client: httpx.Client) -> None:
    for answer, status in ((client.get("/nowhere"), 404), (client.get("/v1/rerank"), 405)):
        assert answer.status_code == status
        assert list(answer.json()) == ["message"]
    assert answer.headers["allow"] == "POST"


def test_metrics_count_what_happened(server: Server, client: httpx.Client, clf: HybridClassifier) -> None:
    names = ("requests_total", "evaluations_per_image_count", "evaluations_per_image_sum", "queue_seconds_count")
    before = {name: server.metric(f"hybridclf_{name}") for name in names}
    spent = sum(
        ask(client, query=uri(picture(n)), documents=TEXTS)["meta"]["evaluations"]
        for n in (undecided(clf), 901, 902, 903)
    )
    refused(client, query="x", documents=["3"])
    after = {name: server.metric(f"hybridclf_{name}") - before[name] for name in names}
    assert list(after.values()) == [5, 4, spent, 4]
    assert server.metric("hybridclf_batch_fill_count") > 0
    assert server.metric("hybridclf_queue_depth") == server.metric("hybridclf_images_under_way") == 0
    text = client.get("/metrics").text
    for line in (
        'hybridclf_requests_total{endpoint="rerank",outcome="ok"}',
        'hybridclf_requests_total{endpoint="rerank",outcome="refused"}',
        "hybridclf_deadline_misses_total",
        "hybridclf_batch_seconds_bucket",
        "hybridclf_loop_seconds_bucket",
    ):
        assert line in text


def test_the_documented_examples_work(client: httpx.Client) -> None:
    api = client.get("/openapi.json").json()
    assert set(api["paths"]) == {"/v1/rerank", "/v1/classify", "/v1/models", "/healthz", "/readyz", "/metrics"}
    for path in ("/v1/rerank", "/v1/classify"):
        content = api["paths"][path]["post"]["requestBody"]["content"]
        answer = ask(client, path, **content["application/json"]["example"])
        schema = api["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        properties = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
        assert set(answer) == set(properties)
    assert "multipart/form-data" in api["paths"]["/v1/classify"]["post"]["requestBody"]["content"]
    assert client.get("/docs").status_code == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")
def test_sighup_without_keys_changes_nothing(server: Server, client: httpx.Client) -> None:
    server.process.send_signal(signal.SIGHUP)
    ask(client, query=uri(picture(3)), documents=["8", "3"])


# --- mounted in another application -----------------------------------------------------------------------------------


def test_a_mounted_server_needs_its_lifespan(clf: HybridClassifier) -> None:
    served, outer = create_app(clf), FastAPI()
    outer.mount("/clf", served)
    message = r"must run its lifespan, as uvicorn does; .* async with served\.router"
    with TestClient(outer) as client, pytest.raises(ClosedError, match=message):
        client.get("/clf/readyz")


def test_a_mounted_server_answers(clf: HybridClassifier) -> None:
    served = create_app(clf)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with served.router.lifespan_context(served):
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/clf", served)
    with TestClient(outer) as client:
        assert client.get("/clf/readyz").status_code == 200
        found = client.post("/clf/v1/classify", files={"image": picture(0)}).json()
        assert found["results"][0]["label"] == clf.predict(item(clf, 0)[None])[0]
        assert client.get("/clf/openapi.json").json()["servers"] == [{"url": "/clf"}]
    assert not served.state.service.alive
