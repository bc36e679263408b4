"""What is saved comes back to the last bit, and what cannot be trusted or understood is refused."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, make_blobs
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM

from hybridclf import FixedTrials, HybridClassifier, PairedTTest, Race, Staged
from hybridclf.errors import InvalidInputError, SavedModelError, UnknownSpecError
from hybridclf.fitting import calibration, recording
from hybridclf.models import LateUNet
from hybridclf.persistence import FORMAT_VERSION
from hybridclf.persistence.compiled_estimators import check_indices
from hybridclf.persistence.folder import _portable
from hybridclf.persistence.proposers import ARRAYS, SKOPS, dump_arrays, dump_skops, load_arrays, load_skops
from hybridclf.pretrained.catalog import pretrained_folder
from hybridclf.proposer import default_proposer

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
def quick_to_fit() -> Iterator[None]:
    """Recorded are as many trials as the quick allocations use, and no sharpness is chosen: more only takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "RECORDED_TRIALS", 8)
        patch.setattr(calibration, "SHARPNESS", {0: 1.0})
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


@pytest.fixture(scope="module")
def saved_bayes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a proposer that skops keeps, not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "bayes"
    fitted(GaussianNB()).save(folder)
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    """A saved model to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_another_dtype(tmp_path: Path) -> None:
    """It is the loaded model's own, in a copy as well; answers differ by rounding."""
    images = load_digits().images[:100]
    exact, rounded = (HybridClassifier.from_pretrained("digits", dtype=name) for name in (None, "bfloat16"))
    assert (exact.denoiser_.dtype, rounded.denoiser_.dtype) == (torch.float64, torch.bfloat16)
    answers = rounded.predict_proba(images)
    assert 0 < np.abs(answers - exact.predict_proba(images)).max() < 0.05
    rounded.save(tmp_path / "copy")
    np.testing.assert_array_equal(HybridClassifier.load(tmp_path / "copy").predict_proba(images), answers)


def test_a_dtype_that_is_none(saved: Path) -> None:
    """The embedded shapes pair has tiers that are named."""
    with pytest.raises(InvalidInputError, match="dtype='float64' is for a denoiser that is trained here"):
        HybridClassifier.from_pretrained("shapes", dtype="float64")
    with pytest.raises(InvalidInputError, match=r'dtype must be None, "float64", .* got \'half\''):
        HybridClassifier.load(saved, dtype="half")


def test_arrays_of_the_default_proposer_that_are_views_are_saved_as_they_read(tmp_path: Path) -> None:
    """Some versions of scikit-learn keep coefficients and intercepts as columns of one array."""
    clf = fitted()
    regression = clf.proposer_[-1]
    both = np.column_stack([regression.coef_, regression.intercept_])
    regression.coef_, regression.intercept_ = both[:, :-1], both[:, -1]
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model").proposer_[-1]
    np.testing.assert_array_equal(loaded.coef_, regression.coef_)
    np.testing.assert_array_equal(loaded.intercept_, regression.intercept_)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_is_the_saved_one_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    clf = KINDS[kind]()
    clf.fusion_ = replace(clf.fusion_, pays=True, harmed=())  # however little it was trained
    if clf.calibration_ is not None:
        clf.calibration_ = replace(clf.calibration_, fusion=clf.fusion_)
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


def test_parameters_for_the_next_fit_change_nothing_by_a_save(model: HybridClassifier, tmp_path: Path) -> None:
    changed = copy.copy(model).set_params(objective="l1", weighting="uniform")
    changed.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert (loaded.objective, loaded.weighting) == ("l1", "uniform")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


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


def test_requests_of_metadata_are_for_the_next_fit_and_not_saved(tmp_path: Path) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        naive = GaussianNB().set_fit_request(sample_weight="own")
        proposer = VotingClassifier([("a", naive), ("b", make_pipeline(naive))], voting="soft")
        clf = fitted(proposer).set_fit_request(sample_weight="own")
        before = clf.get_metadata_routing()
        clf.save(tmp_path / "model")
        loaded = HybridClassifier.load(tmp_path / "model")
        assert str(clf.get_metadata_routing()) == str(before) != str(loaded.get_metadata_routing())
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


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


# --- labels -----------------------------------------------------------------------------------------------------------

DAYS = np.array(["2020-01-01", "2021-05-05", "2022-03-03"])


