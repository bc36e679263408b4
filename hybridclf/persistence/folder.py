"""Saving and loading a fitted HybridClassifier: JSON, safetensors and skops; never pickle.

The classifier hands over two plain mappings, its parameters and its fitted attributes, and gets the same two back.

A saved model is a folder: `model.json` (settings, labels, calibration), `denoiser.safetensors` (a denoiser trained by
us), and `proposer.safetensors` (the default proposer) or `proposer.skops` (another scikit-learn classifier). A tier
that came from an adapter's spec string is saved as that string and loaded through the adapter again. A spec string
whose path (the part after its last colon) starts with "./" names a tier in the folder itself, as in
"open_clip:local-dir:./clip" and "diffusers:./sd"; ".." is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from safetensors import SafetensorError
from safetensors.numpy import save as dump_tensors
from sklearn.base import BaseEstimator

from .. import __version__, plugins
from ..atomic import PART, copy_tree, make_folder, write_together
from ..data.tables import TableEncoder
from ..devices import as_device
from ..errors import InvalidInputError, SavedModelError
from ..fitting.guarantee import Guarantee
from ..fitting.resolve_tiers import check_prompts_used, loader_options
from ..fitting.validation import check_dtype, check_prompts
from ..models import LateConditionedDenoiser
from ..proposer import FunctionProposer, with_labels
from ..reranking.allocation import Allocation, FixedTrials, PairedTTest, Race, Staged
from ..reranking.fusion import Fusion
from ..reranking.novelty import UsualValues
from ..utils.names import Prompts
from .calibrations import describe_calibration, restore_calibration
from .denoisers import denoiser_weights, describe_denoiser, restore_denoiser
from .labels import describe_labels, restore_labels
from .proposers import ARRAYS, SKOPS, dump_arrays, dump_skops, load_arrays, load_skops

__all__ = ["FORMAT_VERSION", "finding_damage", "load", "read_description", "save"]

FORMAT_VERSION = 2
"""Version of the folder's layout: this one and older ones are read. In 1 the default proposer was a skops file too."""

FILES = ("denoiser.safetensors", ARRAYS, SKOPS, "model.json")
"""Files of a saved model. A tier that is a spec string has none; model.json, written last, marks it as complete."""

_ALLOCATIONS: dict[str, type[Allocation]] = {a.__name__: a for a in (FixedTrials, PairedTTest, Race, Staged)}
_PLAIN = ("n_iter_", "n_features_in_", "feature_names_in_")
"""Fitted attributes that are saved as they are."""


