"""Saving and loading a fitted HybridClassifier: JSON, safetensors and skops; never pickle.

A saved model is a folder: `model.json` (settings, labels, calibration), `denoiser.safetensors` (a denoiser trained by
us), and `proposer.safetensors` (the default proposer) or `proposer.skops` (another scikit-learn classifier). Parts that
came from an adapter's spec string are saved as that string and loaded through the adapter again. A spec string whose
path (what follows its last colon) starts with "./" names a part that lies in the folder itself, as in
"open_clip:local-dir:./clip" and "diffusers:./sd"; ".." is refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as dump_tensors
from sklearn.base import BaseEstimator

from . import __version__, plugins
from .atomic import make_folder, write_together
from .data.tables import TableEncoder
from .denoising.weighting import BinnedWeights
from .devices import as_device
from .errors import InvalidInputError, SavedModelError
from .fitting.calibration import Calibration
from .fitting.tiers import check_prompts_used, loader_options
from .fitting.validation import check_prompts
from .fitting.worth import Worth
from .models import LateConditionedDenoiser, build
from .proposer import FunctionProposer, with_labels
from .reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from .reranking.fusion import Fusion
from .reranking.novelty import UsualValues
from .reranking.trials import InformativeOrder
from .saving.labels import describe_labels, restore_labels
from .saving.proposers import ARRAYS, SKOPS, dump_arrays, dump_skops, load_arrays, load_skops
from .utils.names import Prompts

if TYPE_CHECKING:
    from .estimator import HybridClassifier

__all__ = ["FORMAT_VERSION", "load", "read_description", "restore_denoiser", "save"]

FORMAT_VERSION = 2
"""Version of the folder's layout: this one and older ones are read. In 1 the default proposer was a skops file too."""

FILES = ("denoiser.safetensors", ARRAYS, SKOPS, "model.json")
"""Names of a saved model's files, of which those of parts that are spec strings are missing; the last: it is whole."""

_ALLOCATIONS: dict[str, type[Allocation]] = {a.__name__: a for a in (FixedTrials, PairedTTest, Race, Staged)}
_FITTED = ("n_iter_", "n_features_in_", "feature_names_in_")


def save(clf: "HybridClassifier", folder: str | Path) -> None:
    """Write a fitted classifier into a folder; see `HybridClassifier.save`."""
    folder = Path(folder)
    description = _describe(clf, folder)
    _check_target(folder, description)
    arrays = skops = b""
    if description["fitted_proposer"]:
        default = dump_arrays(clf.proposer_) if clf.proposer is None else None
        description["linear_proposer"], arrays = default or (None, b"")
        skops = b"" if default else dump_skops(clf.proposer_)
    text = json.dumps(description, indent=1, default=_plain)
    denoiser = b"" if isinstance(description["denoiser"], str) else dump_tensors(_tensors(clf.denoiser_))
    make_folder(folder)
    write_together(folder, dict(zip(FILES, (denoiser, arrays, skops, f"{text}\n".encode()), strict=True)))


def load(
    cls: "type[HybridClassifier]",
    folder: str | Path,
    trusted: Sequence[str] = (),
    prompts: Prompts | None = None,
    device: str | None = None,
) -> "HybridClassifier":
    """Read a classifier that `save` wrote; see `HybridClassifier.load`."""
    folder = Path(folder)
    check_prompts(prompts)
    if device is not None:
        as_device(device)  # which checks it
    saved = read_description(folder)
    with _finding_damage(folder):
        clf = _unfitted(cls, folder, saved)
        clf.device = device or _here(clf.device)
    if prompts is not None:
        clf.prompts = prompts
    named = _load_named(clf, saved)
    with _finding_damage(folder):
        _restore(clf, folder, saved, named, trusted)
    clf.proposer_ = with_labels(clf.proposer_, clf.classes_)
    return clf


def _here(device: str) -> str:
    """That device, or "auto" where it is not there: where a model was saved says nothing of here."""
    try:
        as_device(device)
    except InvalidInputError:
        return "auto"
    return device