@pytest.mark.parametrize(
    "labels",
    [
        *[DAYS.astype(f"M8[{unit}]") for unit in ("Y", "D", "s", "ns")],
        DAYS.astype(">M8[us]"),
        np.array([1, 2, 3], "m8[h]"),
        np.array([1, 2, 3], np.float32),
        np.array([1, 2, 2**64 - 1], np.uint64),
        np.array([-1, 2, 3], ">i4"),
        np.array(["ä", "b c", "d"], dtype=object),
    ],
    ids=lambda labels: labels.dtype.str,
)
def test_labels_come_back_as_they_were(labels: np.ndarray, tmp_path: Path) -> None:
    clf = fitted(y=labels[NUMBER])
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    for a, b in ((loaded.classes_, clf.classes_), (loaded.predict(X), clf.predict(X))):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("labels", [DAYS.astype("M8[D]"), DAYS.astype("M8[ns]"), LABELS, LABELS.astype(object)])
def test_classes_that_tier_2_is_not_asked_about_come_back(labels: np.ndarray, tmp_path: Path) -> None:
    clf = fitted(y=labels[NUMBER])
    clf.fusion_ = replace(clf.fusion_, pays=True, harmed=tuple(labels[1:].tolist()))
    worth = replace(clf.calibration_.worth, harmed=clf.fusion_.harmed)
    clf.calibration_ = replace(clf.calibration_, fusion=clf.fusion_, worth=worth)
    clf.save(tmp_path / "model")
    loaded = HybridClassifier.load(tmp_path / "model")
    assert loaded.fusion_.harmed == loaded.calibration_.worth.harmed == clf.fusion_.harmed
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


class Shade(str):
    """A label that is more than JSON can say."""


@pytest.mark.parametrize(
    ("labels", "what"),
    [(np.array([1, 2, 3], np.longdouble), "longdouble"), (np.array([*map(Shade, "abc")], dtype=object), "Shade")],
)
def test_labels_that_json_cannot_hold_are_refused(labels: np.ndarray, what: str, tmp_path: Path) -> None:
    with pytest.raises(SavedModelError, match=f"labels of type {what} cannot be saved; fit on strings, numbers or"):
        fitted(y=labels[NUMBER]).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- proposers --------------------------------------------------------------------------------------------------------

MIXED = ColumnTransformer(
    [("scaled", StandardScaler(), [0, 1]), ("coded", OneHotEncoder(handle_unknown="ignore"), [2])]
)


class Own(GaussianNB):
    """A classifier of the user's."""


@pytest.mark.parametrize(
    "proposer",
    [
        RandomForestClassifier(3),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        SVC(),
        KNeighborsClassifier(3),
        KNeighborsClassifier(3, algorithm="ball_tree"),
        MLPClassifier(4, max_iter=5, solver="lbfgs"),
        make_pipeline(MIXED, LogisticRegression()),
        make_pipeline(FunctionTransformer(np.tanh), LogisticRegression()),
        CalibratedClassifierCV(SVC(), cv=2),
        CalibratedClassifierCV(RandomForestClassifier(3), cv=2, method="isotonic"),
        FrozenEstimator(RandomForestClassifier(3, random_state=0).fit(X, LABELS[NUMBER])),
    ],
    ids=lambda proposer: type(proposer).__name__,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_proposers_of_scikit_learn_load_without_ado(proposer: Any, tmp_path: Path) -> None:
    clf = fitted(proposer)
    clf.save(tmp_path / "model")
    assert (tmp_path / "model" / SKOPS).exists()
    loaded = HybridClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_a_proposer_of_types_that_are_not_known_to_be_safe_needs_trust(tmp_path: Path) -> None:
    clf = fitted(Own())
    clf.save(tmp_path / "model")
    with pytest.raises(SavedModelError, match=r"not known to be safe.*test_persistence.Own.*load it with trusted="):
        HybridClassifier.load(tmp_path / "model")
    with pytest.raises(SavedModelError, match="not known to be safe"):
        HybridClassifier.load(tmp_path / "model", trusted=["some.other.Type"])
    loaded = HybridClassifier.load(tmp_path / "model", trusted=[f"{Own.__module__}.Own"])
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("transform", [np.savetxt, sklearn.datasets.load_files, sklearn.utils.shuffle])
def test_functions_need_trust(transform: Any, tmp_path: Path) -> None:
    """They would be called with what the model is asked about."""
    (tmp_path / SKOPS).write_bytes(dump_skops(FunctionTransformer(transform)))
    with pytest.raises(SavedModelError, match=f"not known to be safe.*{transform.__name__}"):
        load_skops(tmp_path, (), None)


@pytest.mark.parametrize(
    ("field", "value"), [("left_child", 10**6), ("right_child", 0), ("feature", 6), ("feature", -2)]
)
def test_a_tree_that_leads_out_of_itself_is_refused(field: str, value: int, tmp_path: Path) -> None:
    forest = RandomForestClassifier(3).fit(X, NUMBER)
    tree = forest.estimators_[1].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    (tmp_path / SKOPS).write_bytes(dump_skops(forest))
    with pytest.raises(SavedModelError, match=r"an index in a sklearn.tree._tree.Tree leads out of it"):
        load_skops(tmp_path, (), None)


@pytest.mark.parametrize(("field", "value"), [("left", 10**6), ("right", 0), ("feature_idx", 6)])
def test_a_boosted_tree_that_leads_out_of_itself_is_refused(field: str, value: int, tmp_path: Path) -> None:
    boosted = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=3).fit(X, NUMBER)
    boosted._predictors[1][0].nodes[field][0] = value
    (tmp_path / SKOPS).write_bytes(dump_skops(boosted))
    with pytest.raises(SavedModelError, match=r"an index in a .*HistGradientBoostingClassifier leads out of it"):
        load_skops(tmp_path, (), None)