def save(folder: str | Path, parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> None:
    """Write a classifier's parameters and fitted attributes into a folder; see `HybridClassifier.save`."""
    folder = Path(folder)
    specs = {tier: parameters[tier] for tier in ("proposer", "denoiser") if isinstance(parameters[tier], str)}
    portable, parts = _portable(specs, folder)
    description = _describe({**parameters, **portable}, fitted)
    _check_target(folder, description)
    arrays = skops = b""
    if description["fitted_proposer"]:
        default = dump_arrays(fitted["proposer_"]) if parameters["proposer"] is None else None
        description["linear_proposer"], arrays = default or (None, b"")
        skops = b"" if default else dump_skops(fitted["proposer_"])
    text = json.dumps(description, indent=1, default=_plain)
    denoiser = b"" if isinstance(description["denoiser"], str) else dump_tensors(denoiser_weights(fitted["denoiser_"]))
    make_folder(folder)
    for part in parts:
        copy_tree(part, folder / part.name)
    write_together(folder, dict(zip(FILES, (denoiser, arrays, skops, f"{text}\n".encode()), strict=True)))


def load(
    folder: str | Path,
    trusted: Sequence[str] = (),
    prompts: Prompts | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters and the fitted attributes that `save` wrote; see `HybridClassifier.load`."""
    folder = Path(folder)
    check_prompts(prompts)
    if device is not None:
        as_device(device)  # which checks it
    saved = read_description(folder)
    check_dtype(dtype, saved.get("denoiser"))
    with finding_damage(folder):
        parameters = _parameters(folder, saved)
        parameters |= {"device": device or _here(parameters["device"]), "dtype": dtype or parameters["dtype"]}
    if prompts is not None:
        parameters["prompts"] = prompts
    named = _load_named(parameters, saved)
    with finding_damage(folder):
        if dtype is not None and isinstance(saved["denoiser"], dict):
            saved["denoiser"] |= {"dtype": dtype, "mixed": False}
        fitted = _tiers(folder, saved, parameters, named, trusted) | _learned(saved, parameters)
    fitted["proposer_"] = with_labels(fitted["proposer_"], fitted["classes_"])
    if parameters["proposer"] is None and not saved["default_proposer"]:
        parameters["proposer"] = fitted["proposer_"]
    if parameters["denoiser"] is None and not saved["trained_denoiser"]:
        parameters["denoiser"] = fitted["denoiser_"]
    return parameters, fitted


def _here(device: str) -> str:
    """The device, or "auto" if this machine lacks it: a model may have been saved on another machine."""
    try:
        as_device(device)
    except InvalidInputError:
        return "auto"
    return device


@contextmanager
def finding_damage(folder: str | Path) -> Iterator[None]:
    """Turn errors about a folder's content into one that says the folder is damaged."""
    try:
        yield
    except (SavedModelError, torch.OutOfMemoryError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError, SafetensorError, RuntimeError) as error:
        raise SavedModelError(f"{folder} is damaged: {error!r}; save the model again") from error


def _check_target(folder: Path, description: dict[str, Any]) -> None:
    """Check that the folder is new, empty, a saved model (or what a killed `save` left), or holds tiers of this one."""
    if not folder.exists() or (folder / "model.json").exists():
        return
    specs = [description[tier] for tier in ("proposer", "denoiser")]
    parts = {part for spec in specs if isinstance(spec, str) for part in _parts(spec)}
    parts |= {name + end for name in FILES for end in ("", PART)}
    if not folder.is_dir() or not parts.issuperset(path.name for path in folder.iterdir()):
        raise SavedModelError(f"{folder} exists and is not a saved model; give a new or empty folder")


def _parts(spec: str) -> list[str]:
    """Names of what a saved spec string has in its model's folder.

    >>> _parts("diffusers:./sd?lora=./tuned/lora.safetensors")
    ['sd', 'tuned']
    """
    return re.findall(r"[:=]\./([^/?&]+)", spec)


def _portable(specs: Mapping[str, str], folder: Path) -> tuple[dict[str, str], list[Path]]:
    """Make the tiers' spec strings portable for saving, and list the parts of another saved model that come along.

    A classifier that was loaded from one folder and is saved in another so keeps the tiers that lie in the first. Where
    one lies in the folder already, as of a tuned model, the others are named by their whole paths.
    """
    portable = {tier: plugins.portable(spec, folder) for tier, spec in specs.items()}
    parts: list[Path] = []
    if any(map(_parts, portable.values())):
        return portable, parts
    for tier, spec in portable.items():
        homes = {_home(Path(path)) for path in re.findall(r"[:=](/[^?&]+)", spec)}
        home = homes.pop() if len(homes) == 1 else None
        if home is not None:
            portable[tier] = plugins.portable(spec, home)
            parts += [home / part for part in _parts(portable[tier])]
    return portable, parts


def _home(path: Path) -> Path | None:
    """Folder of the saved model that a path lies in; None if there is none."""
    for parent in path.parents:
        with suppress(SavedModelError):
            read_description(parent)
            return parent
    return None


def _describe(parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> dict[str, Any]:
    """All of a classifier that goes into JSON."""
    parameters = dict(parameters)
    proposer, denoiser = (parameters.pop(name) for name in ("proposer", "denoiser"))
    fitted_proposer = isinstance(fitted["proposer_"], BaseEstimator)
    if not isinstance(denoiser, str) and not isinstance(fitted["denoiser_"], LateConditionedDenoiser):
        raise _unsaveable("denoiser", fitted["denoiser_"])
    if not isinstance(proposer, str) and not fitted_proposer:
        raise _unsaveable("proposer", fitted["proposer_"])
    calibration, table, usual = fitted["calibration_"], fitted["_table"], fitted["_usual"]
    return {
        "format": "hybridclf",
        "version": FORMAT_VERSION,
        "hybridclf": __version__,
        "scikit-learn": sklearn.__version__,
        "parameters": _describe_parameters(parameters),
        "proposer": proposer if isinstance(proposer, str) else None,
        "default_proposer": proposer is None,
        "fitted_proposer": fitted_proposer,
        "denoiser": denoiser if isinstance(denoiser, str) else describe_denoiser(fitted["denoiser_"]),
        "trained_denoiser": denoiser is None,
        "classes": describe_labels(fitted["classes_"]),
        "image_shape": fitted["image_shape_"],
        "pixel_range": fitted["pixel_range_"],
        "takes_arrays": fitted["_takes_arrays"],
        "table": None if table is None else table.columns,
        "usual_values": None if usual is None else {"low": usual.low, "high": usual.high},
        "seed": fitted["_seed"],
        # as fitted: parameters that were set since are for the next `fit`
        "objective": fitted["_objective"],
        "weighting": fitted["_weighting"],
        "fitted": {name: fitted[name] for name in _PLAIN if name in fitted},
        "asks_tier_2": fitted["fusion_"].pays,
        "guarantee": asdict(fitted["guarantee_"]) if fitted.get("guarantee_") else None,
        "calibration": None if calibration is None else describe_calibration(calibration, fitted["classes_"].dtype),
    }


def _describe_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as JSON can hold them; a parameter of no use after `fit` is saved as its default."""
    described = parameters | {"allocation": _describe_allocation(parameters["allocation"])}
    if not isinstance(parameters["random_state"], int | np.integer | None):
        described["random_state"] = None  # what it decided is in the seed
    if not isinstance(parameters["cv"], int | float | np.number):
        described["cv"] = 3  # a splitter has done its work
    if isinstance(parameters["class_weight"], Mapping):
        described["class_weight"] = list(parameters["class_weight"].items())  # JSON's keys are texts
    return described


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


def _plain(value: Any) -> Any:
    """numpy numbers and arrays as JSON can hold them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if callable(value):
        raise SavedModelError(f"the function {value!r} cannot be saved; prompts that are texts with {{}} can")
    raise SavedModelError(f"{value!r} cannot be saved")


def read_description(folder: Path) -> dict[str, Any]:
    """Read a saved model's `model.json`, without the files beside it.

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


def _parameters(folder: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """The saved parameters, spec strings among them."""
    parameters = {"proposer": None, "denoiser": None, **saved["parameters"]}
    parameters["allocation"] = _restore_allocation(parameters["allocation"])
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    if parameters["image_shape"] is not None:
        parameters["image_shape"] = tuple(parameters["image_shape"])
    specs = {kind: saved[kind] for kind in ("proposer", "denoiser") if isinstance(saved[kind], str)}
    return parameters | {kind: plugins.resolved(spec, folder) for kind, spec in specs.items()}


def _load_named(parameters: dict[str, Any], saved: dict[str, Any]) -> dict[plugins.Kind, Any]:
    """The tiers that were saved as a spec string, from their adapters, whose errors are their own."""
    kinds: list[plugins.Kind] = ["denoiser"] if saved.get("fitted_proposer") else ["proposer", "denoiser"]
    options = loader_options(parameters)
    specs = {kind: parameters[kind] for kind in kinds if isinstance(parameters[kind], str)}
    named = {kind: plugins.offer(kind, spec, options) for kind, spec in specs.items()}
    check_prompts_used(parameters, named)
    return named


def _tiers(
    folder: Path,
    saved: dict[str, Any],
    parameters: dict[str, Any],
    named: dict[plugins.Kind, Any],
    trusted: Sequence[str],
) -> dict[str, Any]:
    """Both tiers: those that were named, and those whose weights are in the folder."""
    version = saved.get("scikit-learn")
    if "proposer" in named:
        proposer = named["proposer"]
    elif linear := saved.get("linear_proposer"):
        proposer = load_arrays(folder, linear, version)
    else:
        proposer = load_skops(folder, trusted, version)
    device = as_device(parameters["device"])
    denoiser = named["denoiser"] if "denoiser" in named else restore_denoiser(folder, saved["denoiser"], device)
    return {"proposer_": proposer, "denoiser_": denoiser}


def _learned(saved: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """The fitted attributes beside the tiers."""
    plain = dict(saved["fitted"])
    if "feature_names_in_" in plain:
        plain["feature_names_in_"] = np.array(plain["feature_names_in_"], dtype=object)
    shape, values, table, usual = (saved.get(k) for k in ("image_shape", "pixel_range", "table", "usual_values"))
    calibration = None if saved["calibration"] is None else restore_calibration(saved["calibration"])
    return plain | {
        "classes_": restore_labels(saved["classes"]),
        "image_shape_": None if shape is None else tuple(shape),
        "pixel_range_": None if values is None else tuple(values),
        "calibration_": calibration,
        "fusion_": calibration.fusion if calibration else Fusion(pays=saved.get("asks_tier_2", True)),
        "worth_": calibration.worth if calibration else None,
        "guarantee_": Guarantee(**saved["guarantee"]) if saved.get("guarantee") else None,
        "_takes_arrays": saved["takes_arrays"],
        "_seed": saved["seed"],
        "_table": None if table is None else TableEncoder(table),
        "_usual": None if usual is None else UsualValues(**usual),
        "_objective": saved.get("objective", parameters["objective"]),
        "_weighting": saved.get("weighting", parameters["weighting"]),
    }


def _restore_allocation(saved: dict[str, Any] | None) -> Allocation | None:
    if saved is None:
        return None
    arguments = dict(saved)
    return _ALLOCATIONS[arguments.pop("type")](**arguments)
