"""API keys: names of clients that a client cannot choose."""

from pathlib import Path

import pytest

from hybridclf import InvalidInputError
from hybridclf.serving.auth import ApiKeys, read_keys

SPELLINGS = ("Bearer k", "Bearer  k", "bearer k ", "BEARER\u0020k")


def test_a_key_is_one_client_however_it_is_spelt() -> None:
    keys = ApiKeys(["k", "other"])
    assert all(keys.accept(spelling) for spelling in SPELLINGS)
    assert len({keys.client(spelling, f"10.0.0.{i}") for i, spelling in enumerate(SPELLINGS)}) == 1
    assert keys.client("Bearer other", "10.0.0.1") != keys.client("Bearer k", "10.0.0.1")
    assert "other" not in keys.client("Bearer other", "10.0.0.1")


def test_without_keys_a_client_is_its_address_whatever_it_sends() -> None:
    keys = ApiKeys()
    names = {keys.client(header, "10.0.0.1") for header in (None, "", "Bearer a", "Bearer b", "Basic c")}
    assert names == {"10.0.0.1"}
    assert keys.client(None, "10.0.0.2") == "10.0.0.2"
    assert keys.client(None, "") == ""


def test_an_ipv6_client_is_its_network() -> None:
    keys = ApiKeys()
    assert keys.client(None, "2001:db8:1:2::1") == keys.client(None, "2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert keys.client(None, "2001:db8:1:3::1") == "2001:db8:1:3::/64"
    assert keys.client(None, "fe80::1%eth0") == "fe80::/64"
    assert keys.client(None, "::ffff:192.0.2.1") == "192.0.2.1"


def test_keys_are_told_apart() -> None:
    keys = ApiKeys(["one", "zwei-ü"])
    sent = "Bearer zwei-ü".encode().decode("latin-1")  # as a server hands it over
    assert keys.accept("Bearer one") and keys.accept("bearer  one ") and keys.accept(sent)
    assert not any(keys.accept(h) for h in (None, "", "Bearer", "Bearer on", "Bearer oneone", "Basic one", "one"))
    assert ApiKeys().accept(None)


def test_files_without_a_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n\n")
    with pytest.raises(InvalidInputError, match="has no API key"):
        read_keys(tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_keys(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_keys(tmp_path / "binary")
