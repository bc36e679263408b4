"""Both tiers from what the user gave, and what their adapters get of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from hybridclf import HybridClassifier
from hybridclf.errors import InvalidInputError, InvalidTypeError, UnknownLabelError
from hybridclf.fitting.resolve_tiers import for_labels, resolve_denoiser, resolve_tiers

ADAPTER = """
class Tier:
    def __init__(self, name, options):
        self.name, self.options = name, options

    def predict(self, *arguments):
        raise NotImplementedError

    predict_proba = predict

def words(name, *, prompts=None, device=None, precision=None):
    return Tier(name, {"prompts": prompts, "device": device, "precision": precision})

def classes(name, device=None):
    return Tier(name, {"device": device})

def either(name, prompts=None):
    tier = Tier(name, {})
    tier.takes_prompts = name == "text"
    return tier
"""


@pytest.fixture(autouse=True)
def adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution whose adapters note what they are given."""
    (tmp_path / "noting_adapter.py").write_text(ADAPTER)
    info = tmp_path / "noting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noting\nVersion: 1.0\n")
    entries = "".join(f"{name} = noting_adapter:{name}\n" for name in ("words", "classes", "either"))
    (info / "entry_points.txt").write_text(f"[hybridclf.proposers]\n{entries}\n[hybridclf.denoisers]\n{entries}")
    monkeypatch.syspath_prepend(tmp_path)


def test_adapters_get_the_options_that_they_take() -> None:
    clf = HybridClassifier("words:a", "classes:b", prompts="a {}", device="cuda:7", dtype="bfloat16")
    proposer, denoiser = resolve_tiers(clf)
    assert (proposer.name, denoiser.name) == ("a", "b")
    assert proposer.options == {"prompts": "a {}", "device": "cuda:7", "precision": "bf16"}
    assert denoiser.options == {"device": "cuda:7"}


@pytest.mark.parametrize(("dtype", "precision"), [(None, None), ("float32", "fp32"), ("float16", "fp16")])
def test_what_is_not_set_is_left_to_the_adapter(dtype: str | None, precision: str | None) -> None:
    _, denoiser = resolve_tiers(HybridClassifier(GaussianNB(), "words:b", dtype=dtype))
    assert denoiser.options == {"prompts": None, "device": "auto", "precision": precision}


def test_float64_is_for_the_trained_denoiser_alone() -> None:
    proposer, denoiser = resolve_tiers(HybridClassifier("words:a", dtype="float64"))
    assert proposer.options["precision"] is None and denoiser is None


@pytest.mark.parametrize(
    ("proposer", "denoiser", "read"),
    [
        ("words:a", None, True),
        (None, "words:a", True),
        ("either:text", "classes:b", True),
        ("classes:b", "either:text", True),
        ("either:classes", "either:classes", False),
        ("classes:a", "classes:b", False),
        ("sklearn:SVC", None, False),
        (None, None, False),
    ],
)
def test_prompts_must_reach_a_tier(proposer: Any, denoiser: Any, read: bool) -> None:
    clf = HybridClassifier(proposer, denoiser, prompts=["a {}", "the {}"])
    if read:
        resolve_tiers(clf)
        return
    with pytest.raises(InvalidInputError, match=r"neither tier reads prompts, got prompts=\['a \{\}', 'the \{\}'\]"):
        resolve_tiers(clf)
    resolve_tiers(clf.set_params(prompts=None))


def test_a_classifier_is_no_denoiser() -> None:
    with pytest.raises(InvalidTypeError, match="pass its tier 2, its attribute denoiser_"):
        resolve_denoiser(HybridClassifier.from_pretrained("digits"), {})


def test_what_is_no_denoiser() -> None:
    with pytest.raises(InvalidTypeError, match=r"denoiser must have the methods of hybridclf\.Denoiser, got 3"):
        resolve_denoiser(3, {})


# --- labels -----------------------------------------------------------------------------------------------------------


class ByName:
    """A proposer that goes by label names; its copies share the list of what they were told."""

    def __init__(self, heard: list[Any]) -> None:
        self.heard = heard

    def __sklearn_clone__(self) -> "ByName":
        return ByName(self.heard)

    def fit(self, X: Any, y: Any) -> "ByName":
        self.heard.append(list(y))
        self.classes_ = np.asarray(y)
        return self


@pytest.fixture
def denoiser(gaussian_denoiser: Callable[..., Any]) -> Any:
    return gaussian_denoiser({label: np.zeros(2) for label in ("ant", "bee", "cow")})


def test_a_copy_of_a_proposer_by_names_is_told(denoiser: Any) -> None:
    heard: list[Any] = []
    given = ByName(heard).fit(None, ["cow"])
    told, classes = for_labels(given, denoiser, ["bee", "ant"])
    assert classes.tolist() == told.classes_.tolist() == ["bee", "ant"]
    assert given.classes_.tolist() == ["cow"] and heard == [["cow"], ["bee", "ant"]]


def test_a_proposer_with_classes_of_its_own_must_know_them(denoiser: Any) -> None:
    frozen = FrozenEstimator(LogisticRegression().fit(np.eye(3), ["ant", "bee", "elk"]))
    assert for_labels(frozen, denoiser, ("bee", "ant"))[0] is frozen
    with pytest.raises(InvalidInputError, match="label 'cow' is not in the proposer's classes"):
        for_labels(frozen, denoiser, ["ant", "cow"])
    with pytest.raises(UnknownLabelError, match="'elk'"):
        for_labels(frozen, denoiser, ["ant", "elk"])
