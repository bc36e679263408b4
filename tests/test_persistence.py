"""What is saved comes back to the last bit, and what cannot be trusted or understood is refused."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB

from hybridclf import FixedTrials, HybridClassifier, PairedTTest, Race, Staged, calibration
from hybridclf.catalog import pretrained_folder
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf.models import LateUNet
from hybridclf.persistence import FORMAT_VERSION

X, NUMBER = make_blobs(45, 6, centers=3, cluster_std=4.0, random_state=0)
LABELS = np.array(["ant", "bee", "cow"])
IMAGES = np.random.default_rng(0).integers(0, 100, (45, 8, 8)) + 40 * NUMBER[:, None, None]
SETTINGS: dict[str, Any] = {"max_iter": 1, "cv": 0.4, "allocation": Race(max_trials=4), "random_state": 0}


@dataclass(frozen=True)
class Unheard(FixedTrials):
    """An allocation of the user's own."""

    fitted_order: ClassVar[bool] = False


def fitted(proposer: Any = None, X: Any = X, y: np.ndarray = LABELS[NUMBER], **params: Any) -> HybridClassifier:
    return HybridClassifier(proposer, **{**SETTINGS, **params}).fit(X, y)


FROZEN = FrozenEstimator(LogisticRegression().fit(X[:, ::-1], LABELS[NUMBER]))
KINDS: dict[str, Callable[[], HybridClassifier]] = {
    "strings": fitted,
    "numbers": lambda: fitted(y=NUMBER * 10),
    "objects": lambda: fitted(y=LABELS.astype(object)[NUMBER]),
    "booleans": lambda: fitted(y=NUMBER > 0),
    "images": lambda: fitted(X=IMAGES),
    "uint8 U-Net": lambda: fitted(X=IMAGES.astype(np.uint8), architecture="unet"),
    "image_shape": lambda: fitted(X=IMAGES.reshape(45, 64), image_shape=(8, 8)),
    "bfloat16": lambda: fitted(dtype="bfloat16"),
    "folds": lambda: fitted(cv=2),
    "uniform weights": lambda: fitted(weighting="uniform", objective="huber"),
    "frozen": lambda: fitted(FROZEN),
    "unfrozen": lambda: fitted(GaussianNB()),
    "named": lambda: fitted("sklearn:GaussianNB"),
    "random_state": lambda: fitted(random_state=np.random.RandomState(3)),
    "numpy numbers": lambda: fitted(top_k=np.int64(2), cv=np.int64(2), random_state=np.int64(3)),
    "FixedTrials": lambda: fitted(allocation=FixedTrials(3)),
    "Staged": lambda: fitted(allocation=Staged([2, 1], [2, 4])),
    "PairedTTest": lambda: fitted(allocation=PairedTTest(p=0.1, min_trials=3, max_trials=6)),
    "no allocation": lambda: fitted(allocation=None),
}


