"""What all diffusers denoisers have in common: images, noise levels, the conversion to ε̂, and prompts."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hybridclf.devices import check_compiles, send
from hybridclf.errors import InvalidInputError
from hybridclf.ports import Condition, Label

from ._checks import check_templates, fill
from ._diffusers_images import pixels
from ._diffusers_schedule import Schedule, diffusion_schedule
from ._diffusers_text import Embeddings, Reading

__all__ = ["DiffusersDenoiser", "TextDenoiser", "keep_float32", "quiet"]

_READING = Lock()
"""Tokenizers are not made for several threads. One for all: a denoiser with its own could not be copied."""

_UPCASTING = Lock()
"""A VAE is in one type at a time."""


class DiffusersDenoiser(ABC):
    """Denoiser port of a diffusers pipeline: one forward pass of its network per pair.

    Parameters
    ----------
    pipe : DiffusionPipeline
        The loaded pipeline, on `device` and in `dtype`.
    prompts : str or sequence of str
        Templates that make prompts of a label; families without a text encoder have no use for them.
    resolution : int, optional
        Edge of the square images in pixels. Default: what the network was trained on.
    dtype : torch.dtype
        What the network computes in.
    device : torch.device
        Where.
    """

    cost_unit: Literal["row", "pair"] = "pair"
    without: ClassVar[Mapping[str, Any]] = {}
    """What the pipeline can be loaded without, as keywords of `from_pretrained`: parts that only generation needs."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Parts that a pipeline of this family may have been made without."""

    def __init__(
        self,
        pipe: Any,
        prompts: str | Sequence[str],
        resolution: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.pipe, self.dtype, self.device = pipe, dtype, device
        self.network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        self.resolution = self._resolution(resolution)
        edge = self.resolution // self.pixels_per_latent
        self.shape: tuple[int, ...] = (self.network.config.in_channels, edge, edge)
        self.schedule = self._schedule().to(device)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks of the pipeline, by the names of its parts."""
        return {name: part for name, part in self.pipe.components.items() if isinstance(part, nn.Module)}

    def follow(self, device: torch.device, dtype: torch.dtype) -> None:
        """Go where the networks were moved from outside, and compute in what they were cast to."""
        self.device, self.dtype = device, dtype
        self.schedule = self.schedule.to(device)
        keep_float32(self.pipe, dtype)

    def compile(self) -> None:
        """Compile the U-Net or transformer (torch.compile) for all predictions to come, for jobs of many minutes.

        It takes a minute or more, at the first prediction, and pays most in half precision. Errors differ in their last
        digits from those of one that is not compiled. Copies are not.

        Raises
        ------
        MissingDependencyError
            If nothing can be compiled here.
        """
        check_compiles(self.device)
        self.network.compile()

    @abstractmethod
    def condition(self, labels: Sequence[Label]) -> Condition:
        """What `forward` needs to know of L labels."""

    @abstractmethod
    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """The network's own output for P noised images `[P, *shape]` at timesteps `[P]` under conditions `[P, …]`."""

    @property
    def pixels_per_latent(self) -> int:
        """Edge of what one latent stands for: what the VAE shrinks images by."""
        return 2 ** (len(self.pipe.vae.config.block_out_channels) - 1)

    def encode(self, images: Any) -> Tensor:
        """Images to x0 `[n, *shape]`, one by one so that none depends on its companions.

        Raises
        ------
        InvalidInputError
            For what is neither a PIL image nor a uint8 array.
        """
        x0 = torch.empty(len(images), *self.shape, dtype=self.dtype, device=self.device)
        with _upcast(getattr(self.pipe, "vae", None)):
            for i, image in enumerate(pixels(images, self.resolution)):
                x0[i] = self._encode(send(image[None], self.device))[0]
        return x0

    def noise_levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(α_t, σ_t) `[R]` of the scheduler, float32."""
        index = self.schedule.index(t)
        return self.schedule.alpha[index], self.schedule.sigma[index]

    def predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> Tensor:
        """Predicted noise `[P, *shape]`, whatever the network predicts."""
        return self._predict(x_t, t, row, condition)[0]

    def _predict(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predicted noise `[P, C, H, W]` and what the network says beside it `[P, 0 or C, H, W]`: its variance."""
        x_t, index = x_t[row], self.schedule.index(t)[row]
        output = self.forward(x_t.to(self.dtype), self.schedule.timestep[index], condition)
        output, variance = output.tensor_split([self.shape[0]], dim=1)
        return self.schedule.noise(output, x_t, index), variance

    def _schedule(self) -> Schedule:
        return diffusion_schedule(self.pipe.scheduler)

    def _encode(self, image: Tensor) -> Tensor:
        """Latents `[1, C, h, w]`, as the network was trained on them, of an image `[1, 3, H, W]` in [-1, 1]."""
        vae = self.pipe.vae
        encoded = vae.encode(image.to(vae.dtype))
        return self._scaled(encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean, vae.config)

    def _scaled(self, latents: Tensor, config: Mapping[str, Any]) -> Tensor:
        """The VAE's own latents, shifted and scaled by its config: the inverse of what the pipeline decodes."""
        return (latents - (config.get("shift_factor") or 0)) * config["scaling_factor"]

    def _resolution(self, resolution: int | None) -> int:
        unit, trained = self.pixels_per_latent * getattr(self.network.config, "patch_size", 1), self._trained_size()
        resolution = trained if resolution is None else resolution
        if resolution is None or resolution < unit or resolution % unit:
            raise InvalidInputError(
                f"resolution must be a multiple of {unit}, got {resolution}; the model was trained at {trained}"
            )
        return resolution

    def _trained_size(self) -> int | None:
        size = self.network.config.sample_size
        size = size if isinstance(size, int | None) else min(size)
        return None if size is None else size * self.pixels_per_latent

    def __repr__(self) -> str:
        name = str(self.pipe.name_or_path or type(self.pipe).__name__)
        return f"{type(self).__name__}({name!r}, {self.resolution} px, {self.dtype}, {self.device})"


class TextDenoiser(DiffusersDenoiser):
    """Labels become prompts, one per template, and prompts what the pipeline's own `encode_prompt` makes of them."""

    lowercase: ClassVar[bool] = False
    """Whether the pipeline lowers and strips prompts before it tokenises them."""

    def __init__(self, pipe: Any, prompts: str | Sequence[str], *args: Any) -> None:
        super().__init__(pipe, prompts, *args)
        self.templates = check_templates(prompts)
        self._reading = Reading(self.tokenizers())
        self._embeddings = Embeddings(self._embed)

    def follow(self, device: torch.device, dtype: torch.dtype) -> None:
        """The same, and forget the prompts: they were encoded in another type."""
        super().follow(device, dtype)
        self._embeddings = Embeddings(self._embed)

    @abstractmethod
    def tokenizers(self) -> list[tuple[Any, int]]:
        """The pipeline's tokenizers, each with the tokens it is allowed; None for one that is left out."""

    @abstractmethod
    def embed(self, prompts: list[str]) -> Condition:
        """The condition `[n, …]` of n prompts."""

    def condition(self, labels: Sequence[Label]) -> Condition:
        """Text embeddings `[L·n, …]` of L labels and n templates; each prompt is encoded once and kept.

        Threads wait for each other.

        Raises
        ------
        InvalidInputError
            For labels that read the same to the model.
        """
        prompts = fill(self.templates, labels)
        texts = [p.lower().strip() for p in prompts] if self.lowercase else prompts
        with _READING:
            self._reading.check(labels, prompts, texts)
            return self._embeddings(prompts, self.device)

    def _embed(self, prompts: list[str]) -> Condition:
        with torch.no_grad(), quiet():
            embedded = self.embed(prompts)
        return {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in embedded.items()}


def keep_float32(pipe: Any, dtype: torch.dtype) -> None:
    """Bring back to float32 what would go beyond float16's range: layers of T5, and a VAE that says so."""
    if dtype != torch.float16:
        return
    for part in pipe.components.values():
        for name in getattr(part, "_keep_in_fp32_modules", None) or ():
            for path, layer in part.named_modules():
                if name in path.split("."):
                    layer.float()
    vae = getattr(pipe, "vae", None)
    if vae is not None and vae.config.force_upcast:
        vae.float()


@contextmanager
def _upcast(vae: Any) -> Iterator[None]:
    """A VAE that would overflow in float16 in float32 meanwhile, as diffusers has it: a pipeline's own stays as it is.

    Threads wait for each other.
    """
    if vae is None or vae.dtype != torch.float16 or not vae.config.force_upcast:
        yield
        return
    with _UPCASTING:
        vae.float()
        try:
            yield
        finally:
            vae.half()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks of diffusers and transformers, where we say the same, or said it once."""
    import diffusers
    import transformers

    loggings = (diffusers.utils.logging, transformers.utils.logging)
    before = [logging.get_verbosity() for logging in loggings]
    for logging in loggings:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, verbosity in zip(loggings, before, strict=True):
            logging.set_verbosity(verbosity)