def test_a_forest_of_wider_trees_is_refused(tmp_path: Path) -> None:
    forest = RandomForestClassifier(3).fit(X, NUMBER)
    forest.n_features_in_ = 2
    (tmp_path / SKOPS).write_bytes(dump_skops(forest))
    with pytest.raises(SavedModelError, match="leads out of it"):
        load_skops(tmp_path, (), None)


@pytest.mark.parametrize("place", range(2))
def test_a_ball_tree_that_leads_out_of_itself_is_refused(place: int, tmp_path: Path) -> None:
    neighbours = KNeighborsClassifier(3, algorithm="ball_tree", leaf_size=5).fit(X, NUMBER)
    index, nodes = (np.asarray(array) for array in neighbours._tree.get_arrays()[1:3])
    if place:
        nodes["idx_end"][0] = 1000
    else:
        index[0] = -1
    (tmp_path / SKOPS).write_bytes(dump_skops(neighbours))
    with pytest.raises(SavedModelError, match="BallTree leads out of it"):
        load_skops(tmp_path, (), None)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("_n_support", lambda counts: counts + np.array([2 * 10**9, -(2 * 10**9), 0])),
        ("_n_support", lambda counts: counts + 1),
        ("_dual_coef_", lambda coefficients: coefficients[:1]),
        ("_intercept_", lambda intercept: intercept[:1]),
    ],
)
def test_a_support_vector_machine_that_leads_out_of_itself_is_refused(
    name: str, change: Callable[[Any], Any], tmp_path: Path
) -> None:
    machine = SVC().fit(X, NUMBER)
    array = getattr(machine, name)
    setattr(
        machine, name, np.ascontiguousarray(change(array.astype(int) if name == "_n_support" else array), array.dtype)
    )
    (tmp_path / SKOPS).write_bytes(dump_skops(machine))
    with pytest.raises(SavedModelError, match="SVC leads out of it"):
        load_skops(tmp_path, (), None)


@pytest.mark.parametrize("machine", [NuSVC(), OneClassSVM(), SVR()], ids=lambda machine: type(machine).__name__)
def test_other_support_vector_machines_are_sound(machine: Any) -> None:
    check_indices(machine.fit(X, NUMBER))


def test_attributes_of_attributes_need_trust(tmp_path: Path) -> None:
    """An array's ctypes lead to the module os, if a file may name attributes (CVE-2025-54413)."""
    step = FunctionTransformer(kw_args={"a": np.zeros(2)})
    with ZipFile(BytesIO(dump_skops(step))) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    schema = json.loads(contents.pop("schema.json"))
    inner = schema["content"]["content"]
    leading = inner["kw_args"]["content"]["a"]
    for i, name in enumerate(("ctypes", "_ctypes", "_os", "system")):
        leading = {
            **{"__class__": "FunctionTransformer", "__module__": "sklearn.preprocessing._function_transformer"},
            **{"__loader__": "MethodNode", "__id__": 10**6 + i, "content": {"obj": leading, "func": name}},
        }
    inner["func"] = leading
    with ZipFile(tmp_path / SKOPS, "w") as file:
        for name, content in (*contents.items(), ("schema.json", json.dumps(schema))):
            file.writestr(name, content)
    with pytest.raises(SavedModelError):
        load_skops(tmp_path, (), None)


