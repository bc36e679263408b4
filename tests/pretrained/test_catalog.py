"""What there is to choose from, and where it lies."""

import json
import sys
from pathlib import Path

import pytest

from hybridclf.errors import InvalidInputError
from hybridclf.pretrained import catalog


def test_a_name_comes_before_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mine"):
        (tmp_path / name).mkdir()
    embedded = catalog.pretrained_folder("digits")
    assert catalog.model_folder("digits") == embedded
    assert catalog.model_folder("./digits") == Path("digits")  # which is how to ask for the folder of that name...
    assert catalog.model_folder("mine") == Path("mine")
    assert catalog.model_folder(tmp_path / "mine") == tmp_path / "mine"


@pytest.mark.parametrize("name", ["no-such", "../pretrained/digits", ""])
def test_what_is_neither(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=f"there is no embedded model {name!r}; there is .*digits.*its folder"):
        catalog.pretrained_folder(name)


def test_every_embedded_model_says_what_it_knows() -> None:
    models = {model.name: model for model in catalog.models()}
    assert catalog.DEFAULT_MODEL in models
    assert models["digits"].about.startswith("A two-tier classifier of handwritten digits")
    assert models["digits"].labels == list(range(10))
    assert all(model.about and "\n" not in model.about for model in models.values())


def test_every_adapter_says_what_to_type() -> None:
    adapters = {adapter.name: adapter for adapter in catalog.adapters()}
    assert {"open_clip", "sklearn", "timm", "diffusers"} <= adapters.keys()
    assert adapters["diffusers"].tier == "denoiser"
    for name in ("open_clip", "sklearn", "timm", "diffusers"):
        assert f'"{name}:' in adapters[name].about


def test_adapters_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_adapter.py").write_text('"""Loud models: "loud:NAME".\n\nMore of it.\n"""\nraise RuntimeError\n')
    (tmp_path / "odd_adapter.py").write_text("def")
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n")
    entries = "loud = loud_adapter:load\nodd = odd_adapter:load\ngone = no_such_module.sub:load\nnone = nothing:load\n"
    (info / "entry_points.txt").write_text(f"[hybridclf.proposers]\n{entries}")
    monkeypatch.syspath_prepend(tmp_path)
    about = {adapter.name: adapter.about for adapter in catalog.adapters()}
    assert about["loud"] == 'Loud models: "loud:NAME".'
    assert about["odd"] == about["gone"] == about["none"] == ""
    assert "loud_adapter" not in sys.modules


def test_the_list_is_json() -> None:
    assert json.loads(json.dumps([vars(entry) for entry in (*catalog.models(), *catalog.adapters())]))
