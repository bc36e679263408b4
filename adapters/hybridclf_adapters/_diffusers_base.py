"""Base class of diffusers denoisers: images, noise levels, and the conversion to ε̂."""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hybridclf.devices import check_compiles, send
from hybridclf.errors import InvalidInputError, UnknownSpecError
from hybridclf.ports import Condition, Label

from ._diffusers_files import denoising_network
from ._diffusers_images import pixels
from ._diffusers_precision import casting_latents, keep_float32, upcast
from ._diffusers_schedule import Schedule, diffusion_schedule
from ._diffusers_tuning import Adaptation, adapted

__all__ = ["DiffusersDenoiser", "call_default", "channel_moments"]


class DiffusersDenoiser(ABC):
    """Denoiser port of a diffusers pipeline: one forward pass of its network per evaluation.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Loaded pipeline, on `device` and in `dtype`.
    prompts : str or sequence of str
        Prompt templates; families without a text encoder ignore them.
    resolution : int, optional
        Edge of the square images in pixels. Default: the size the network was trained on.
    dtype : torch.dtype
        Type of the network's computation.
    device : torch.device
        Device of the network.
    """

    cost_unit: Literal["row", "evaluation"] = "evaluation"
    without: ClassVar[Mapping[str, Any]] = {}
    """Keywords of `from_pretrained` that leave out the parts for generation only."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Parts that a pipeline of this family may lack."""
    mode: Literal["RGB", "L"] = "RGB"
    """Mode of the images, as Pillow names it."""
    half: ClassVar[torch.dtype] = torch.float16
    """Type of the computation on a GPU, unless another is asked for."""

    resolution: int
    shape: tuple[int, ...]
    schedule: Schedule

    def __init__(
        self,
        pipe: Any,
        prompts: str | Sequence[str],
        resolution: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.pipe, self.dtype, self.device = pipe, dtype, device
        _, self.network = denoising_network(pipe)
        _check_channels(pipe, self.network.config)
        distilled = self.network.config.get("guidance_embeds") or self.network.config.get("time_cond_proj_dim")
        self.guidance: float | None = call_default(pipe, "guidance_scale") if distilled else None
        self._set_resolution(resolution)

    @classmethod
    def for_pipeline(cls, pipe: Any) -> "type[DiffusersDenoiser]":
        """The class of a loaded pipeline's denoiser, where its family has several."""
        return cls

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks of the pipeline, by the names of its parts."""
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}

    def follow(self, device: torch.device, dtype: torch.dtype) -> None:
        """Adopt the device and type that the networks were moved or cast to from outside."""
        self.device, self.dtype = device, dtype
        self.schedule = self.schedule.to(device)
        keep_float32(self.pipe, dtype)

    def at_resolution(self, resolution: int) -> Self:
        """A copy that looks at images of another edge in pixels; it shares the networks.

        Raises
        ------
        InvalidInputError
            If the edge is no multiple of the pixels per patch of latents.
        """
        other = copy.copy(self)
        other._set_resolution(resolution)
        return other

    def with_guidance(self, guidance: float) -> Self:
        """A copy whose network, distilled from guided predictions, predicts with another guidance scale.

        It shares the networks and the cached embeddings. The default is that of the pipeline's sampler. At 1 the
        network predicts as one without guidance.

        Raises
        ------
        InvalidInputError
            If the network takes no guidance scale, or for one below 0.
        """
        if self.guidance is None:
            raise InvalidInputError(
                f"this {type(self).__name__} takes no guidance: its network was not distilled from guided predictions "
                "and has no input for the scale; leave guidance out"
            )
        if not 0 <= guidance < float("inf"):
            raise InvalidInputError(f"guidance must be a number from 0 on, got {guidance}")
        other = copy.copy(self)
        other.guidance = float(guidance)
        return other

    def adapted(self, rank: int, words_of: Sequence[Label], seed: int) -> AbstractContextManager[Adaptation]:
        """Add new parameters for tuning in a `with` block; see `hybridclf.ports.TunableDenoiser`."""
        return adapted(self, rank, words_of, seed)

    @abstractmethod
    def rows_of(self, table: str, labels: Sequence[Label]) -> list[int]:
        """Rows of labels in an embedding table that tuning may train, sorted."""

    def encode_labels(self, labels: Sequence[Label]) -> Condition:
        """Encode labels as `condition` does, with gradients if what encodes them can be trained."""
        return self.condition(labels)

    @abstractmethod
    def sampler_inputs(self, labels: Sequence[Label], seeds: Sequence[int]) -> dict[str, Any]:
        """Keywords of the pipeline's call for images of B labels."""

    @torch.inference_mode()
    def generate(self, labels: Sequence[Label], seeds: Sequence[int]) -> list[Image.Image]:
        """Generate an image of each of B labels with the pipeline's own sampler and its default settings.

        Parameters
        ----------
        labels : sequence of B labels
            Input of `condition`; labels may repeat.
        seeds : sequence of B int
            Seed of each image. Of several prompt templates it also chooses one.
        """
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        with casting_latents(self.pipe):
            images: list[Image.Image] = self.pipe(**self.sampler_inputs(labels, seeds), generator=generators).images
        return images

    def compile(self) -> None:
        """Compile the U-Net or transformer (torch.compile) for later predictions, worthwhile in jobs of many minutes.

        The first prediction then takes a minute or more longer. Half precision gains most. Errors change in their last
        digits. Copies of the denoiser are not compiled.

        Raises
        ------
        MissingDependencyError
            If this machine cannot compile.
        """
        check_compiles(self.device)
        self.network.compile()

    @abstractmethod
    def condition(self, labels: Sequence[Label]) -> Condition:
        """Encode L labels for `forward`."""

    @abstractmethod
    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Compute the network's own output for E noised images `[E, *shape]`, timesteps `[E]`, conditions `[E, …]`."""

    @property
    def vae(self) -> Any:
        """The pipeline's autoencoder; None if it has none."""
        return getattr(self.pipe, "vae", None)

    @property
    def pixels_per_latent(self) -> int:
        """Factor by which the VAE shrinks an edge of an image."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def patch(self) -> int:
        """Edge in latents of the patches that are a transformer's tokens; 1 for a U-Net."""
        return getattr(self.network.config, "patch_size", 1)

    @property
    def channels(self) -> int:
        """Number of channels of x0."""
        return self.network.config.in_channels

    def guidance_of(self, x: Tensor) -> Tensor | None:
        """Guidance scale `[E]` for E noised images, float32; None for a network that takes none."""
        return None if self.guidance is None else torch.full((len(x),), self.guidance, device=x.device)

    def guidance_embedding(self, x: Tensor) -> Tensor | None:
        """Embedding `[E, d]` of the guidance scale of a U-Net that has an input for it; None for another."""
        if self.guidance is None:
            return None
        above_one = torch.full((len(x),), self.guidance - 1)
        width = self.network.config.time_cond_proj_dim
        return send(self.pipe.get_guidance_scale_embedding(above_one, embedding_dim=width).to(x.dtype), x.device)

    def encode(self, images: Any) -> Tensor:
        """Encode images to x0 `[n, *shape]`, one by one, so that none depends on its companions.

        Raises
        ------
        InvalidInputError
            For anything but PIL images and uint8 arrays.
        """
        x0 = torch.empty(len(images), *self.shape, dtype=self.dtype, device=self.device)
        with upcast(self.vae):
            for i, image in enumerate(pixels(images, self.resolution, self.mode)):
                x0[i] = self._encode(send(image[None], self.device))[0]
        return x0

    @torch.no_grad()
    def decode(self, x0: Tensor) -> np.ndarray:
        """Decode x0 `[n, *shape]` one by one to uint8 images `[n, S, S, 3]`, or `[n, S, S]` in grey."""
        with upcast(self.vae):
            images = torch.cat([self._decode(latents[None]).float().cpu() for latents in x0])
        eight_bit = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return eight_bit[:, 0].numpy() if self.mode == "L" else eight_bit.permute(0, 2, 3, 1).numpy()

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Noise levels (α_t, σ_t) `[R]` of the scheduler, float32."""
        index = self.schedule.index(t)
        return self.schedule.alpha[index], self.schedule.sigma[index]

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Predict the noise `[E, *shape]`, converted from the network's own prediction."""
        return self._predict(x_t, t, row, condition)[0]

    def _predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predict the noise `[E, C, H, W]` and, if the network learned it, the variance `[E, 0 or C, H, W]`."""
        x_t, index = x_t[row], self.schedule.index(t)[row]  # one row per evaluation, repeated for each class
        output = self.forward(x_t.to(self.dtype), self.schedule.timestep[index], condition)
        # channels beyond those of x0 are a learned variance; most networks have none
        output, variance = output.tensor_split([self.shape[0]], dim=1)
        return self.schedule.noise(output, x_t, index), variance

    def _schedule(self) -> Schedule:
        return diffusion_schedule(self.pipe.scheduler)

    def _encode(self, image: Tensor) -> Tensor:
        """Encode an image `[1, 3, H, W]` in [-1, 1] to latents `[1, C, h, w]`, scaled as in the network's training."""
        vae = self.vae
        encoded = vae.encode(image.to(vae.dtype))
        # deterministic autoencoders have `latents` or `latent`; of a distribution, the mean, so that nothing is random
        exact = next((getattr(encoded, name) for name in ("latents", "latent") if hasattr(encoded, name)), None)
        return self._scaled(encoded.latent_dist.mean if exact is None else exact, vae.config)

    def _decode(self, x0: Tensor) -> Tensor:
        """Decode x0 `[1, *shape]` to an image `[1, 3, H, W]` in about [-1, 1], the inverse of `_encode`."""
        vae = self.vae
        return vae.decode(self._unscaled(x0, vae.config).to(vae.dtype), return_dict=False)[0]

    def _scaled(self, latents: Tensor, config: Mapping[str, Any]) -> Tensor:
        """Shift and scale the VAE's latents by its config, the inverse of the pipeline's decoding."""
        return (latents - (config.get("shift_factor") or 0)) * config["scaling_factor"]

    def _unscaled(self, x0: Tensor, config: Mapping[str, Any]) -> Tensor:
        """Undo `_scaled`."""
        return x0 / config["scaling_factor"] + (config.get("shift_factor") or 0)

    def _set_resolution(self, resolution: int | None) -> None:
        """Set all that follows from the resolution, a multiple of the pixels per patch of latents."""
        unit, trained = self.pixels_per_latent * self.patch, self._trained_size()
        resolution = trained if resolution is None else resolution
        if resolution is None or resolution < unit or resolution % unit:
            raise InvalidInputError(
                f"resolution must be a multiple of {unit}, got {resolution}; the model was trained at {trained}"
            )
        self.resolution, edge = resolution, resolution // self.pixels_per_latent
        self.shape = (self.channels, edge, edge)
        self.schedule = self._schedule().to(self.device)

    def _trained_size(self) -> int | None:
        size = self.network.config.sample_size
        # some configurations have (height, width)
        size = size if isinstance(size, int | None) else min(size)
        return None if size is None else size * self.pixels_per_latent

    def __repr__(self) -> str:
        name = str(self.pipe.name_or_path or type(self.pipe).__name__)
        return f"{type(self).__name__}({name!r}, {self.resolution} px, {self.dtype}, {self.device})"


def _check_channels(pipe: Any, config: Mapping[str, Any]) -> None:
    """Check that a network is told nothing but x_t, as those that fill a mask or edit a picture are."""
    taken, given = config.get("in_channels"), config.get("out_channels")
    # some transformers take the pixels of a patch as channels, and count those of one pixel in their output
    patch = config.get("patch_size") or 1
    if isinstance(taken, int) and isinstance(given, int) and taken > given and taken != given * patch**2:
        raise UnknownSpecError(
            f"the network of {pipe.name_or_path or type(pipe).__name__!r} takes {taken} channels and predicts {given}: "
            "it must be told a mask or another picture besides, which there is not when images are classified; give "
            "the model that it was made of"
        )


def call_default(pipe: Any, name: str) -> Any:
    """Default of a parameter of a pipeline's call."""
    return inspect.signature(type(pipe).__call__).parameters[name].default


def channel_moments(latents: Tensor, config: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `[C, 1, 1]` of each channel of a VAE's latents, by the VAE's config."""
    mean, std = (latents.new_tensor(config[name]).view(-1, 1, 1) for name in ("latents_mean", "latents_std"))
    return mean, std
