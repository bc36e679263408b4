"""Spec strings, answered through entry points as a third party would register them."""

from pathlib import Path

import pytest

from hybridclf.errors import HybridClfError, UnknownSpecError
from hybridclf.plugins import adapters, load

ADAPTER = """
LOADED = []

def load(name, scale=1):
    return (name, scale)
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that registers the denoiser "mine" and a proposer whose module is broken."""
    (tmp_path / "mine_adapter.py").write_text(ADAPTER)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hybridclf.denoisers]\nmine = mine_adapter:load\n\n[hybridclf.proposers]\nbroken = no_such_module:load\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("third_party")
def test_an_installed_adapter_answers_to_its_name() -> None:
    assert adapters("denoiser")["mine"].value == "mine_adapter:load"
    assert load("denoiser", "mine:a/b:c") == ("a/b:c", 1)
    assert load("denoiser", "mine:a", scale=3) == ("a", 3)


@pytest.mark.usefixtures("third_party")
def test_finding_adapters_imports_none_of_them() -> None:
    assert "broken" in adapters("proposer")
    assert "mine" not in adapters("proposer")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load("proposer", "broken:x")


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize("spec", ["mine", "mine:", ":x", "yours:x", ""])
def test_an_unknown_spec_lists_what_one_may_type(spec: str) -> None:
    with pytest.raises(
        UnknownSpecError, match=r'not a known denoiser; type "ADAPTER:NAME" with one of: .*"mine:…"'
    ) as e:
        load("denoiser", spec)
    assert repr(spec) in str(e.value)
    assert isinstance(e.value, HybridClfError | ValueError)


def test_our_own_adapters_are_registered() -> None:
    assert adapters("proposer")["sklearn"].value == "hybridclf_adapters.sklearn:load"