@contextmanager
def _finding_damage(folder: Path) -> Iterator[None]:
    """Say of whatever goes wrong with a folder's content that the folder is damaged."""
    try:
        yield
    except (SavedModelError, torch.OutOfMemoryError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError, RuntimeError) as error:
        raise SavedModelError(f"{folder} is damaged: {error!r}; save the model again") from error


def _check_target(folder: Path, description: dict[str, Any]) -> None:
    """Check that nothing but a saved model, or parts of this one, would be overwritten or joined."""
    if not folder.exists() or (folder / "model.json").exists():
        return
    specs = [description[tier] for tier in ("proposer", "denoiser")]
    parts = {Path(spec.rpartition(":./")[2]).parts[0] for spec in specs if isinstance(spec, str) and ":./" in spec}
    if not folder.is_dir() or not parts.issuperset(path.name for path in folder.iterdir()):
        raise SavedModelError(f"{folder} exists and is not a saved model; give a new or empty folder")


def _describe(clf: "HybridClassifier", folder: Path) -> dict[str, Any]:
    """All of a classifier that goes into JSON, for that folder."""
    parameters = clf.get_params(deep=False)
    proposer, denoiser = (_spec(parameters.pop(name), folder) for name in ("proposer", "denoiser"))
    if not isinstance(denoiser, str) and not isinstance(clf.denoiser_, LateConditionedDenoiser):
        raise _unsaveable("denoiser", clf.denoiser_)
    if not isinstance(proposer, str) and not isinstance(clf.proposer_, BaseEstimator):
        raise _unsaveable("proposer", clf.proposer_)
    if not isinstance(parameters["random_state"], int | np.integer | None):
        parameters["random_state"] = None  # what it decided is in the seed
    parameters["allocation"] = _describe_allocation(parameters["allocation"])
    if not isinstance(parameters["cv"], int | float | np.number):
        parameters["cv"] = 3  # a splitter has done its work
    if isinstance(parameters["class_weight"], Mapping):
        parameters["class_weight"] = list(parameters["class_weight"].items())  # JSON's keys are texts
    calibration = clf.calibration_
    return {
        "format": "hybridclf",
        "version": FORMAT_VERSION,
        "hybridclf": __version__,
        "scikit-learn": sklearn.__version__,
        "parameters": parameters,
        "proposer": proposer if isinstance(proposer, str) else None,
        "default_proposer": proposer is None,
        "fitted_proposer": isinstance(clf.proposer_, BaseEstimator),
        "denoiser": denoiser if isinstance(denoiser, str) else _describe_denoiser(clf.denoiser_),
        "trained_denoiser": denoiser is None,
        "classes": describe_labels(clf.classes_),
        "image_shape": clf.image_shape_,
        "pixel_range": clf.pixel_range_,
        "takes_arrays": clf._takes_arrays,
        "table": None if clf._table is None else clf._table.columns,
        "usual_values": None if clf._usual is None else {"low": clf._usual.low, "high": clf._usual.high},
        "seed": clf._seed,
        "fitted": {name: getattr(clf, name) for name in _FITTED if hasattr(clf, name)},
        "asks_tier_2": clf.fusion_.pays,
        "calibration": None if calibration is None else _describe_calibration(calibration, clf.classes_.dtype),
    }


def _spec(tier: Any, folder: Path) -> Any:
    return plugins.portable(tier, folder) if isinstance(tier, str) else tier


def _unsaveable(kind: plugins.Kind, tier: Any) -> SavedModelError:
    what = "function" if isinstance(tier, FunctionProposer) else type(tier).__name__
    return SavedModelError(
        f"a {what} cannot be saved; pass the {kind} as a spec string (an entry point of the group hybridclf.{kind}s "
        "gives one to code of your own)"
    )


