"""hybridclf classifiers as timm models."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from timm.models import resolve_pretrained_cfg
from torch import Tensor, nn

import hybridclf  # its estimator is imported when a model is made, not when this is
from hybridclf.errors import InvalidInputError, InvalidTypeError
from hybridclf.proposer import log_proba

__all__ = ["HybridModel", "model_config", "networks_of"]

ROUNDING = 0.01
"""Largest distance from whole numbers of an 8-bit image's pixels after normalisation in float32."""

NO_GRAPH = (
    "how much a hybridclf model computes depends on the images, so that it is no graph: it cannot be traced, scripted "
    "or exported; call it as it is (torch.compile leaves it so), or serve it by 'hybridclf serve'"
)
"""Message of a refusal to be traced, scripted or exported."""

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow converts
_ANY_SIZE = (224, 224, 3)


class HybridModel(nn.Module):
    """timm model of a fitted classifier, from normalised images to log-posteriors.

    The networks of both tiers are submodules that are shared with the classifier: `to` and `state_dict` reach them.
    They stay in evaluation, so `train` and `eval` change no answer. Nothing is differentiable, and there is no graph:
    `torch.compile` leaves the model as it is, and tracing, scripting, exporting and training are refused. The features
    are the log-posteriors, as the two tiers share no others, and the head is the identity.

    Parameters
    ----------
    estimator : classifier
        Fitted classifier.
    pretrained_cfg : dict
        timm's configuration, as by `model_config`: input size, mean and standard deviation.
    in_chans : int, optional
        3 for RGB input to a classifier of grey images. Default: the classifier's own channels.

    Attributes
    ----------
    estimator : classifier
        The classifier.
    num_classes, num_features, in_chans : int
        Number of classes, of features (the same) and of channels.
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
            self.add_module(name, nn.ModuleDict(networks_of(tier)))
        self.head = nn.Identity()
        self.eval()

    @classmethod
    def from_estimator(cls, estimator: Any, **pretrained_cfg: Any) -> Self:
        """Wrap a fitted classifier.

        Parameters
        ----------
        estimator : HybridClassifier or any scikit-learn classifier
            Classifier fitted on images; scikit-learn's on flattened ones `[n, H·W·C]`.
        **pretrained_cfg
            Entries of timm's configuration, such as `mean` and `std`. `input_size=(C, H, W)` is required if the
            classifier has no image shape.

        Returns
        -------
        HybridModel

        Raises
        ------
        InvalidTypeError
            For anything but a fitted classifier.
        InvalidInputError
            If it was fitted on vectors and there is no `input_size`.
        """
        if not hasattr(estimator, "classes_"):
            raise InvalidTypeError(f"a fitted classifier is needed, got {estimator!r}")
        config = model_config(getattr(estimator, "image_shape_", ()), estimator.classes_.tolist(), **pretrained_cfg)
        return cls(estimator, resolve_pretrained_cfg("hybridclf", config).to_dict())

    @torch.compiler.disable(reason=NO_GRAPH)
    def forward(self, x: Tensor) -> Tensor:
        """Compute log-posteriors, in the order of `estimator.classes_`.

        Parameters
        ----------
        x : Tensor `[B, C, H, W]`
            Images, normalised by the mean and standard deviation of `pretrained_cfg`. A model of grey images takes RGB
            too.

        Returns
        -------
        float32 Tensor `[B, num_classes]`

        Raises
        ------
        InvalidInputError
            For another shape, or if a graph or gradients are requested.
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
        """Compute the features `[B, num_features]`, the log-posteriors; parameters and errors as in `forward`."""
        return self.forward(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Compute the log-posteriors of features, which are the same."""
        return self.head(x)

    def get_classifier(self) -> nn.Module:
        """Head of the model, the identity."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Keep the classes, as a fitted classifier has no others.

        Raises
        ------
        InvalidInputError
            For another number of classes, or a kind of pooling.
        """
        if num_classes != self.num_classes or global_pool:
            raise InvalidInputError(
                f"the model decides among the {self.num_classes} classes that it was fitted on, got "
                f"num_classes={num_classes}, global_pool={global_pool!r}; for others fit a HybridClassifier on them, "
                "which HybridModel.from_estimator makes a timm model"
            )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refuse gradient checkpointing, as the model has no gradients.

        Raises
        ------
        InvalidInputError
            If `enable` is true.
        """
        if enable:
            raise _untrainable("gradients of the model have no checkpoints")

    def train(self, mode: bool = True) -> Self:
        """Set `training` of this module alone; its networks stay in evaluation."""
        super().train(False)
        self.training = mode
        return self

    def __prepare_scriptable__(self) -> Self:
        """Refuse torch.jit.script, as there is no graph."""
        raise InvalidInputError(NO_GRAPH)

    def _check_use(self, x: Any) -> None:
        """Refuse tracing, exporting, training and differentiation."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or not isinstance(x, Tensor):
            raise InvalidInputError(NO_GRAPH)
        if torch.is_grad_enabled() and (self.training or x.requires_grad):
            raise _untrainable("gradients are asked for, of a model that has none")

    def _images(self, x: Tensor) -> np.ndarray:
        """Convert normalised images `[B, C, H, W]` to `[B, H, W, C]` in the range that the classifier was fitted on."""
        channels, *size = self.pretrained_cfg["input_size"]
        # timm's own scripts feed RGB
        grey_from_rgb = x.ndim == 4 and channels == 1 and x.shape[1] == 3
        fits = x.ndim == 4 and (x.shape[1] == channels or grey_from_rgb)
        if not fits or (self.pretrained_cfg.get("fixed_input_size") and list(x.shape[2:]) != size):
            raise InvalidInputError(f"expected a batch [B, {channels}, {size[0]}, {size[1]}], got {list(x.shape)}")
        mean, std = (np.array(self.pretrained_cfg[name]) for name in ("mean", "std"))
        try:
            normalised = x.detach().cpu().double().permute(0, 2, 3, 1).numpy()
        except RuntimeError as error:  # a tensor without values, on the device "meta" or in torch's tracing
            raise InvalidInputError(NO_GRAPH) from error
        # the inverse of timm's normalisation
        values = normalised * std + mean
        return self._in_range((values @ _GREY)[..., None] if grey_from_rgb else values)

    def _in_range(self, values: np.ndarray) -> np.ndarray:
        """Scale values in [0, 1] to the classifier's range; pixels of 8 bits are recovered exactly."""
        low, high = getattr(self.estimator, "pixel_range_", None) or (0.0, 255.0)
        if (low, high) != (0.0, 255.0):
            return low + values * (high - low)
        pixels = (255 * values).round().clip(0, 255)
        # uint8 wherever the pixels are 8-bit: tiers of images read them as the file's
        if self._needs_pixels or bool(np.all(abs(pixels - 255 * values) < ROUNDING)):
            return pixels.astype(np.uint8)
        return 255 * values

    @property
    def _needs_pixels(self) -> bool:
        """True if a tier takes images only, not arrays of other numbers."""
        any_size = getattr(self.estimator, "image_shape_", ()) is None
        return any_size or any(getattr(tier, "takes_images", False) for tier in self._tiers)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the networks, and update the tiers' device and type."""
        super()._apply(fn, recurse)
        for tier in self._tiers:
            if networks_of(tier):
                _follow(tier, fn)
        return self


def _untrainable(what: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what}; call model.eval(), or use torch.inference_mode(), to predict, and to train a pair type 'hybridclf "
        "train' or fit a HybridClassifier"
    )


