"""Large bodies: what runs on the event loop's thread, and what is never parsed."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.data.decoding import claimed_pixels
from hybridclf.serving import Limits, bodies, create_app, service
from hybridclf.serving.bodies import check_json
from hybridclf.serving.errors import Refusal
from hybridclf.serving.schemas import ClassifyRequest, RerankRequest
from tests.serving.processes import picture, uri

MIB = 2**20


class Threads:
    """Threads that parsed a body: `parsed`, and the event loop's: `loop`."""

    def __init__(self) -> None:
        self.parsed: list[int] = []
        self.loop: set[int] = set()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    seen = Threads()
    for model in (RerankRequest, ClassifyRequest):

        def parse(body: bytes, validate: Any = model.model_validate_json) -> Any:
            seen.parsed.append(threading.get_ident())
            return validate(body)

        monkeypatch.setattr(model, "model_validate_json", parse)
    read_body = bodies.read_body

    async def read(*args: Any) -> bytes:
        seen.loop.add(threading.get_ident())
        return await read_body(*args)

    monkeypatch.setattr(bodies, "read_body", read)
    return seen


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with TestClient(create_app(HybridClassifier.from_pretrained("digits"), Limits())) as client:
        yield client


def large(prefix: str) -> dict[str, Any]:
    """A 3 MiB image: a digit with bytes behind its end, which Pillow leaves alone."""
    return {prefix: uri(picture(3) + bytes(2 * MIB))}


def test_a_large_body_is_parsed_on_another_thread(http: TestClient, threads: Threads) -> None:
    assert http.post("/v1/rerank", json={**large("query"), "documents": ["3", "8"]}).status_code == 200
    assert http.post("/v1/classify", json=large("images")).status_code == 200
    assert len(threads.parsed) == 2
    assert threads.loop and threads.loop.isdisjoint(threads.parsed)
    assert http.post("/v1/classify", json={"images": uri(picture(3))}).status_code == 200
    assert threads.parsed[2] in threads.loop  # small: not worth the way


@pytest.mark.parametrize(
    "body",
    [
        b'{"query":[' + b"[]," * (3 * MIB) + b'1],"documents":["a"]}',
        b'{"query":"a","documents":{' + b",".join(b'"%x":{}' % i for i in range(MIB)) + b"}}",
        b'{"query":"a","documents":["a"],' + b",".join(b'"%x":1' % i for i in range(MIB // 2)) + b"}",
        b"[" + b"[]," * (3 * MIB) + b"1]",
        b"[" * 9 * MIB,
    ],
    ids=["wrong type", "wrong object", "unknown names", "no object", "brackets"],
)
def test_a_body_of_many_values_is_never_parsed(http: TestClient, threads: Threads, body: bytes) -> None:
    answer = http.post("/v1/rerank", content=body[: 10 * MIB])
    assert answer.status_code == 413
    assert "more than 10000 commas and brackets" in answer.json()["message"]
    assert threads.parsed == []


def test_bodies_of_as_many_labels_as_are_taken_are_no_such() -> None:
    limits = Limits()
    documents = [{"text": f"label {i}, with some (punctuation), of [a kind]"} for i in range(limits.documents)]
    body = {"query": "a", "documents": documents, "log_prior": [-1.5] * limits.documents, "metadata": {"a": [1, 2, 3]}}
    check_json(json.dumps(body).encode(), limits)
    many = Limits(documents=5000)
    check_json(json.dumps({"documents": [{"text": "x, y"}] * many.documents}).encode(), many)
    with pytest.raises(Refusal) as refused:
        check_json(b"[" + b"1," * 20_000 + b"1]", limits)
    assert refused.value.status == 413


def test_a_large_form_is_parsed_on_another_thread(
    http: TestClient, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_form = bodies._read_form

    async def read(*args: Any) -> Any:
        threads.parsed.append(threading.get_ident())
        return await read_form(*args)

    monkeypatch.setattr(bodies, "_read_form", read)
    for end in (bytes(2 * MIB), b""):
        assert http.post("/v1/classify", files={"image": picture(3) + end}).status_code == 200
    large, small = threads.parsed
    assert large not in threads.loop and small in threads.loop


def test_the_event_loop_looks_at_the_beginning_of_a_file_alone(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JPEG of markers without an end has its size nowhere; one with a large colour profile has it behind that."""
    found = list[tuple[int, int | None]]()

    def claimed(data: bytes) -> int | None:
        found.append((len(data), claimed_pixels(data)))
        return found[-1][1]

    monkeypatch.setattr(service, "claimed_pixels", claimed)
    assert http.post("/v1/classify", files={"image": b"\xff\xd8" + b"\xff" * 2 * MIB}).status_code == 400
    data, profile = picture(3, "jpeg"), b"\xff\xe2\xff\xff" + bytes(2**16 - 3)
    image = data[:2] + 3 * profile + data[2:]
    assert http.post("/v1/classify", files={"image": image}).status_code == 200
    assert found == [(service.HEADER_BYTES, None), (len(image), 64)]


def test_a_large_file_of_a_form_needs_no_temporary_folder(
    http: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only root."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    answer = http.post("/v1/classify", files={"image": picture(3) + bytes(2 * MIB)})
    assert answer.status_code == 200, answer.text
