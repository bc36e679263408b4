"""Images that a client may ask about in a minute."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError
from hybridclf.serving import Limits, create_app, quota
from hybridclf.serving.errors import Refusal
from hybridclf.serving.quota import Quota
from tests.serving.processes import picture, uri


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr(quota, "monotonic", lambda: now[0])
    yield now


def spent(quota: Quota, client: str, images: int) -> str | None:
    """Seconds to wait if the client has not so many images left, else None."""
    try:
        quota.spend(client, images)
    except Refusal as refusal:
        assert refusal.status == 429
        return refusal.headers["Retry-After"]
    return None


def test_a_minutes_images_at_once_and_then_one_after_the_other(clock: list[float]) -> None:
    quota = Quota(6)
    assert spent(quota, "a", 4) is None and spent(quota, "a", 2) is None
    assert spent(quota, "a", 1) == "10"
    assert spent(quota, "b", 6) is None  # another client's own
    clock[0] += 10
    assert spent(quota, "a", 2) == "10" and spent(quota, "a", 1) is None
    clock[0] += 3600
    assert spent(quota, "a", 6) is None and spent(quota, "a", 1) == "10"
    with pytest.raises(Refusal, match="got 7 images; a client may ask about 6 a minute"):
        quota.spend("a", 7)


def test_clients_with_a_full_quota_are_forgotten(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.serving.quota.MOST_CLIENTS", 3)
    quota = Quota(1)
    for client in "abc":
        quota.spend(client, 1)
    clock[0] += 30
    quota.spend("d", 1)
    assert len(quota._full) == 4  # none of them has its image back yet
    clock[0] += 31
    quota.spend("e", 1)
    assert set(quota._full) == {"d", "e"}


def test_a_client_beyond_its_quota_is_told_when_to_come_back() -> None:
    app = create_app(HybridClassifier.from_pretrained("digits"), Limits(images_per_minute=2), api_keys=["ci k", "l"])
    body = {"images": [uri(picture(i)) for i in (3, 5)]}
    with TestClient(app) as client:
        answers = [client.post("/v1/classify", json=body, headers={"Authorization": f"Bearer {key}"}) for key in "kkl"]
        assert [answer.status_code for answer in answers] == [200, 429, 200]
        assert 1 <= int(answers[1].headers["Retry-After"]) <= 60
        assert 'outcome="quota"' in client.get("/metrics").text
    with pytest.raises(InvalidInputError, match="images_per_minute"):
        Limits(images_per_minute=0)