def networks_of(tier: Any) -> dict[str, nn.Module]:
    """Find the networks of a tier: in its `networks`, or else among its attributes."""
    listed = getattr(tier, "networks", None)
    held = listed if isinstance(listed, Mapping) else getattr(tier, "__dict__", {})
    return {name: value for name, value in held.items() if isinstance(value, nn.Module)}


def _follow(tier: Any, fn: Callable[[Tensor], Tensor]) -> None:
    """Update a tier's `device` and `dtype` after its networks were moved or cast.

    A tier with further tensors has a method `follow(device, dtype)`.
    """
    # torch hands over a function only; an empty tensor shows what it does
    moved = fn(torch.empty(0, dtype=tier.dtype, device=tier.device))
    if hasattr(tier, "follow"):
        tier.follow(moved.device, moved.dtype)
        return
    for name in ("device", "dtype"):
        if name in vars(tier):
            setattr(tier, name, getattr(moved, name))


def model_config(shape: tuple[int, ...] | None, labels: list[Any], **more: Any) -> dict[str, Any]:
    """Make timm's configuration of a classifier.

    Parameters
    ----------
    shape : (H, W, C), other tuple or None
        Shape of its images; None for any size. Any other tuple requires an `input_size` among `more`.
    labels : list `[num_classes]`
        Labels of the outputs.
    **more
        Further entries, which take precedence.

    Returns
    -------
    dict

    Raises
    ------
    InvalidInputError
        If the input size is missing.
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
