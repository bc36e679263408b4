"""Class-conditional pipelines of diffusers as denoisers: DiT, and U-Nets on pixels or latents."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hybridclf.denoising.weighting import Weighting, uniform_weights, velocity_weights
from hybridclf.errors import InvalidInputError, UnknownLabelError, UnknownSpecError
from hybridclf.ports import Condition, Label

from ._checks import same_twice
from ._diffusers_base import DiffusersDenoiser
from ._diffusers_schedule import Schedule, flow_schedule, is_flow
from ._imagenet import imagenet, named

__all__ = ["ClassDenoiser", "ConsistencyUNet", "DiT", "LatentUNet", "PixelUNet", "VarianceDiT"]


class ClassDenoiser(DiffusersDenoiser):
    """Denoiser conditioned on the classes of its training set, which labels give by name or by number.

    The names are `id2label` in `model_index.json` or in the network's config.
    """

    takes_prompts: ClassVar[bool] = False

    n_classes: int
    """Number of classes, without the one that stands for no class."""

    def __init__(self, pipe: Any, *args: Any) -> None:
        super().__init__(pipe, *args)
        given = pipe.config.get("id2label") or self.network.config.get("id2label") or {}
        # JSON has turned the numbers into texts
        own = {int(number): name for number, name in given.items()} or _names(getattr(pipe, "labels", {}))
        self.n_classes = self._count(own)
        unnamed = not own and self.n_classes == 1000  # `save_pretrained` leaves ImageNet's names out
        _, self._numbers = imagenet() if unnamed else named(own)

    @property
    def weighting(self) -> Weighting:
        """Weights of errors in ε that are uniform in what the network predicts: ε, or the velocity of a flow."""
        return velocity_weights if self.schedule.prediction == "flow" else uniform_weights

    def condition(self, labels: Sequence[Label]) -> Condition:
        """Look up the class numbers `[L]` of labels, which are numbers or names in the pipeline's `id2label`.

        A model of ImageNet's classes also takes their WordNet ids, and all names that a timm model of them takes.

        Raises
        ------
        UnknownLabelError
            For an unknown label, or a name that several classes share.
        InvalidInputError
            For two names of one class.
        """
        numbers = [self.number(label) for label in labels]
        same = same_twice(numbers)
        if same:
            i, j = same
            raise InvalidInputError(
                f"labels {labels[i]!r} and {labels[j]!r} are both class {numbers[i]}; leave one out"
            )
        return {"class": torch.tensor(numbers, device=self.device)}

    def number(self, label: Label) -> int:
        """Class number of a label.

        Raises
        ------
        UnknownLabelError
            For an unknown label, or a name that several classes share.
        """
        if isinstance(label, int | np.integer) and 0 <= label < self.n_classes:
            return int(label)
        numbers = self._numbers.get(label, []) if isinstance(label, str) else []
        if len(numbers) == 1:
            return numbers[0]
        if numbers:
            raise UnknownLabelError(f"{label!r} names the classes {numbers}; give one of these numbers instead")
        close = get_close_matches(str(label), self._numbers, n=3, cutoff=0.5)
        names = "class names and " if self._numbers else ""
        raise UnknownLabelError(
            f"the denoiser does not know {label!r}; it knows {names}the numbers 0 to {self.n_classes - 1}"
            + (f"; did you mean {' or '.join(map(repr, close))}?" if close else "")
        )

    def rows_of(self, table: str, labels: Sequence[Label]) -> list[int]:
        """Class numbers of labels, sorted; every embedding table of the network has a row per class."""
        return sorted(self.number(label) for label in labels)

    def unconditional(self) -> Condition:
        """Condition `[1]` of no class, with which the model was trained a part of the time."""
        return {"class": torch.tensor([self.n_classes], device=self.device)}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the network; output channels beyond those of x0 are a learned variance."""
        return self.network(x, timestep=timestep, class_labels=condition["class"], return_dict=False)[0]

    def _schedule(self) -> Schedule:
        """Schedule of a diffusion model or, as SiT's (arXiv 2401.08740), of a flow, with no shift but its config's."""
        scheduler = self.pipe.scheduler
        return flow_schedule(scheduler, 0.0) if is_flow(scheduler) else super()._schedule()

    @abstractmethod
    def _count(self, names: Mapping[int, str]) -> int:
        """Number of classes of the network, of which `names` are known."""


class DiT(ClassDenoiser):
    """DiT, a transformer on latents, or a flow of the same network such as SiT (arXiv 2401.08740)."""

    @classmethod
    def for_pipeline(cls, pipe: Any) -> type[DiffusersDenoiser]:
        """`VarianceDiT` if the network has learned the variance of a diffusion, else this class."""
        config = pipe.transformer.config
        learned = config.out_channels == 2 * config.in_channels and not is_flow(pipe.scheduler)
        return VarianceDiT if learned else cls

    def sampler_inputs(self, labels: Sequence[Label], seeds: Sequence[int]) -> dict[str, Any]:
        """A class number per image.

        Raises
        ------
        InvalidInputError
            For a model of other than 1,000 classes, as diffusers' sampler takes 1000 for no class.
        """
        if self.n_classes != 1000:
            raise InvalidInputError(
                f"diffusers samples from DiT models of 1,000 classes only, and this one has {self.n_classes}; sample "
                "from it by a loop of your own"
            )
        return {"class_labels": [self.number(label) for label in labels]}

    def _count(self, names: Mapping[int, str]) -> int:
        return self.network.config.num_embeds_ada_norm


