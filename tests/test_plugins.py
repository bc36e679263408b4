"""Spec strings, answered through entry points as a third party would register them."""

from pathlib import Path
from typing import Any

import pytest

from hybridclf.errors import (
    HybridClfError,
    InvalidInputError,
    MissingDependencyError,
    SavedModelError,
    UnknownSpecError,
)
from hybridclf.plugins import absolute, adapters, load, offer, portable, resolved, takes

ADAPTER = """
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Optional

LOADED = []

def load(name, scale=1):
    return (name, scale)

def typed(
    name: str,
    classes: Sequence[str] = (),
    *,
    size: int | None = None,
    share: "float | None" = None,
    mean: float | Sequence[float] | None = None,
    test: bool = False,
    mode: Optional[Literal["crop", "squash"]] = None,
    prompts: str | Sequence[str] | Callable[[str], str] = "{}",
    cache: str | Path | None = None,
    needed: int,
):
    given = dict(size=size, share=share, mean=mean, test=test, mode=mode, prompts=prompts, cache=cache, needed=needed)
    return name, {k: v for k, v in given.items() if v not in (None, False, "{}")}

def bare(name):
    return name
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution that registers the denoiser "mine" and a proposer whose module is broken."""
    (tmp_path / "mine_adapter.py").write_text(ADAPTER)
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hybridclf.denoisers]\nmine = mine_adapter:load\ntyped = mine_adapter:typed\nbare = mine_adapter:bare\n\n"
        "[hybridclf.proposers]\nbroken = no_such_module:load\n"
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
    with pytest.raises(
        MissingDependencyError,
        match=r"'broken:x' needs .* No module named 'no_such_module'; type: pip install no_such_module",
    ):
        load("proposer", "broken:x")


@pytest.mark.usefixtures("third_party")
def test_an_adapter_is_given_the_options_that_it_takes() -> None:
    assert takes("denoiser", "mine:a") == {"name", "scale"}
    options = {"scale": 3, "prompts": "a {}", "device": "cpu"}
    assert offer("denoiser", "mine:a", options) == ("a", 3)
    assert offer("denoiser", "mine:a", options | {"scale": None}) == ("a", 1)
    with pytest.raises(TypeError, match="prompts"):
        load("denoiser", "mine:a", **options)


# --- options in the string --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("size=256", {"size": 256}),
        ("size=256&share=0.5", {"size": 256, "share": 0.5}),
        ("share=1", {"share": 1.0}),
        ("mean=0.5", {"mean": 0.5}),
        ("mean=0.48,0.46,0.41", {"mean": [0.48, 0.46, 0.41]}),
        ("test=true", {"test": True}),
        ("test=True", {"test": True}),
        ("test=false", {}),
        ("mode=squash", {"mode": "squash"}),
        ("prompts=a photo of a {}: yes?", {"prompts": "a photo of a {}: yes?"}),
        ("prompts=black %26 white, 1+1 {}, 50%25", {"prompts": "black & white, 1+1 {}, 50%"}),
        ("prompts=x=y {}?size=3", {"prompts": "x=y {}?size=3"}),
        ("cache=/a+b/c", {"cache": Path("/a+b/c")}),
        ("prompts=" + "long {} " * 99, {"prompts": "long {} " * 99}),  # as a file's name too long
    ],
)
def test_options_are_read_as_their_annotations_say(query: str, given: dict[str, Any]) -> None:
    assert load("denoiser", f"typed:a/b:c?{query}", needed=1) == ("a/b:c", {"needed": 1} | given)