def test_the_default_proposer_is_kept_as_arrays_of_public_attributes(saved: Path, model: HybridClassifier) -> None:
    from safetensors.numpy import load_file

    attributes = {name.removesuffix(".T").split(".")[1] for name in load_file(saved / ARRAYS)}
    assert attributes == {"mean_", "scale_", "var_", "n_samples_seen_", "coef_", "intercept_", "n_iter_"}
    loaded = HybridClassifier.load(saved).proposer_
    for ours, theirs in zip(loaded, model.proposer_, strict=True):
        assert vars(ours).keys() == vars(theirs).keys()
        for name, value in vars(theirs).items():
            np.testing.assert_array_equal(getattr(ours, name), value)
    assert loaded[-1].coef_.flags.f_contiguous == model.proposer_[-1].coef_.flags.f_contiguous


@pytest.mark.parametrize(
    "params", [{"C": 0.5, "class_weight": "balanced"}, {"solver": "newton-cg", "tol": np.float64(0.1)}]
)
def test_parameters_of_the_default_proposer_are_kept(params: dict[str, Any], tmp_path: Path) -> None:
    proposer = default_proposer()
    proposer[-1].set_params(**params)
    described = dump_arrays(proposer.fit(X, LABELS[NUMBER]))
    assert described is not None
    (tmp_path / ARRAYS).write_bytes(described[1])
    loaded = load_arrays(tmp_path, json.loads(json.dumps(described[0])), None)
    assert {name: getattr(loaded[-1], name) for name in params} == params
    np.testing.assert_array_equal(loaded.predict_proba(X), proposer.predict_proba(X))


@pytest.mark.parametrize(
    "change",
    [
        lambda proposer: proposer[-1].sparsify(),
        lambda proposer: proposer[-1].set_params(random_state=np.random.RandomState(0)),
        lambda proposer: proposer[-1].set_params(class_weight={0: 1.0}),
        lambda proposer: proposer[0].set_output(transform="pandas"),
        lambda proposer: setattr(proposer[0], "scale_", None),
        lambda proposer: proposer.steps.insert(0, ("none", FunctionTransformer())),
    ],
)
def test_what_arrays_cannot_hold_is_left_to_skops(change: Callable[[Any], Any]) -> None:
    proposer = default_proposer().fit(X, LABELS[NUMBER])
    change(proposer)
    assert dump_arrays(proposer) is None


def test_a_folder_of_the_first_version_loads(copied: Path, model: HybridClassifier) -> None:
    """Where the default proposer was a skops file too, and the version of scikit-learn was not noted."""
    (copied / ARRAYS).unlink()
    (copied / SKOPS).write_bytes(dump_skops(model.proposer_))
    change(copied, version=1, linear_proposer=None, **{"scikit-learn": None})
    loaded = HybridClassifier.load(copied)
    assert loaded.proposer is None
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


def test_another_version_of_scikit_learn_is_named_where_it_may_be_the_cause(copied: Path, saved_bayes: Path) -> None:
    message = rf'saved under scikit-learn 0\.9.*under {sklearn.__version__}.*pip install "scikit-learn==0.9"'
    change(copied, **{"scikit-learn": "0.9", "linear_proposer.parameters": {"logisticregression__gone": 1}})
    with pytest.raises(SavedModelError, match=message):
        HybridClassifier.load(copied)
    bayes = shutil.copytree(saved_bayes, copied.parent / "bayes")
    change(bayes, **{"scikit-learn": "0.9"})
    HybridClassifier.load(bayes)
    (bayes / SKOPS).write_bytes(b"PK")
    with pytest.raises(SavedModelError, match=message):
        HybridClassifier.load(bayes)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_the_folder_holds_json_safetensors_and_skops_and_no_pickle(saved: Path, saved_bayes: Path) -> None:
    assert {p.name for p in saved.iterdir()} == {"model.json", "denoiser.safetensors", ARRAYS}
    assert {p.name for p in saved_bayes.iterdir()} == {"model.json", "denoiser.safetensors", SKOPS}
    assert json.loads((saved / "model.json").read_text(encoding="utf-8"))["version"] == FORMAT_VERSION
    for path in (*saved.iterdir(), *saved_bayes.iterdir()):
        assert path.read_bytes()[:1] != b"\x80", f"{path} is a pickle"  # the opcode PROTO, which starts every pickle
    assert (saved_bayes / SKOPS).read_bytes()[:2] == b"PK"