@pytest.fixture(scope="module", autouse=True)
def few_recorded_trials() -> Iterator[None]:
    """As many as the quick allocations use; more only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "RECORDED_TRIALS", 8)
        yield


@pytest.fixture(scope="module")
def model() -> HybridClassifier:
    return fitted()


@pytest.fixture(scope="module")
def saved(model: HybridClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A saved model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_is_the_saved_one_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    clf = KINDS[kind]()
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")

    items = X if clf.n_features_in_ == 6 else IMAGES
    for a, b in zip(loaded.rerank(items), clf.rerank(items), strict=True):
        assert a.ranking == b.ranking
        np.testing.assert_array_equal(a.evidence, b.evidence)
    assert sum(r.evaluations for r in clf.rerank(items)) > 0
    np.testing.assert_array_equal(loaded.predict_proba(items), clf.predict_proba(items))
    np.testing.assert_array_equal(loaded.predict(items), clf.predict(items))

    assert loaded.classes_.dtype == clf.classes_.dtype
    for name in ("image_shape_", "pixel_range_", "n_features_in_", "n_iter_", "fusion_"):
        assert getattr(loaded, name) == getattr(clf, name), name
    assert loaded.denoiser_.dtype == clf.denoiser_.dtype
    changed = {"proposer", "denoiser"} | ({"random_state"} if kind == "random_state" else set())
    settings, wanted = loaded.get_params(deep=False), clf.get_params(deep=False)
    assert {k: v for k, v in settings.items() if k not in changed} == {
        k: v for k, v in wanted.items() if k not in changed
    }


def test_the_kinds_are_what_they_are_called() -> None:
    assert isinstance(KINDS["uint8 U-Net"]().denoiser_.network, LateUNet)
    assert KINDS["uniform weights"]().calibration_.weighting is None


@pytest.mark.parametrize(
    ("kind", "proposer"),
    [("strings", None), ("named", "sklearn:GaussianNB"), ("frozen", FrozenEstimator), ("unfrozen", GaussianNB)],
)
def test_a_loaded_model_can_be_fitted_again(kind: str, proposer: Any, tmp_path: Path) -> None:
    KINDS[kind]().save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert isinstance(loaded.proposer, proposer) if isinstance(proposer, type) else loaded.proposer == proposer
    assert loaded.denoiser is None
    np.testing.assert_array_equal(loaded.fit(X, LABELS[NUMBER]).predict_proba(X), KINDS[kind]().predict_proba(X))


def test_a_loaded_model_can_be_calibrated(saved: Path, model: HybridClassifier) -> None:
    loaded = HybridClassifier.load(saved).calibrate(X[:20], LABELS[NUMBER[:20]])
    assert loaded.calibration_.n_images == 20
    assert loaded.fusion_ != model.fusion_


def test_an_uncalibrated_model(model: HybridClassifier, tmp_path: Path) -> None:
    """Zero-shot, with a denoiser that knows the classes in another order, and one more."""
    clf = HybridClassifier(FROZEN, model.denoiser_, allocation=FixedTrials(4), random_state=0).fit(None, ["cow", "ant"])
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert loaded.calibration_ is None
    assert loaded.denoiser_.classes.tolist() == LABELS.tolist()
    assert loaded.denoiser is loaded.denoiser_
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_feature_names_are_kept(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    clf = fitted(X=frame)
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(frame), clf.predict_proba(frame))
    with pytest.raises(ValueError, match="feature names should match"):
        loaded.predict(frame[list("fedcba")])


def test_a_proposer_of_types_that_are_not_known_to_be_safe_needs_trust(tmp_path: Path) -> None:
    clf = fitted(RandomForestClassifier(3))
    clf.save(tmp_path / "model")
    with pytest.raises(
        SavedModelError, match=r"not known to be safe.*'sklearn.tree._tree.Tree'.*load it with trusted="
    ):
        HybridClassifier.load(tmp_path / "model")
    with pytest.raises(SavedModelError, match="not known to be safe"):
        HybridClassifier.load(tmp_path / "model", trusted=["some.other.Type"])
    trusted = skops.io.get_untrusted_types(file=tmp_path / "model" / "proposer.skops")
    loaded = HybridClassifier.load(tmp_path / "model", trusted=trusted)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_folder_holds_json_safetensors_and_skops_and_no_pickle(saved: Path) -> None:
    assert {p.name for p in saved.iterdir()} == {"model.json", "denoiser.safetensors", "proposer.skops"}
    assert json.loads((saved / "model.json").read_text(encoding="utf-8"))["version"] == FORMAT_VERSION
    for path in saved.iterdir():
        assert path.read_bytes()[:1] != b"\x80", f"{path} is a pickle"  # the opcode PROTO, which starts every pickle
    assert (saved / "proposer.skops").read_bytes()[:2] == b"PK"


def test_saving_makes_the_folder_and_its_parents(model: HybridClassifier, tmp_path: Path) -> None:
    model.save(str(tmp_path / "a" / "b"))
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    assert HybridClassifier.load(str(tmp_path / "a" / "b")).classes_.tolist() == LABELS.tolist()


def test_a_saved_model_may_be_replaced(copied: Path) -> None:
    other = fitted(GaussianNB(), y=NUMBER)
    other.save(copied)
    np.testing.assert_array_equal(HybridClassifier.load(copied).predict_proba(X), other.predict_proba(X))


def test_nothing_else_is_overwritten(model: HybridClassifier, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("mine")
    for path in (tmp_path, note):
        with pytest.raises(SavedModelError, match="exists and is not a saved model; give a new or empty folder"):
            model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]
    assert note.read_text() == "mine"


class Duck:
    """A proposer that is no scikit-learn estimator."""

    classes_ = LABELS

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), 3), 1 / 3)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        return np.log(self.predict_proba(X))


class Endless(GaussianNB):
    """A classifier that keeps what no file can hold."""

    def fit(self, X: Any, y: Any) -> "Endless":
        self.stream_ = (i for i in range(3))
        return super().fit(X, y)


def test_what_cannot_be_saved(
    model: HybridClassifier, gaussian_denoiser: Callable[..., Any], tmp_path: Path, copied: Path
) -> None:
    exact = gaussian_denoiser(dict(zip(LABELS.tolist(), np.eye(3, 6), strict=True)))
    unsaveable = {
        "a GaussianDenoiser cannot be saved; pass the denoiser as a spec string": fitted(FROZEN, denoiser=exact),
        "a Duck cannot be saved; pass the proposer as a spec string": fitted(Duck(), denoiser=model.denoiser_),
        r"a function cannot be saved; pass the proposer as a spec string \(an entry point of the group "
        r"hybridclf.proposers gives one": fitted(Duck().predict_log_proba, denoiser=model.denoiser_),
        r"the proposer Endless\(\) cannot be saved: .*generator": fitted(Endless(), denoiser=model.denoiser_),
        r"allocation Unheard\(n=2\) cannot be saved; use one of FixedTrials": fitted(allocation=Unheard(2)),
    }
    for message, clf in unsaveable.items():
        for folder in (tmp_path / "new", copied):
            with pytest.raises(SavedModelError, match=message):
                clf.save(folder)
    assert not (tmp_path / "new").exists()
    np.testing.assert_array_equal(HybridClassifier.load(copied).predict_proba(X), model.predict_proba(X))


def test_nothing_is_saved_before_fit(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        HybridClassifier().save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_no_saved_model(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "model").mkdir()
    for path in (tmp_path / "model", tmp_path / "nowhere", saved / "model.json"):
        with pytest.raises(SavedModelError, match=r"is not a saved model: it has no readable model.json"):
            HybridClassifier.load(path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"format": "another", "version": 1}'])
def test_a_model_json_of_something_else(text: str, copied: Path) -> None:
    (copied / "model.json").write_text(text)
    with pytest.raises(SavedModelError, match=r"is not a saved model: its model.json is something else's"):
        HybridClassifier.load(copied)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"format": "hybridclf"'])
def test_a_model_json_that_cannot_be_read(text: bytes, copied: Path) -> None:
    (copied / "model.json").write_bytes(text)
    with pytest.raises(SavedModelError, match=r"no readable model.json"):
        HybridClassifier.load(copied)


def change(folder: Path, **changes: Any) -> None:
    """Overwrite entries of model.json; "a.b" is the entry b of a, and None removes it."""
    content = json.loads((folder / "model.json").read_text())
    for path, value in changes.items():
        *parents, last = path.split(".")
        entry = content
        for parent in parents:
            entry = entry[parent]
        if value is None:
            del entry[last]
        else:
            entry[last] = value
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 999, "2"])
def test_a_newer_version(version: Any, copied: Path) -> None:
    change(copied, version=version)
    with pytest.raises(
        SavedModelError, match=rf"has format version {version}, this hybridclf .* reads version.*upgrade"
    ):
        HybridClassifier.load(copied)


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": None},
        {"parameters": [1]},
        {"parameters.unheard": 1},
        {"parameters.allocation": {"type": "Unheard", "n": 3}},
        {"parameters.allocation": {"type": "FixedTrials", "n": 0}},
        {"parameters.allocation": {"type": "FixedTrials", "trials": 3}},
        {"classes": None},
        {"classes.values": ["a", "b"], "classes.dtype": "<i8"},
        {"classes.dtype": "no such"},
        {"image_shape": 3},
        {"calibration": 3},
        {"calibration.fusion.unheard": 3},
        {"denoiser.network.kind": "transformer"},
        {"denoiser.network.width": 8},
        {"denoiser.network.shape": [7]},
        {"denoiser.dtype": "float33"},
        {"seed": None},
    ],
    ids=str,
)
def test_a_damaged_description(changes: dict[str, Any], copied: Path) -> None:
    change(copied, **changes)
    with pytest.raises(SavedModelError, match=r"is damaged: .*; save the model again"):
        HybridClassifier.load(copied)


def test_an_adapter_that_is_not_installed_is_no_damage(copied: Path) -> None:
    change(copied, denoiser="no-such-adapter:x")
    with pytest.raises(UnknownSpecError, match="'no-such-adapter:x' is not a known denoiser"):
        HybridClassifier.load(copied)


@pytest.mark.parametrize("name", ["denoiser.safetensors", "proposer.skops"])
@pytest.mark.parametrize("kept", [None, 0, 100, 0.5, 0.999])
def test_a_missing_or_truncated_file(name: str, kept: float | None, copied: Path) -> None:
    path = copied / name
    content = path.read_bytes()
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(SavedModelError, match=r"is damaged|cannot be read"):
        HybridClassifier.load(copied)


def test_a_proposer_with_flipped_bytes(copied: Path) -> None:
    content = bytearray((copied / "proposer.skops").read_bytes())
    content[200:260] = bytes(60)
    (copied / "proposer.skops").write_bytes(bytes(content))
    with pytest.raises(SavedModelError, match=r"proposer.skops cannot be read"):
        HybridClassifier.load(copied)


def test_the_embedded_digits() -> None:
    digits = load_digits()
    _, unseen = train_test_split(np.arange(1797), test_size=0.25, stratify=digits.target, random_state=0)  # its README
    images, y = digits.images[unseen], digits.target[unseen]
    clf = HybridClassifier.from_pretrained("digits")
    posterior, results = clf.decide(images)
    right = posterior.argmax(axis=1) == y
    assert right.mean() >= 0.985
    assert right.sum() > (clf.proposer_.predict(images.reshape(450, 64)) == y).sum()
    assert np.mean([r.evaluations for r in results]) <= 10
    assert sum(path.stat().st_size for path in pretrained_folder("digits").iterdir()) <= 4 * 2**20


def test_an_embedded_model_that_does_not_exist() -> None:
    with pytest.raises(InvalidInputError, match="there is no embedded model 'no-such'"):
        HybridClassifier.from_pretrained("no-such")
    with pytest.raises(InvalidInputError, match=r"there is no embedded model '\.\./models'"):
        pretrained_folder("../models")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_model_from_a_machine_with_a_gpu_loads_without_one(tmp_path: Path) -> None:
    HybridClassifier.from_pretrained("digits").save(tmp_path / "model")
    description = tmp_path / "model" / "model.json"
    description.write_text(description.read_text().replace('"device": "auto"', '"device": "cuda:1"'))
    clf = HybridClassifier.load(tmp_path / "model")
    assert (clf.device, clf.denoiser_.device.type) == ("auto", "cpu")
