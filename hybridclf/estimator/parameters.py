"""Parameters of `HybridClassifier`: the constructor, reading and setting by name, cloning, and metadata of `fit`."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import MetadataRouter

from ..errors import InvalidInputError
from ..fitting.guarantee import Guarantee
from ..fitting.routing import router_of
from ..proposer import accepts_gaps, default_proposer
from ..reranking.allocation import Allocation, Race
from ..utils.names import Prompts

__all__ = ["HasParameters"]


class HasParameters(ClassifierMixin, BaseEstimator):
    """Parameters of `HybridClassifier`, whose docstring explains them; scikit-learn's conventions for them."""

    guarantee_: Guarantee | None  # of `calibrate`; here, as `set_params` ends it

    _tiers_set: frozenset[str] = frozenset()
    """Tiers that `set_params` has changed since the last `fit`."""

    __metadata_request__fit: ClassVar[dict[str, bool | None]] = {"sample_weight": None, "groups": True}

    def __init__(
        self,
        proposer: Any = None,
        denoiser: Any = None,
        *,
        top_k: int | None = None,
        prompts: Prompts | None = None,
        allocation: Allocation | None = None,
        objective: str = "l2",
        weighting: str = "learned",
        image_shape: tuple[int, ...] | None = None,
        architecture: str = "auto",
        cv: Any = 3,
        max_iter: int = 150,
        learning_rate: float = 2e-3,
        wrong_class_weight: float = 1.0,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 30,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        n_jobs: int | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        dtype: str | None = None,
        reject: float | None = None,
        novel_label: str | float | None = None,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.proposer = proposer
        self.denoiser = denoiser
        self.top_k = top_k
        self.prompts = prompts
        self.allocation = allocation
        self.objective = objective
        self.weighting = weighting
        self.image_shape = image_shape
        self.architecture = architecture
        self.cv = cv
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.wrong_class_weight = wrong_class_weight
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.n_jobs = n_jobs
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype
        self.reject = reject
        self.novel_label = novel_label
        self.verbose = verbose
        self.random_state = random_state

    def get_metadata_routing(self) -> MetadataRouter:
        """Routing of `fit`'s arguments beside X and y, for scikit-learn."""
        return router_of(self)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; if deep, with the proposer's and the allocation's, as in `proposer__C`."""
        params = super().get_params(deep=deep)
        if deep:
            if is_dataclass(self._race()):
                params |= {f"allocation__{k}": v for k, v in asdict(self._race()).items()}
            if self.proposer is None:
                params |= {f"proposer__{k}": v for k, v in default_proposer()[-1].get_params().items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, also nested ones such as `allocation__confidence` and `proposer__C`.

        Of a fitted classifier `allocation`, `top_k`, `batch_size`, `reject`, `novel_label` and `verbose` take effect at
        once, the others with the next `fit`; until then a new tier can be neither calibrated nor saved.

        Raises
        ------
        InvalidInputError
            For a parameter that the allocation does not have.
        ValueError
            From scikit-learn, for any other name that there is not.
        """
        before = self.proposer, self.denoiser
        of_race = _pop_nested(params, "allocation")
        of_default = _pop_nested(params, "proposer") if _is_default(params.get("proposer", self.proposer)) else {}
        super().set_params(**params)
        if of_race:
            known = asdict(self._race())
            if unknown := sorted(of_race.keys() - known.keys()):
                raise InvalidInputError(f"{self._race()!r} has no {unknown[0]!r}; it has {', '.join(known)}")
            # None stays where nothing changes: uncalibrated, it stands for another allocation
            if (race := replace(self._race(), **of_race)) != self._race():
                self.allocation = race
        if of_default:
            proposer = default_proposer() if self.proposer is None else self.proposer
            # short names are the classifier's; of a pipeline that was given, its own names go first
            own = {} if self.proposer is None else proposer.get_params()
            for key, value in of_default.items():
                (proposer if "__" in key or key in own else proposer[-1]).set_params(**{key: value})
            if repr(proposer) != repr(default_proposer()):
                self.proposer = proposer
        if hasattr(self, "classes_"):
            now = {"proposer": self.proposer, "denoiser": self.denoiser}
            changed = {name for (name, tier), old in zip(now.items(), before, strict=True) if tier is not old}
            self._tiers_set = self._tiers_set | changed
        guarantee = getattr(self, "guarantee_", None)
        if guarantee is not None and (guarantee.allocation, guarantee.top_k) != (self._race(), self.top_k):
            self.guarantee_ = None  # it is one of other settings
        return self

    def _race(self) -> Any:
        """The allocation; `Race()` for None."""
        return Race() if self.allocation is None else self.allocation

    def __sklearn_clone__(self) -> Self:
        """An unfitted copy; a denoiser or function that was given is shared, as nothing changes it."""
        params = super().get_params(deep=False)
        shared = {"denoiser": params.pop("denoiser")}
        if not any(hasattr(self.proposer, name) for name in ("fit", "get_params", "__sklearn_clone__")):
            shared["proposer"] = params.pop("proposer")
        other = type(self)(**shared, **{name: clone(value, safe=False) for name, value in params.items()})
        if hasattr(self, "_metadata_request"):
            other._metadata_request = copy.deepcopy(self._metadata_request)
        return other

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = accepts_gaps(self.proposer)
        return tags


def _is_default(proposer: Any) -> bool:
    """True for None, and for the default pipeline with whatever parameters, whose classifier's have short names."""
    steps = [(name, type(step)) for name, step in getattr(proposer, "steps", ())]
    return proposer is None or steps == [(name, type(step)) for name, step in default_proposer().steps]


def _pop_nested(params: dict[str, Any], name: str) -> dict[str, Any]:
    """Take the parameters out that belong to the named one, by their own names."""
    prefix = f"{name}__"
    return {key.removeprefix(prefix): params.pop(key) for key in list(params) if key.startswith(prefix)}