def test_saving_makes_the_folder_and_its_parents(model: HybridClassifier, tmp_path: Path) -> None:
    model.save(str(tmp_path / "a" / "b"))
    (tmp_path / "empty").mkdir()
    model.save(tmp_path / "empty")
    assert HybridClassifier.load(str(tmp_path / "a" / "b")).classes_.tolist() == LABELS.tolist()


def test_a_saved_model_may_be_replaced(copied: Path) -> None:
    other = fitted(GaussianNB(), y=NUMBER)
    other.save(copied)
    np.testing.assert_array_equal(HybridClassifier.load(copied).predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("place", [1, 2, 3])
def test_what_a_killed_save_left_may_be_replaced(place: int, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, done = Path.replace, []

    def killed(self: Path, target: Any) -> Any:
        done.append(target)
        if len(done) == place:
            raise KeyboardInterrupt
        return replace(self, target)

    other = fitted(GaussianNB(), y=NUMBER)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        patch.setattr(
            Path, "unlink", lambda self, missing_ok=False: None if self.suffix == ".part" else os.unlink(self)
        )
        other.save(copied)
    assert not (copied / "model.json").exists() and list(copied.glob("*.part"))
    other.save(copied)
    np.testing.assert_array_equal(HybridClassifier.load(copied).predict_proba(X), other.predict_proba(X))


def test_tiers_that_lie_in_another_saved_model_come_along(text_pair: Path, tmp_path: Path) -> None:
    first, second = shutil.copytree(text_pair, tmp_path / "first"), tmp_path / "second"
    specs = f"open_clip:local-dir:{first}/clip", f"diffusers:{first}/sd"
    HybridClassifier(*specs, device="cpu").fit(None, ["cat", "dog"]).save(first)
    for _ in range(2):  # again, over what is there
        HybridClassifier.load(first).save(second)
    first.rename(tmp_path / "away")
    loaded = HybridClassifier.load(second)
    assert (loaded.proposer, loaded.denoiser) == (f"open_clip:local-dir:{second}/clip", f"diffusers:{second}/sd")
    assert {path.name for path in second.iterdir()} == {"clip", "sd", "model.json"}


def test_a_tuned_model_names_the_model_that_it_was_tuned_from(copied: Path, tmp_path: Path) -> None:
    """Its folder has the LoRA; the base, which may take gigabytes, stays where it is."""
    base, out = copied.resolve() / "sd", tmp_path / "tuned"
    base.mkdir()
    out.mkdir()
    (out / "lora.safetensors").touch()
    specs = {"proposer": f"timm:local-dir:{base}", "denoiser": f"diffusers:{base}?lora={out}/lora.safetensors"}
    portable, parts = _portable(specs, out)
    assert portable == {**specs, "denoiser": f"diffusers:{base}?lora=./lora.safetensors"} and parts == []
    elsewhere, parts = _portable(specs, tmp_path / "elsewhere")
    assert elsewhere["denoiser"] == specs["denoiser"] and elsewhere["proposer"] == "timm:local-dir:./sd"
    assert parts == [base]


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


@pytest.mark.parametrize("name", ["denoiser.safetensors", ARRAYS, SKOPS])
@pytest.mark.parametrize("kept", [None, 0, 100, 0.5, 0.999])
def test_a_missing_or_truncated_file(
    name: str, kept: float | None, saved: Path, saved_bayes: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved_bayes if name == SKOPS else saved, tmp_path / "copy"))
    path = folder / name
    content = path.read_bytes()
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(SavedModelError, match=r"is damaged|cannot be read"):
        HybridClassifier.load(folder)


def test_a_proposer_with_flipped_bytes(saved_bayes: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(saved_bayes, tmp_path / "copy")) / SKOPS
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(bytes(content))
    with pytest.raises(SavedModelError, match=r"proposer.skops cannot be read"):
        HybridClassifier.load(path.parent)


def test_arrays_of_another_proposer_are_refused(copied: Path) -> None:
    described = dump_arrays(default_proposer().fit(X[:, :3], LABELS[NUMBER]))
    assert described is not None
    (copied / ARRAYS).write_bytes(described[1])
    change(copied, **{"linear_proposer.classes.values": ["ant", "bee"], "linear_proposer.classes.dtype": "<U3"})
    with pytest.raises(SavedModelError, match="its arrays do not fit together"):
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
