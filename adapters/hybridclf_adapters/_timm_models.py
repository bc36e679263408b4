"""hybridclf classifiers as timm models; importing this registers every embedded pair, once."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import timm
import torch
from timm.models import generate_default_cfgs, register_model, resolve_pretrained_cfg
from torch import Tensor, nn

import hybridclf  # its estimator is imported when a model is made, not when this is
from hybridclf.errors import InvalidInputError, InvalidTypeError
from hybridclf.models import LateConditionedDenoiser, build
from hybridclf.pretrained.catalog import roots
from hybridclf.proposer import log_proba

__all__ = ["HybridModel", "default_cfgs", "register", "register_folders"]

default_cfgs: dict[str, Any] = {}
"""What timm's registry reads when a model is registered: configurations by name."""

ROUNDING = 0.01
"""How far from whole numbers normalisation in float32 may leave the pixels of an 8-bit image."""

NO_GRAPH = (
    "how much a hybridclf model computes depends on the images, so that it is no graph: it cannot be traced, scripted "
    "or exported; call it as it is (torch.compile leaves it so), or serve it by 'hybridclf serve'"
)
"""Why it is refused where torch wants a graph."""

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow converts
_ANY_SIZE = (224, 224, 3)


class HybridModel(nn.Module):
    """A fitted classifier as a timm model: normalised images in, log-posteriors out.

    Networks found in the two tiers are submodules: `to` and `state_dict` reach them, and they are shared with the
    classifier. They stay in inference: `train` and `eval` change no answer. Nothing is differentiable, and there is no
    graph: `torch.compile` leaves the model as it is, and tracing, scripting, exporting and training are refused. Its
    features are its log-posteriors, for two tiers have no others in common; its head is the identity.

    Parameters
    ----------
    estimator : classifier
        Fitted.
    pretrained_cfg : dict
        timm's configuration of it, as `model_config` makes it: input size, mean and standard deviation.
    in_chans : int, optional
        3 to be fed RGB where the classifier takes grey images; default: as the classifier takes them.

    Attributes
    ----------
    estimator : classifier
        What answers.
    num_classes, num_features, in_chans : int
        Classes, as many features, and channels.
    pretrained_cfg, default_cfg : dict
        The configuration, under both of timm's names.
    """

    def __init__(self, estimator: Any, pretrained_cfg: dict[str, Any], in_chans: int | None = None) -> None:
        super().__init__()
        self.estimator = estimator
        self.pretrained_cfg = self.default_cfg = pretrained_cfg
        self.num_classes = self.num_features = self.head_hidden_size = len(estimator.classes_)
        self.in_chans = in_chans or pretrained_cfg["input_size"][0]
        self._tiers = [getattr(estimator, name) for name in ("proposer_", "denoiser_") if hasattr(estimator, name)]
        for name, tier in zip(("proposer", "denoiser"), self._tiers, strict=False):
            self.add_module(name, nn.ModuleDict(_networks(tier)))
        self.head = nn.Identity()
        self.eval()

    @classmethod
    def from_estimator(cls, estimator: Any, **pretrained_cfg: Any) -> Self:
        """Wrap a fitted classifier.

        Parameters
        ----------
        estimator : HybridClassifier or any scikit-learn classifier
            Fitted on images; the latter on flattened ones `[n, H·W·C]`.
        **pretrained_cfg
            Entries of timm's configuration, such as `mean` and `std`; `input_size=(C, H, W)` is needed where the
            classifier does not say it.

        Raises
        ------
        InvalidTypeError
            For what is no fitted classifier.
        InvalidInputError
            If it was fitted on vectors and there is no `input_size`.
        """
        if not hasattr(estimator, "classes_"):
            raise InvalidTypeError(f"a fitted classifier is needed, got {estimator!r}")
        config = model_config(getattr(estimator, "image_shape_", ()), estimator.classes_.tolist(), **pretrained_cfg)
        return cls(estimator, resolve_pretrained_cfg("hybridclf", config).to_dict())

    @torch.compiler.disable(reason=NO_GRAPH)
    def forward(self, x: Tensor) -> Tensor:
        """Log-posteriors float32 `[B, num_classes]`, in the order of `estimator.classes_`.

        Parameters
        ----------
        x : Tensor `[B, C, H, W]`
            Images, normalised by the mean and standard deviation of `pretrained_cfg`; a model of grey images takes RGB
            too.

        Raises
        ------
        InvalidInputError
            For another shape, and where a graph or gradients are asked for.
        """
        self._check_use(x)
        with torch.no_grad():
            images = self._images(x)
            if isinstance(self.estimator, hybridclf.HybridClassifier):
                values = self.estimator.predict_log_proba(images)
            else:
                values = log_proba(self.estimator, images.reshape(len(images), -1))
        return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(x.device)

    def forward_features(self, x: Tensor) -> Tensor:
        """The features `[B, num_features]`, which are the log-posteriors; parameters and errors as for `forward`."""
        return self.forward(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Log-posteriors of features, which are the same."""
        return self.head(x)

    def get_classifier(self) -> nn.Module:
        """The head: the identity."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Keep the classes; others cannot be had.

        Raises
        ------
        InvalidInputError
            For another number of them, or a kind of pooling.
        """
        if num_classes != self.num_classes or global_pool:
            raise InvalidInputError(
                f"the model decides among the {self.num_classes} classes that it was fitted on, got "
                f"num_classes={num_classes}, global_pool={global_pool!r}; for others fit a HybridClassifier on them, "
                "which HybridModel.from_estimator makes a timm model"
            )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse what is for training.

        Raises
        ------
        InvalidInputError
            Unless it is to be off.
        """
        if enable:
            raise _untrainable("gradients of the model have no checkpoints")

    def train(self, mode: bool = True) -> Self:
        """Set `training`, of this module alone: its networks stay in inference."""
        super().train(False)
        self.training = mode
        return self

    def __prepare_scriptable__(self) -> Self:
        """Tell torch.jit.script that this is no graph."""
        raise InvalidInputError(NO_GRAPH)

    def _check_use(self, x: Any) -> None:
        """Refuse to be traced or exported, and to be trained or differentiated."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or not isinstance(x, Tensor):
            raise InvalidInputError(NO_GRAPH)
        if torch.is_grad_enabled() and (self.training or x.requires_grad):
            raise _untrainable("gradients are asked for, of a model that has none")

    def _images(self, x: Tensor) -> np.ndarray:
        """Images `[B, H, W, C]` in the range that the classifier was fitted on, from normalised ones `[B, C, H, W]`."""
        channels, *size = self.pretrained_cfg["input_size"]
        grey_from_rgb = x.ndim == 4 and channels == 1 and x.shape[1] == 3
        fits = x.ndim == 4 and (x.shape[1] == channels or grey_from_rgb)
        if not fits or (self.pretrained_cfg.get("fixed_input_size") and list(x.shape[2:]) != size):
            raise InvalidInputError(f"expected a batch [B, {channels}, {size[0]}, {size[1]}], got {list(x.shape)}")
        mean, std = (np.array(self.pretrained_cfg[name]) for name in ("mean", "std"))
        try:
            normalised = x.detach().cpu().double().permute(0, 2, 3, 1).numpy()
        except RuntimeError as error:  # a tensor without values, of the device "meta" or of torch's own tracing
            raise InvalidInputError(NO_GRAPH) from error
        values = normalised * std + mean
        return self._in_range((values @ _GREY)[..., None] if grey_from_rgb else values)

    def _in_range(self, values: np.ndarray) -> np.ndarray:
        """Values in [0, 1] in the classifier's range; 8-bit pixels exactly as the file had them."""
        low, high = getattr(self.estimator, "pixel_range_", None) or (0.0, 255.0)
        if (low, high) != (0.0, 255.0):
            return low + values * (high - low)
        pixels = (255 * values).round().clip(0, 255)
        if self._needs_pixels or bool(np.all(abs(pixels - 255 * values) < ROUNDING)):
            return pixels.astype(np.uint8)
        return 255 * values

    @property
    def _needs_pixels(self) -> bool:
        """Whether a tier takes images and no other numbers."""
        any_size = getattr(self.estimator, "image_shape_", ()) is None
        return any_size or any(getattr(tier, "takes_images", False) for tier in self._tiers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the networks, and tell the tiers where they are now."""
        super()._apply(fn, recurse)
        for tier in self._tiers:
            if _networks(tier):
                _follow(tier, fn)
        return self


def _untrainable(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what}; call model.eval(), or use torch.inference_mode(), to predict, and to train a pair type 'hybridclf "
        "train' or fit a HybridClassifier"
    )


def _networks(tier: Any) -> dict[str, nn.Module]:
    """Networks that a tier holds: those that it lists as its `networks`, or else its attributes."""
    listed = getattr(tier, "networks", None)
    held = listed if isinstance(listed, Mapping) else getattr(tier, "__dict__", {})
    return {name: value for name, value in held.items() if isinstance(value, nn.Module)}


def _follow(tier: Any, fn: Callable[[Tensor], Tensor]) -> None:
    """Move or cast a tier's `device` and `dtype` with its networks, where they are attributes of their own.

    A tier with more to move than these has a method `follow(device, dtype)`.
    """
    moved = fn(torch.empty(0, dtype=tier.dtype, device=tier.device))
    if hasattr(tier, "follow"):
        tier.follow(moved.device, moved.dtype)
        return
    for name in ("device", "dtype"):
        if name in vars(tier):
            setattr(tier, name, getattr(moved, name))


def model_config(shape: tuple[int, ...] | None, labels: list[Any], **more: Any) -> dict[str, Any]:
    """timm's configuration of a classifier.

    Parameters
    ----------
    shape : (H, W, C), other tuple or None
        Of its images; None for any size. Anything else needs an `input_size` among `more`.
    labels : list `[num_classes]`
        What its outputs stand for.
    **more
        Further entries, and other values of these.

    Raises
    ------
    InvalidInputError
        If the input size stays open.
    """
    height, width, channels = _ANY_SIZE if shape is None else shape if len(shape) == 3 else (0, 0, 0)
    if not channels and "input_size" not in more:
        raise InvalidInputError("the classifier does not say the size of its images; give input_size=(C, H, W)")
    channels = more.get("input_size", (channels,))[0]
    config = {
        "input_size": (channels, height, width),
        "fixed_input_size": shape is not None,
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": (0.5,) * channels,
        "std": (0.5,) * channels,
        "num_classes": len(labels),
        "label_names": tuple(map(str, labels)),
    }
    return config | more


def register(name: str, folder: str | Path) -> None:
    """Register the classifier that `HybridClassifier.save` wrote into a folder as a timm model.

    Parameters
    ----------
    name : str
        What `timm.create_model` shall call it.
    folder : path
        The saved model; it is read when the model is created.

    Raises
    ------
    InvalidInputError
        If timm has a model of that name, or the saved one is none of images.
    """
    if timm.is_model(name):
        raise InvalidInputError(f"timm has a model {name!r} already; register {folder} under another name")
    saved = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    config = model_config(saved["image_shape"], saved["classes"]["values"], file=str(folder))
    default_cfgs.update(generate_default_cfgs({name: config}))
    register_model(_entrypoint(name))


def register_folders(parent: Path) -> None:
    """Register every saved classifier of images in the folders of a folder, as `hybridclf_` and the folder's name."""
    for path in sorted(parent.glob("*/model.json")):
        shape = json.loads(path.read_text(encoding="utf-8"))["image_shape"]
        if shape is None or len(shape) == 3:
            register("hybridclf_" + re.sub(r"\W", "_", path.parent.name), path.parent)


def _entrypoint(name: str) -> Callable[..., HybridModel]:
    """The function that timm calls to create a model of that name."""

    def create(
        pretrained: bool = False,
        pretrained_cfg: dict[str, Any] | str | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: Any = None,
        **kwargs: Any,
    ) -> HybridModel:
        config = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay).to_dict()
        weights, place = (
            config.pop("state_dict", None),
            (kwargs.pop("device", None) or "cpu", kwargs.pop("dtype", None)),
        )
        _check_arguments(name, config, kwargs)
        estimator = hybridclf.HybridClassifier.load(config["file"])
        if not pretrained:
            _forget(name, estimator)
        model = HybridModel(estimator, config, kwargs.get("in_chans"))
        if weights:
            model.load_state_dict(weights)
        return model.to(*place)

    create.__name__ = create.__qualname__ = name
    globals()[name] = create  # where timm expects to find it
    return create


def _check_arguments(name: str, config: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Refuse what would need another model than the trained one."""
    if config.get("source"):
        raise InvalidInputError(
            f"{name} is more than its networks, which are all that timm writes into a folder or a repository; keep it "
            "by HybridClassifier.save, and hybridclf_adapters.timm.register gives it a name"
        )
    channels, *size = config["input_size"]
    allowed = {"num_classes": [config["num_classes"]], "in_chans": [channels, 3 if channels == 1 else channels]}
    allowed["img_size"] = [tuple(size), list(size), *(size[:1] if size[0] == size[1] else [])]
    for key, value in kwargs.items():
        if value not in allowed.get(key, [None, False]):
            raise InvalidInputError(f"{name} is trained as it is and cannot be had with {key}={value!r}")


def _forget(name: str, estimator: Any) -> None:
    """Give the networks random weights, as timm models have them that are not pretrained."""
    denoiser = estimator.denoiser_
    if not isinstance(denoiser, LateConditionedDenoiser):
        raise InvalidInputError(f"{name} cannot be had without its weights; pass pretrained=True")
    denoiser.network.load_state_dict(build(denoiser.network.config).state_dict())
    for network in _networks(estimator.proposer_).values():
        for layer in network.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()


for _root in roots():
    register_folders(_root)
