"""Requests as the clients of other servers send them: vLLM, text-embeddings-inference, infinity."""

import base64
from typing import Any

import httpx
import pytest

from tests.serving.processes import picture, uri

LABELS = ["8", "3", "1"]
URI = uri(picture(3))
PLAIN = base64.b64encode(picture(3)).decode()


def scores(client: httpx.Client, **body: Any) -> dict[int, float]:
    answer = client.post("/rerank", json=body)
    assert answer.status_code == 200, answer.text
    return {result["index"]: result["relevance_score"] for result in answer.json()["results"]}


def test_images_and_labels_in_all_their_forms(client: httpx.Client) -> None:
    expected = scores(client, query=URI, documents=LABELS)
    vllm = {"content": [{"type": "image_url", "image_url": {"url": URI}}]}
    texts = [{"content": [{"type": "text", "text": label}]} for label in LABELS]
    assert scores(client, query=vllm, documents=texts) == expected
    seen = {"content": [{"type": "text", "text": "which?"}, {"type": "image_url", "image_url": URI}]}
    assert scores(client, query=seen, documents={"content": [{"type": "text", "text": t} for t in LABELS]}) == expected
    wrapped = base64.encodebytes(picture(3)).decode()
    of_urls = base64.urlsafe_b64encode(picture(3)).decode()
    for query in (PLAIN, wrapped, of_urls, f" {URI}\n", URI.replace(",", ", ")):
        assert scores(client, query=query, documents=LABELS) == expected
    image = client.post("/v1/classify", json={"images": [PLAIN, URI]}).json()["results"]
    assert image[0]["posterior"] == image[1]["posterior"]


def test_text_embeddings_inference(client: httpx.Client) -> None:
    expected = scores(client, query=URI, documents=LABELS)
    sent = {"query": URI, "texts": LABELS, "raw_scores": False, "truncate": False, "truncation_direction": "Right"}
    plain = client.post("/rerank", json=sent).json()
    assert {one["index"]: one["score"] for one in plain} == expected
    assert [one["score"] for one in plain] == sorted(expected.values(), reverse=True)
    assert all(set(one) == {"index", "score"} for one in plain)
    named = client.post("/rerank", json=sent | {"return_text": True, "top_n": 2}).json()
    assert [one["text"] for one in named] == [LABELS[one["index"]] for one in plain[:2]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": URI}, "send the candidate labels as documents"),
        ({"query": URI, "documents": LABELS, "texts": LABELS}, "as documents or texts, not both"),
        ({"query": f"garbage,{PLAIN}", "documents": LABELS}, "the image must be a data URI"),
        ({"query": URI, "texts": []}, "texts: "),
        ({"query": PLAIN[:-3], "documents": LABELS}, "the image is no data URI, and is not valid base64"),
        ({"query": "file:///etc/passwd", "documents": LABELS}, "an address is not fetched"),
        ({"query": {"content": []}, "documents": LABELS}, "query: "),
    ],
)
def test_what_is_none_of_them(client: httpx.Client, body: dict[str, Any], message: str) -> None:
    answer = client.post("/rerank", json=body)
    assert answer.status_code == 400 and message in answer.json()["message"]