def _describe_allocation(allocation: Allocation | None) -> dict[str, Any] | None:
    if allocation is None:
        return None
    if type(allocation).__name__ not in _ALLOCATIONS:
        raise SavedModelError(f"allocation {allocation!r} cannot be saved; use one of {', '.join(_ALLOCATIONS)}")
    return {"type": type(allocation).__name__, **asdict(allocation)}  # type: ignore[call-overload]


def _describe_denoiser(denoiser: LateConditionedDenoiser) -> dict[str, Any]:
    """Its own classes too: one that was given may know others than the classifier, or in another order."""
    return {
        "network": denoiser.network.config,
        "dtype": str(denoiser.dtype).removeprefix("torch."),
        "mirror": denoiser.mirror,
        "classes": describe_labels(denoiser.classes),
    }


def _describe_calibration(calibration: Calibration, labels: np.dtype) -> dict[str, Any]:
    weighting, worth, fusion = calibration.weighting, calibration.worth, asdict(calibration.fusion)
    return {
        "fusion": _describe_harmed(fusion, labels),
        "weighting": None if weighting is None else weighting.values,
        "order": calibration.order.discriminability,
        "n_images": calibration.n_images,
        "worth": None if worth is None else _describe_harmed(asdict(worth), labels),
    }


def _describe_harmed(values: dict[str, Any], labels: np.dtype) -> dict[str, Any]:
    """Values of which "harmed" are labels of that dtype; dates and spans of time are no values of JSON's."""
    if labels.kind not in "mM":
        return values
    return values | {"harmed": describe_labels(np.array(values["harmed"], dtype=labels))}


def _tensors(denoiser: LateConditionedDenoiser) -> dict[str, np.ndarray]:
    """Weights in the shortest type that loses nothing; the scaling in float64."""
    weights = {name: value.cpu() for name, value in denoiser.network.state_dict().items()}
    dtype = next(
        dtype
        for dtype in (torch.float16, torch.float32, torch.float64)
        if dtype == torch.float64 or all(torch.equal(w.to(dtype).to(w.dtype), w) for w in weights.values())
    )
    arrays = {name: w.to(dtype).numpy() for name, w in weights.items()}
    return arrays | {"mean": denoiser.mean, "scale": denoiser.scale}


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as JSON can hold them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if callable(value):
        raise SavedModelError(f"the function {value!r} cannot be saved; prompts that are texts with {{}} can")
    raise SavedModelError(f"{value!r} cannot be saved")


def read_description(folder: Path) -> dict[str, Any]:
    """What a saved model's `model.json` says; the parts beside it are not looked at.

    Raises
    ------
    SavedModelError
        If the folder is no saved model, or one of another format version.
    """
    try:
        saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SavedModelError(f"{folder} is not a saved model: it has no readable model.json") from error
    if not isinstance(saved, dict) or saved.get("format") != "hybridclf":
        raise SavedModelError(f"{folder} is not a saved model: its model.json is something else's")
    if saved.get("version") not in range(1, FORMAT_VERSION + 1):
        raise SavedModelError(
            f"{folder} has format version {saved.get('version')}, this hybridclf {__version__} reads versions up to "
            f"{FORMAT_VERSION}; upgrade hybridclf, or save the model again"
        )
    return saved


def _unfitted(cls: "type[HybridClassifier]", folder: Path, saved: dict[str, Any]) -> "HybridClassifier":
    """A classifier with the saved settings, spec strings among them."""
    parameters = dict(saved["parameters"])
    parameters["allocation"] = _restore_allocation(parameters["allocation"])
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    if parameters["image_shape"] is not None:
        parameters["image_shape"] = tuple(parameters["image_shape"])
    specs = {kind: saved[kind] for kind in ("proposer", "denoiser") if isinstance(saved[kind], str)}
    parameters |= {kind: plugins.resolved(spec, folder) for kind, spec in specs.items()}
    return cls(**parameters)


