"""The log of requests: ids and traces, one JSON line each, and neither labels nor keys in it."""

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.serving import create_app
from hybridclf.serving.request_log import JsonFormatter
from tests.serving.processes import picture, uri

BODY = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.7, -0.7]}
KEY = "very-secret-key"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    app = create_app(HybridClassifier.from_pretrained("digits"), api_keys=[KEY])
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The fields of the lines so far, as the formatter writes them."""
    caplog.set_level(logging.INFO, "hybridclf.serving.request_log")
    return lambda: [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.msg == "request"]


def test_a_request_is_a_line_of_what_it_cost(http: TestClient, lines: Any) -> None:
    answer = http.post("/v1/rerank", json=BODY, headers={"X-Request-ID": "abc-1"})
    http.post("/v1/classify", json={"images": [uri(picture(i)) for i in range(3)]})
    rerank, classify = lines()
    assert (rerank["request_id"], rerank["path"], rerank["status"]) == ("abc-1", "/v1/rerank", 200)
    assert (rerank["endpoint"], rerank["outcome"], rerank["images"]) == ("rerank", "ok", 1)
    assert rerank["evaluations"] == answer.json()["usage"]["evaluations"] > 0
    assert rerank["stopped_by"] == {answer.json()["meta"]["stopped_by"]: 1}
    assert 0 <= rerank["read_seconds"] < rerank["seconds"]
    assert rerank["bytes"] == len(answer.request.content)
    assert classify["images"] == sum(classify["stopped_by"].values()) == 3
    assert classify["client"] == rerank["client"]


def test_neither_keys_nor_labels_are_logged(http: TestClient, lines: Any) -> None:
    secret = {**BODY, "documents": ["a private label", "3"]}
    assert http.post("/v1/rerank", json=secret).status_code == 400
    assert http.post("/v1/rerank", json=BODY, headers={"Authorization": "Bearer another-key"}).status_code == 401
    refused, unknown = lines()
    assert (refused["status"], refused["outcome"]) == (400, "refused")
    assert unknown["status"] == 401
    assert "client" not in unknown
    assert not re.search("private|secret|another", json.dumps([refused, unknown]))


def test_what_has_no_endpoint_is_logged_and_probes_are_not(http: TestClient, lines: Any) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/nowhere"):
        assert http.get(path).headers["x-request-id"]
    assert [(line["path"], line["status"]) for line in lines()] == [("/nowhere", 404)]


@pytest.mark.parametrize("version", ["00", "cc"])
def test_a_trace_goes_on(http: TestClient, lines: Any, version: str) -> None:
    answer = http.post("/v1/rerank", json=BODY, headers={"traceparent": f"{version}-{TRACE}-b7ad6b7169203331-01"})
    (line,) = lines()
    assert line["trace_id"] == TRACE
    assert answer.headers["traceparent"] == f"00-{TRACE}-{line['span_id']}-01"
    assert line["span_id"] != "b7ad6b7169203331"


@pytest.mark.parametrize(
    "given", ["", "nonsense", f"ff-{TRACE}-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}"]
)
def test_a_malformed_trace_begins_anew(http: TestClient, given: str) -> None:
    found = re.fullmatch(
        r"00-([0-9a-f]{32})-[0-9a-f]{16}-00",
        http.get("/healthz", headers={"traceparent": given}).headers["traceparent"],
    )
    assert found and found[1] not in (TRACE, "0" * 32)


@pytest.mark.parametrize("given", ["", "x" * 201, "naïve"])
def test_an_unusable_id_is_replaced(http: TestClient, given: str) -> None:
    answer = http.get("/healthz", headers={"X-Request-ID": given.encode("latin-1")})  # type: ignore[dict-item]
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