class VarianceDiT(DiT):
    """DiT that has learned its variance, as the published ones have."""

    def predict_variance(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predict the noise and the log-variance of p(x_{t-1} | x_t), each `[E, *shape]`; arguments as in `predict`.

        References
        ----------
        Equation 15 of arXiv 2102.09672.
        """
        noise, variance = self._predict(x_t, t, row, condition)
        index = self.schedule.index(t)[row]
        low, high = (bound[index].view(-1, 1, 1, 1) for bound in self.schedule.log_variance_bounds())
        fraction = (variance + 1) / 2  # from [-1, 1], the network's range, to v in [0, 1]
        return noise, fraction * high + (1 - fraction) * low

    def previous_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (α, σ) `[R]` one step before time t; (1, 0) before the first."""
        index = self.schedule.index(t)
        alpha, sigma = self.schedule.before()
        return alpha[index], sigma[index]


class UNet(ClassDenoiser):
    """U-Net with an embedding of class numbers (`UNet2DModel` with `num_class_embeds`).

    A network with one class more than it has names learned with the last one what no class is.
    """

    def __init__(self, pipe: Any, *args: Any) -> None:
        config = pipe.unet.config
        if config.get("num_class_embeds") is None or config.get("class_embed_type") is not None:
            raise UnknownSpecError(
                f"the U-Net of {pipe.name_or_path or type(pipe).__name__!r} is not conditioned on class numbers (its "
                f"num_class_embeds is {config.get('num_class_embeds')}, its class_embed_type "
                f"{config.get('class_embed_type')}), so that it cannot tell labels apart; train one with "
                "UNet2DModel(num_class_embeds=…)"
            )
        super().__init__(pipe, *args)

    @property
    def patch(self) -> int:
        """Edge in latents that the U-Net's innermost blocks see as one position."""
        return 2 ** (len(self.network.config.down_block_types) - 1)

    def unconditional(self) -> Condition:
        """Condition `[1]` of no class.

        Raises
        ------
        InvalidInputError
            If the network has a name for each of its classes, or none at all.
        """
        if self.n_classes == self.network.config.num_class_embeds:
            raise InvalidInputError(
                "the U-Net has not learned what no class is: that would be one class more than there are names in "
                "id2label of model_index.json"
            )
        return super().unconditional()

    def sampler_inputs(self, labels: Sequence[Label], seeds: Sequence[int]) -> dict[str, Any]:
        """The number of images: most samplers of U-Nets know no classes, and `generate` adds them.

        Raises
        ------
        InvalidInputError
            For a scheduler that wants the network's input scaled, which these samplers do not.
        """
        if hasattr(self.pipe.scheduler, "precondition_outputs"):
            raise InvalidInputError(
                f"diffusers samples from no class-conditional U-Net with a {type(self.pipe.scheduler).__name__}; "
                "sample from it by a loop of your own"
            )
        return {"batch_size": len(labels)}

    def generate(self, labels: Sequence[Label], seeds: Sequence[int]) -> list[Image.Image]:
        """Generate an image of each of B labels with the pipeline's own sampler and its default settings.

        The arguments are those of the base class.
        """
        numbers = torch.tensor([self.number(label) for label in labels], device=self.device)
        hook = self.network.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"class_labels": numbers}), with_kwargs=True
        )
        try:
            return super().generate(labels, seeds)
        finally:
            hook.remove()

    def _count(self, names: Mapping[int, str]) -> int:
        n: int = self.network.config.num_class_embeds
        return n - 1 if len(names) == n - 1 else n


class PixelUNet(UNet):
    """Class-conditional U-Net on RGB or grey pixels, as `DDPMPipeline` and `DDIMPipeline` save it."""

    def __init__(self, pipe: Any, *args: Any) -> None:
        channels = pipe.unet.config.in_channels
        if channels not in (1, 3):
            raise UnknownSpecError(
                f"the U-Net of {pipe.name_or_path or type(pipe).__name__!r} has {channels} channels and no VAE; pixels "
                "are RGB or grey, and a U-Net of latents is saved with its VAE as an LDMPipeline"
            )
        self.mode = "L" if channels == 1 else "RGB"
        super().__init__(pipe, *args)

    @property
    def pixels_per_latent(self) -> int:
        """One, as there is no VAE."""
        return 1

    def _encode(self, image: Tensor) -> Tensor:
        return image

    def _decode(self, x0: Tensor) -> Tensor:
        return x0


class ConsistencyUNet(PixelUNet):
    """Class-conditional consistency model, whose network predicts the end of a sampler's path from each of its levels.

    That end is not the mean over all clean images, as a denoiser's prediction is.
    """

    def sampler_inputs(self, labels: Sequence[Label], seeds: Sequence[int]) -> dict[str, Any]:
        """A class number per image."""
        return {"class_labels": [self.number(label) for label in labels], "batch_size": len(labels)}


class LatentUNet(UNet):
    """Class-conditional U-Net on the latents of a VQ-VAE or VAE, as `LDMPipeline` saves it."""

    @property
    def vae(self) -> Any:
        """The pipeline's autoencoder."""
        return self.pipe.vqvae


def _names(labels: Mapping[str, int]) -> dict[int, str]:
    """Invert a pipeline's class numbers by name: the names of each class, joined by commas."""
    names: dict[int, list[str]] = {}
    for name, number in labels.items():
        names.setdefault(number, []).append(name)
    return {number: ", ".join(synonyms) for number, synonyms in names.items()}