@pytest.mark.usefixtures("third_party")
@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "sise=3",
            r"option 'sise' that its adapter does not take; it takes size, share, mean, test, mode, prompts, cache$",
        ),
        ("name=b", "'name' that its adapter does not take"),
        ("needed=3", "'needed' that its adapter does not take"),  # its caller's, not the user's
        ("size=big", "'size' must be int, got 'big'"),
        ("size=1.5", "'size' must be int, got '1.5'"),
        ("mean=a,b", r"'mean' must be float or collections.abc.Sequence\[float\], got 'a,b'"),
        ("test=1", "'test' must be bool, got '1'"),
        ("mode=fit", "'mode' must be 'crop' or 'squash', got 'fit'"),
        ("size=1&size=2", "'size' twice"),
        ("size=", "no value for the option 'size'"),
        ("size=1&test", "no value for the option 'test'"),
    ],
)
def test_an_option_that_is_none_is_refused(query: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as e:
        load("denoiser", f"typed:a?{query}", needed=1)
    assert repr(f"typed:a?{query}") in str(e.value)


@pytest.mark.usefixtures("third_party")
def test_an_adapter_without_annotations_or_options() -> None:
    assert load("denoiser", "mine:a?scale=3") == ("a", 3)
    with pytest.raises(InvalidInputError, match="'scale' must be int"):
        load("denoiser", "mine:a?scale=x")
    with pytest.raises(InvalidInputError, match="does not take; it takes none"):
        load("denoiser", "bare:a?scale=3")
    for name in ("a?", "a?b", "?", "what?=1", "a?1=2"):
        assert load("denoiser", f"bare:{name}") == name


@pytest.mark.usefixtures("third_party")
def test_an_option_in_the_string_comes_before_what_is_offered() -> None:
    assert takes("denoiser", "mine:a?scale=3") == {"name", "scale"}
    assert offer("denoiser", "mine:a?scale=3", {"scale": 4}) == ("a", 3)
    assert offer("denoiser", "mine:a?scale=3", {"prompts": "a {}"}) == ("a", 3)


@pytest.mark.usefixtures("third_party")
def test_a_path_with_a_question_mark_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "what?scale=1"
    (folder / "sd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert load("denoiser", f"mine:{folder}") == (str(folder), 1)
    assert load("denoiser", f"mine:{folder}?scale=3") == (str(folder), 3)
    assert load("denoiser", "mine:what?scale=1/sd?scale=3") == ("what?scale=1/sd", 3)
    for query in ("", "?scale=3"):
        assert portable(f"mine:{folder}/sd{query}", folder) == f"mine:./sd{query}"
        assert resolved(f"mine:./sd{query}", folder) == f"mine:{folder}/sd{query}"
        assert resolved(portable(f"mine:./what?scale=1{query}", tmp_path), tmp_path) == f"mine:{folder}{query}"


def test_options_stay_with_a_path_that_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / "sd").mkdir(parents=True)
    query = "?variant=fp16&prompts=seen here: a/{}"
    for path in (f"{tmp_path}/model/sd", "./model/sd", "model/sd"):
        assert portable(f"diffusers:{path}{query}", tmp_path / "model") == f"diffusers:./sd{query}"
    assert resolved(f"diffusers:./sd{query}", tmp_path / "model") == f"diffusers:{tmp_path}/model/sd{query}"
    assert portable(f"diffusers:./sd{query}", tmp_path / "other") == f"diffusers:{tmp_path}/sd{query}"
    assert portable(f"diffusers:owner/repo{query}", tmp_path) == f"diffusers:owner/repo{query}"
    (tmp_path / "open").mkdir()
    local = f"open_clip:local-dir:{tmp_path}/open?batch_size=2"
    assert portable(local, tmp_path) == "open_clip:local-dir:./open?batch_size=2"
    assert resolved("open_clip:local-dir:./open?batch_size=2", tmp_path) == local
    for spec in ("diffusers:./sd?cache_dir=../x", "diffusers:./sd?cache_dir=%2e%2E/x", "diffusers:../sd?variant=fp16"):
        with pytest.raises(SavedModelError, match="leads out of that folder"):
            resolved(spec, tmp_path / "model")


# --- paths in a saved model -------------------------------------------------------------------------------------------


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


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net").mkdir()
    for name in ("own.pth", "a&b.txt"):
        (tmp_path / name).touch()
    for spec, expected in {
        "timm:local-dir:net": f"timm:local-dir:{tmp_path}/net",
        "timm:local-dir:net?label_names=a%26b.txt": f"timm:local-dir:{tmp_path}/net?label_names={tmp_path}/a%26b.txt",
        "timm:test_resnet/own.pth?batch_size=2": f"timm:test_resnet/{tmp_path}/own.pth?batch_size=2",
        "timm:test_resnet/../nowhere.pth": "timm:test_resnet/../nowhere.pth",
        f"open_clip:RN50/{tmp_path}/own.pth": f"open_clip:RN50/{tmp_path}/own.pth",
        "auto": "auto",
    }.items():
        assert absolute(spec) == absolute(absolute(spec)) == expected


def test_a_file_that_is_a_link_keeps_its_name(tmp_path: Path) -> None:
    """As in the hub's cache, where what it leads to has no ending."""
    (tmp_path / "blob").touch()
    (tmp_path / "model.safetensors").symlink_to("blob")
    spec = f"timm:test_resnet/{tmp_path}/model.safetensors"
    assert absolute(spec) == portable(spec, tmp_path / "model") == spec


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
