"""Spec strings, answered through entry points as a third party would register them."""

from pathlib import Path

import pytest

from hybridclf.errors import HybridClfError, MissingDependencyError, SavedModelError, UnknownSpecError
from hybridclf.plugins import adapters, load, offer, portable, resolved, takes

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
    with pytest.raises(MissingDependencyError, match=r"'broken:x' needs .* No module named 'no_such_module'; install"):
        load("proposer", "broken:x")


@pytest.mark.usefixtures("third_party")
def test_an_adapter_is_given_the_options_that_it_takes() -> None:
    assert takes("denoiser", "mine:a") == {"name", "scale"}
    options = {"scale": 3, "prompts": "a {}", "device": "cpu"}
    assert offer("denoiser", "mine:a", options) == ("a", 3)
    assert offer("denoiser", "mine:a", options | {"scale": None}) == ("a", 1)
    with pytest.raises(TypeError, match="prompts"):
        load("denoiser", "mine:a", **options)


def test_a_path_inside_the_folder_of_a_saved_model_is_written_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "sd").mkdir()
    spec = f"diffusers:{tmp_path}/sd"
    assert portable(spec, tmp_path) == "diffusers:./sd"
    assert resolved("diffusers:./sd", tmp_path) == spec
    assert portable(f"open_clip:local-dir:{tmp_path}/sd", tmp_path) == "open_clip:local-dir:./sd"
    assert resolved("open_clip:local-dir:./sd", tmp_path) == f"open_clip:local-dir:{tmp_path}/sd"


def test_a_path_from_the_working_folder_does_not_stay_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert portable("diffusers:./sd", tmp_path / "model") == f"diffusers:{tmp_path}/sd"
    assert portable("diffusers:./model/sd", tmp_path / "model") == "diffusers:./sd"
    assert portable("diffusers:../sd", tmp_path / "model") == f"diffusers:{tmp_path.parent}/sd"


def test_a_path_need_not_say_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model/sd", "models/sd", "owner/repo", "resnet50"):
        (tmp_path / name).mkdir(parents=True)
    for spec, written in {
        "timm:local-dir:proposer": f"timm:local-dir:{tmp_path}/proposer",
        "timm:local-dir:model/proposer": "timm:local-dir:./proposer",
        "diffusers:models/sd": f"diffusers:{tmp_path}/models/sd",
        "diffusers:model/sd": "diffusers:./sd",
        f"diffusers:{tmp_path}/models/../model/sd": "diffusers:./sd",
        "timm:hf-hub:owner/repo": "timm:hf-hub:owner/repo",  # these adapters ask no folder
        "timm:resnet50": "timm:resnet50",
    }.items():
        assert portable(spec, tmp_path / "model") == written


SPECS = ["sklearn:SVC", "open_clip:RN50-quickgelu/openai", "diffusers:owner/repo", "timm:hf-hub:owner/repo"]


@pytest.mark.parametrize("spec", SPECS)
def test_any_other_spec_stays_as_it_is(spec: str, tmp_path: Path) -> None:
    assert portable(spec, tmp_path) == resolved(spec, tmp_path) == spec


def test_a_path_inside_a_folder_stays_inside(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "secret").mkdir()
    (model / "link").symlink_to(tmp_path / "secret")
    for path in ("./../secret", "./link", "./a/../../secret", "../secret", "a/../../secret", "..", "..:a", "a\\..\\b"):
        with pytest.raises(
            SavedModelError, match=r"leads out of that folder.*; move that part into the folder and name"
        ):
            resolved(f"diffusers:{path}", model)
    with pytest.raises(SavedModelError, match="leads out of that folder"):
        portable("open_clip:RN50/../weights.pt", model)
    with pytest.raises(SavedModelError, match=r"is incomplete: it has no sd, which 'diffusers:\./sd' names"):
        resolved("diffusers:./sd", model)


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
