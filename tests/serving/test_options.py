"""`hybridclf serve` with many of its options, as one process that all of them meet in: keys, reloading, JSON logs."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import cohere
import httpx
import pytest
from cohere.errors import BadRequestError, UnauthorizedError

from hybridclf import HybridClassifier
from tests.data.hostile import many_scans
from tests.serving.processes import PATIENCE, Server, picture, uri

BODY = {"query": uri(picture(3)), "documents": ["8", "3"], "log_prior": [-0.7, -0.7]}

has_sighup = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="has no SIGHUP")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the server's keys, two of them, as Windows' editor saves it."""
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_bytes(b"\xef\xbb\xbffirst-key\n# she may ask too\n\n second-key \n")
    return path


@pytest.fixture(scope="module")
def equipped(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a saved model, with keys; decodes one image at a time, for half a second at most."""
    model = tmp_path_factory.mktemp("saved") / "digits"
    HybridClassifier.from_pretrained("digits").save(model)
    options = ["--reload-model", "--log-format", "json", "--decode-seconds", "0.5", "--decoders", "1"]
    with Server(["--model", str(model), "--api-key-file", str(keys), *options]) as server:
        yield server


@pytest.fixture
def http(equipped: Server) -> Iterator[httpx.Client]:
    """A client with a key."""
    with equipped.client(headers={"Authorization": "Bearer first-key"}) as client:
        yield client


@pytest.mark.slow
def test_the_official_client_works_unmodified(equipped: Server) -> None:
    with cohere.ClientV2(api_key="second-key", base_url=equipped.url) as client:
        answer = client.rerank(model="digits", query=uri(picture(1000)), documents=["1", "4", "7"], top_n=2)
    assert len(answer.results) == 2
    best, second = answer.results
    assert ["1", "4", "7"][best.index] == "1"
    assert 1 >= best.relevance_score >= second.relevance_score >= 0
    assert answer.id
    assert answer.meta is not None


def test_the_official_client_understands_refusals(equipped: Server) -> None:
    with cohere.ClientV2(api_key="first-key", base_url=equipped.url) as client, pytest.raises(BadRequestError) as bad:
        client.rerank(model="digits", query=uri(picture(1)), documents=["1", "yak"])
    assert "does not know the label 'yak'" in bad.value.body["message"]
    with cohere.ClientV2(api_key="no-key", base_url=equipped.url) as client, pytest.raises(UnauthorizedError):
        client.rerank(model="digits", query=uri(picture(1)), documents=["1", "4"])


@pytest.mark.parametrize("header", [None, "", "Bearer", "first-key", "Basic first-key", "Bearer first-ke"])
def test_without_a_key_nothing_is_answered(equipped: Server, header: str | None) -> None:
    with equipped.client() as client:
        for path in ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/classify"):
            answer = client.post(path, content=b"{", headers={} if header is None else {"authorization": header})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["message"] == "send an API key, Authorization: Bearer KEY"
        for path in ("/healthz", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200


def test_an_image_beyond_its_time_is_refused(equipped: Server, http: httpx.Client) -> None:
    answer = http.post("/v1/rerank", json={**BODY, "query": uri(many_scans(95), "jpeg")})
    assert answer.status_code == 400
    assert "more than 0.5 seconds to decode" in answer.json()["message"]
    assert equipped.metric("hybridclf_decoders_lost_total") == 1
    assert http.post("/v1/rerank", json={**BODY, "query": uri(picture(3, "bmp"), "bmp")}).status_code == 200


@has_sighup
def test_sighup_loads_the_model_anew(equipped: Server, http: httpx.Client) -> None:
    assert http.post("/v1/rerank", json=BODY).status_code == 200
    equipped.process.send_signal(signal.SIGHUP)
    until = monotonic() + PATIENCE
    while "the model was loaded anew" not in "".join(equipped.log) and monotonic() < until:
        assert http.post("/v1/rerank", json=BODY).status_code == 200
    assert http.post("/v1/rerank", json=BODY).status_code == 200
    assert "the model was loaded anew" in "".join(equipped.log)


@has_sighup
def test_sighup_reads_the_keys_anew(equipped: Server, keys: Path) -> None:
    before = keys.read_bytes()

    def status(key: str) -> int:
        return client.post("/v1/rerank", json=BODY, headers={"Authorization": f"Bearer {key}"}).status_code

    with equipped.client() as client:
        assert (status("first-key"), status("new")) == (200, 401)
        keys.write_text("new\n")
        equipped.process.send_signal(signal.SIGHUP)
        until = monotonic() + PATIENCE
        while status("new") != 200 and monotonic() < until:
            sleep(0.05)
        assert (status("first-key"), status("new")) == (401, 200)
        keys.write_text("# none\n")
        equipped.process.send_signal(signal.SIGHUP)
        while "the keys so far stay" not in "".join(equipped.log) and monotonic() < until:
            sleep(0.05)
        assert (status("first-key"), status("new")) == (401, 200)
        keys.write_bytes(before)
        equipped.process.send_signal(signal.SIGHUP)
        while status("first-key") != 200 and monotonic() < until:
            sleep(0.05)
        assert (status("first-key"), status("new")) == (200, 401)


def test_every_line_is_json(equipped: Server, http: httpx.Client) -> None:
    """The last one: it ends the server."""
    assert http.post("/v1/rerank", json=BODY).status_code == 200
    httpx.get(f"{equipped.url}/nowhere", trust_env=False)
    assert equipped.stop() == 0
    lines = [json.loads(line) for line in equipped.log]
    assert [line["path"] for line in lines if line["message"] == "request"][-2:] == ["/v1/rerank", "/nowhere"]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert any("uvicorn" in line["logger"] for line in lines)
