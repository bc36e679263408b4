"""Saving and loading a fitted HybridClassifier: JSON, safetensors and skops; never pickle.

A saved model is a folder: `model.json` (settings, labels, calibration), `denoiser.safetensors` (a denoiser trained by
us) and `proposer.skops` (a scikit-learn proposer). Parts that came from an adapter's spec string are saved as that
string and loaded through the adapter again.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skops.io
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from sklearn.base import BaseEstimator

from . import __version__, plugins
from .allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from .calibration import Calibration
from .errors import InvalidInputError, SavedModelError
from .fusion import Fusion
from .models import LateConditionedDenoiser, build
from .objectives import BinnedWeights
from .trials import TellingOrder

if TYPE_CHECKING:
    from .estimator import HybridClassifier

__all__ = ["FORMAT_VERSION", "load", "pretrained_folder", "save"]

FORMAT_VERSION = 1
"""Version of the folder's layout; a newer one is refused."""

_ALLOCATIONS: dict[str, type[Allocation]] = {a.__name__: a for a in (FixedTrials, PairedTTest, Race, Staged)}
_PRETRAINED = Path(__file__).parent / "pretrained"


def save(clf: "HybridClassifier", folder: str | Path) -> None:
    """Write a fitted classifier into a folder; see `HybridClassifier.save`."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / "model.json").exists())):
        raise SavedModelError(f"{folder} exists and is not a saved model; give a new or empty folder")
    description = _describe(clf)  # fails before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").unlink(missing_ok=True)
    if isinstance(clf.denoiser_, LateConditionedDenoiser):
        save_file(_tensors(clf.denoiser_), folder / "denoiser.safetensors")
    if not isinstance(clf.proposer, str):
        skops.io.dump(clf.proposer_, folder / "proposer.skops")
    text = json.dumps(description, indent=1, default=_plain)
    (folder / "model.json").write_text(text + "\n", encoding="utf-8")  # last: it says that the rest is there


def load(cls: "type[HybridClassifier]", folder: str | Path, trusted: Sequence[str] = ()) -> "HybridClassifier":
    """Read a classifier that `save` wrote; see `HybridClassifier.load`."""
    folder = Path(folder)
    saved = _read_json(folder)
    try:
        return _restore(cls, folder, saved, trusted)
    except (KeyError, TypeError, AttributeError, OSError, SafetensorError, RuntimeError) as error:
        raise SavedModelError(f"{folder} is damaged: {error!r}; save the model again") from error


def pretrained_folder(name: str) -> Path:
    """Where the embedded model of that name lies.

    Raises
    ------
    InvalidInputError
        If there is none of that name.
    """
    known = sorted(p.parent.name for p in _PRETRAINED.glob("*/model.json"))
    if name not in known:
        raise InvalidInputError(f"there is no embedded model {name!r}; there is {', '.join(known)}")
    return _PRETRAINED / name


def _describe(clf: "HybridClassifier") -> dict[str, Any]:
    """All of a classifier that goes into JSON."""
    parameters = clf.get_params(deep=False)
    proposer, denoiser = parameters.pop("proposer"), parameters.pop("denoiser")
    if not isinstance(denoiser, str) and not isinstance(clf.denoiser_, LateConditionedDenoiser):
        raise SavedModelError(f"a {type(clf.denoiser_).__name__} cannot be saved; pass the denoiser as a spec string")
    if not isinstance(proposer, str) and not isinstance(clf.proposer_, BaseEstimator):
        raise SavedModelError(f"a {type(clf.proposer_).__name__} cannot be saved; pass the proposer as a spec string")
    if not isinstance(parameters["random_state"], int | None):
        parameters["random_state"] = None  # what it decided is in the seed
    parameters["allocation"] = _describe_allocation(parameters["allocation"])
    calibration = clf.calibration_
    return {
        "format": "hybridclf",
        "version": FORMAT_VERSION,
        "hybridclf": __version__,
        "parameters": parameters,
        "proposer": proposer if isinstance(proposer, str) else None,
        "default_proposer": proposer is None,
        "denoiser": denoiser if isinstance(denoiser, str) else _describe_denoiser(clf.denoiser_),
        "trained_denoiser": denoiser is None,
        "classes": {"dtype": clf.classes_.dtype.str, "values": clf.classes_.tolist()},
        "image_shape": clf.image_shape_,
        "takes_arrays": clf._takes_arrays,
        "seed": clf._seed,
        "fitted": {name: getattr(clf, name) for name in ("n_iter_", "n_features_in_") if hasattr(clf, name)},
        "calibration": None if calibration is None else _describe_calibration(calibration),
    }


def _describe_allocation(allocation: Allocation | None) -> dict[str, Any] | None:
    if allocation is None:
        return None
    if type(allocation).__name__ not in _ALLOCATIONS:
        raise SavedModelError(f"allocation {allocation!r} cannot be saved; use one of {', '.join(_ALLOCATIONS)}")
    return {"type": type(allocation).__name__, **asdict(allocation)}  # type: ignore[call-overload]


def _describe_denoiser(denoiser: LateConditionedDenoiser) -> dict[str, Any]:
    return {"network": denoiser.network.config, "dtype": str(denoiser.dtype).removeprefix("torch.")}


def _describe_calibration(calibration: Calibration) -> dict[str, Any]:
    weighting = calibration.weighting
    return {
        "fusion": asdict(calibration.fusion),
        "weighting": None if weighting is None else weighting.values,
        "order": calibration.order.discriminability,
        "n_images": calibration.n_images,
    }


def _tensors(denoiser: LateConditionedDenoiser) -> dict[str, np.ndarray]:
    """Weights in float32, in which they were trained, and the scaling in float64."""
    weights = {k: v.float().cpu().numpy() for k, v in denoiser.network.state_dict().items()}
    return weights | {"mean": denoiser.mean, "scale": denoiser.scale}


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as JSON can hold them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise SavedModelError(f"{value!r} cannot be saved")


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SavedModelError(f"{folder} is not a saved model: it has no readable model.json") from error
    if not isinstance(saved, dict) or saved.get("format") != "hybridclf":
        raise SavedModelError(f"{folder} is not a saved model: its model.json is something else's")
    if saved.get("version") != FORMAT_VERSION:
        raise SavedModelError(
            f"{folder} has format version {saved.get('version')}, this hybridclf {__version__} reads version "
            f"{FORMAT_VERSION}; upgrade hybridclf, or save the model again"
        )
    return saved


def _restore(
    cls: "type[HybridClassifier]", folder: Path, saved: dict[str, Any], trusted: Sequence[str]
) -> "HybridClassifier":
    parameters = dict(saved["parameters"])
    parameters["allocation"] = _restore_allocation(parameters["allocation"])
    if parameters["image_shape"] is not None:
        parameters["image_shape"] = tuple(parameters["image_shape"])
    clf = cls(**parameters)
    clf.classes_ = np.array(saved["classes"]["values"], dtype=saved["classes"]["dtype"])
    if saved["proposer"] is not None:
        clf.proposer, clf.proposer_ = saved["proposer"], plugins.load("proposer", saved["proposer"])
        if not hasattr(clf.proposer_, "classes_"):
            clf.proposer_.fit(None, clf.classes_)
    else:
        clf.proposer_ = _load_skops(folder / "proposer.skops", trusted)
        clf.proposer = None if saved["default_proposer"] else clf.proposer_
    if isinstance(saved["denoiser"], str):
        clf.denoiser, clf.denoiser_ = saved["denoiser"], plugins.load("denoiser", saved["denoiser"])
    else:
        clf.denoiser_ = _restore_denoiser(folder, saved["denoiser"], clf.classes_, clf.torch_device())
        clf.denoiser = None if saved["trained_denoiser"] else clf.denoiser_
    clf.image_shape_ = None if saved["image_shape"] is None else tuple(saved["image_shape"])
    clf._takes_arrays, clf._seed = saved["takes_arrays"], saved["seed"]
    for name, value in saved["fitted"].items():
        setattr(clf, name, value)
    clf.calibration_ = None if saved["calibration"] is None else _restore_calibration(saved["calibration"])
    clf.fusion_ = Fusion() if clf.calibration_ is None else clf.calibration_.fusion
    return clf


def _restore_allocation(saved: dict[str, Any] | None) -> Allocation | None:
    if saved is None:
        return None
    arguments = dict(saved)
    return _ALLOCATIONS[arguments.pop("type")](**arguments)


def _restore_denoiser(
    folder: Path, saved: dict[str, Any], classes: np.ndarray, device: torch.device
) -> LateConditionedDenoiser:
    tensors = load_file(folder / "denoiser.safetensors")
    mean, scale = tensors.pop("mean"), tensors.pop("scale")
    network = build(saved["network"])
    network.load_state_dict({name: torch.from_numpy(value).float() for name, value in tensors.items()})
    return LateConditionedDenoiser(network, classes, mean, scale, getattr(torch, saved["dtype"]), device)


def _restore_calibration(saved: dict[str, Any]) -> Calibration:
    weighting = None if saved["weighting"] is None else BinnedWeights(np.array(saved["weighting"]))
    return Calibration(Fusion(**saved["fusion"]), weighting, TellingOrder(np.array(saved["order"])), saved["n_images"])


def _load_skops(path: Path, trusted: Sequence[str]) -> Any:
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=path)) - set(trusted))
    except (OSError, ValueError, KeyError) as error:
        raise SavedModelError(f"{path} cannot be read: {error}") from error
    if unknown:
        raise SavedModelError(
            f"{path} holds objects of types that are not known to be safe: {unknown}; "
            f"if you trust where it comes from, load it with trusted={unknown}"
        )
    return skops.io.load(path, trusted=list(trusted))