def _load_named(clf: "HybridClassifier", saved: dict[str, Any]) -> dict[plugins.Kind, Any]:
    """The parts that were saved as a spec string, from their adapters, whose errors are their own."""
    specs: dict[plugins.Kind, Any] = {"denoiser": clf.denoiser}
    if not saved.get("fitted_proposer"):
        specs["proposer"] = clf.proposer
    options = loader_options(clf)
    named = {kind: plugins.offer(kind, spec, options) for kind, spec in specs.items() if isinstance(spec, str)}
    check_prompts_used(clf, named.get("proposer"), named.get("denoiser"))
    return named


def _restore(
    clf: "HybridClassifier",
    folder: Path,
    saved: dict[str, Any],
    named: dict[plugins.Kind, Any],
    trusted: Sequence[str],
) -> None:
    clf.classes_ = restore_labels(saved["classes"])
    version = saved.get("scikit-learn")
    if "proposer" in named:
        clf.proposer_ = named["proposer"]
    elif linear := saved.get("linear_proposer"):
        clf.proposer_ = load_arrays(folder, linear, version)
    else:
        clf.proposer_ = load_skops(folder, trusted, version)
    if clf.proposer is None and not saved["default_proposer"]:
        clf.proposer = clf.proposer_
    if "denoiser" in named:
        clf.denoiser_ = named["denoiser"]
    else:
        clf.denoiser_ = restore_denoiser(folder, saved["denoiser"], as_device(clf.device))
        clf.denoiser = None if saved["trained_denoiser"] else clf.denoiser_
    clf.image_shape_ = None if saved["image_shape"] is None else tuple(saved["image_shape"])
    clf.pixel_range_ = None if saved["pixel_range"] is None else tuple(saved["pixel_range"])
    clf._takes_arrays, clf._seed = saved["takes_arrays"], saved["seed"]
    clf._table = None if saved.get("table") is None else TableEncoder(saved["table"])
    clf._usual = None if saved.get("usual_values") is None else UsualValues(**saved["usual_values"])
    clf._objective, clf._weighting = clf.objective, clf.weighting
    for name, value in saved["fitted"].items():
        setattr(clf, name, np.array(value, dtype=object) if name == "feature_names_in_" else value)
    clf.calibration_ = None if saved["calibration"] is None else _restore_calibration(saved["calibration"])
    learned = clf.calibration_
    clf.fusion_ = Fusion(pays=saved.get("asks_tier_2", True)) if learned is None else learned.fusion
    clf.worth_ = None if learned is None else learned.worth


def _restore_allocation(saved: dict[str, Any] | None) -> Allocation | None:
    if saved is None:
        return None
    arguments = dict(saved)
    return _ALLOCATIONS[arguments.pop("type")](**arguments)


def restore_denoiser(folder: Path, saved: dict[str, Any], device: torch.device) -> LateConditionedDenoiser:
    """The denoiser that a saved model's description speaks of, from the folder."""
    classes = restore_labels(saved["classes"])
    tensors = load_file(folder / "denoiser.safetensors")
    mean, scale = tensors.pop("mean"), tensors.pop("scale")
    network = build(saved["network"])
    dtype = getattr(torch, saved["dtype"])
    network.to(dtype).load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return LateConditionedDenoiser(network, classes, mean, scale, dtype, device, saved.get("mirror", False))


def _restore_harmed(saved: dict[str, Any]) -> dict[str, Any]:
    harmed = saved.get("harmed", ())
    return {**saved, "harmed": restore_labels(harmed).tolist() if isinstance(harmed, dict) else harmed}


def _restore_calibration(saved: dict[str, Any]) -> Calibration:
    weighting, worth, fusion = saved["weighting"], saved.get("worth"), _restore_harmed(saved["fusion"])
    return Calibration(
        Fusion(**fusion),
        None if weighting is None else BinnedWeights(np.array(weighting)),
        InformativeOrder(np.array(saved["order"])),
        saved["n_images"],
        None if worth is None else Worth.from_dict(_restore_harmed(worth)),
    )
