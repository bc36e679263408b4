"""Families of diffusers pipelines as denoisers, one small class each.

A family defines how its pipeline encodes labels and how its network is called. diffusers' own forward passes are used
unchanged.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridclf.devices import send
from hybridclf.ports import Condition

from ._diffusers_base import DiffusersDenoiser, call_default, channel_moments
from ._diffusers_classes import ConsistencyUNet, DiT, LatentUNet, PixelUNet
from ._diffusers_flow import AuraFlow, CogView4, FlowDenoiser, Lumina2, ZImage
from ._diffusers_flux import Chroma, Flux, Flux2, Flux2Klein, QwenImage
from ._diffusers_hunyuan import HunyuanDiT
from ._diffusers_prompts import TextDenoiser
from ._diffusers_sana import Sana, SanaSprint
from ._diffusers_schedule import Schedule

__all__ = ["FAMILIES", "RELATED"]

AESTHETIC_SCORE = 6.0
"""Score that SDXL's refiner is told, the default of its pipeline's call."""

REFINED_LEVELS = 200
"""Number of the lowest noise levels that SDXL's refiner was trained on."""


class StableDiffusion(TextDenoiser):
    """Stable Diffusion 1.x and 2.x."""

    without: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }

    def as_read(self, prompts: list[str]) -> list[str]:
        """Prompts in which a token of textual inversion stands for each of its vectors."""
        return self.pipe.maybe_convert_prompt(prompts, self.pipe.tokenizer)

    def tokenizers(self) -> list[tuple[Any, int]]:
        """CLIP's tokenizer."""
        return [(self.pipe.tokenizer, self.pipe.tokenizer.model_max_length)]

    def embed(self, prompts: list[str]) -> Condition:
        """CLIP's last hidden states."""
        return {"text": self.pipe.encode_prompt(prompts, self.device, 1, False)[0]}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the U-Net, which has an input for the guidance scale in latent consistency models."""
        told = {"timestep_cond": self.guidance_embedding(x), "return_dict": False}
        return self.network(x, timestep, encoder_hidden_states=condition["text"], **told)[0]


class StableDiffusionXL(TextDenoiser):
    """Stable Diffusion XL: two text encoders, with the pooled text and the image's size as added conditions."""

    without: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}
    optional: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

    def as_read(self, prompts: list[str]) -> list[str]:
        """Prompts in which a token of textual inversion stands for each of its vectors."""
        return self.pipe.maybe_convert_prompt(prompts, self.pipe.tokenizer_2)

    def tokenizers(self) -> list[tuple[Any, int]]:
        """CLIP's two tokenizers."""
        both = (self.pipe.tokenizer, self.pipe.tokenizer_2)
        return [(tokenizer, tokenizer.model_max_length) for tokenizer in both if tokenizer is not None]

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of both encoders side by side, and the second's pooled text."""
        text, _, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, do_classifier_free_guidance=False)
        return {"text": text, "pooled": pooled}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the U-Net with the image's size and no crop, the pipeline's defaults."""
        # (original size, crop corner, target size), as in SDXL's training; a score instead of the last for the refiner
        size = (self.resolution, self.resolution)
        last = (AESTHETIC_SCORE,) if self.refines else size
        time_ids = send(torch.tensor([*size, 0, 0, *last], dtype=x.dtype), x.device).expand(len(x), -1)
        added = {"text_embeds": condition["pooled"], "time_ids": time_ids}
        told = {"timestep_cond": self.guidance_embedding(x), "added_cond_kwargs": added, "return_dict": False}
        return self.network(x, timestep, encoder_hidden_states=condition["text"], **told)[0]

    @property
    def refines(self) -> bool:
        """True for the refiner, which is told an aesthetic score: five numbers instead of six."""
        encoder, config = getattr(self.pipe, "text_encoder_2", None), self.network.config
        numbers = config.projection_class_embeddings_input_dim - (encoder.config.projection_dim if encoder else 0)
        return numbers == 5 * config.addition_time_embed_dim

    def _schedule(self) -> Schedule:
        """All levels, or for the refiner those that it was trained on (Section 2.5 of arXiv 2307.01952)."""
        schedule = super()._schedule()
        return schedule.first(REFINED_LEVELS) if self.refines else schedule

    def _scaled(self, latents: Tensor, config: Mapping[str, Any]) -> Tensor:
        """Standardise latents by channel if the config has means, as some pipelines of this family do."""
        if not _has_moments(config):
            return super()._scaled(latents, config)
        mean, std = channel_moments(latents, config)
        return (latents - mean) * config["scaling_factor"] / std

    def _unscaled(self, x0: Tensor, config: Mapping[str, Any]) -> Tensor:
        if not _has_moments(config):
            return super()._unscaled(x0, config)
        mean, std = channel_moments(x0, config)
        return x0 * std / config["scaling_factor"] + mean


class Kolors(StableDiffusionXL):
    """Kolors: Stable Diffusion XL with ChatGLM in place of both text encoders."""

    optional = ()

    def as_read(self, prompts: list[str]) -> list[str]:
        """Prompts as they are."""
        return prompts

    def tokenizers(self) -> list[tuple[Any, int]]:
        """ChatGLM's tokenizer, with the limit of the pipeline's call."""
        return [(self.pipe.tokenizer, call_default(self.pipe, "max_sequence_length"))]


class StableDiffusion3(FlowDenoiser):
    """Stable Diffusion 3 and 3.5: flow matching, two CLIP encoders, and T5 unless the folder lacks it."""

    without: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}
    optional = ("text_encoder_3", "tokenizer_3")
    t5_tokens: ClassVar[int] = 256

    def tokenizers(self) -> list[tuple[Any, int]]:
        """CLIP's two tokenizers and T5's."""
        limit = self.pipe.tokenizer_max_length
        return [(self.pipe.tokenizer, limit), (self.pipe.tokenizer_2, limit), (self.pipe.tokenizer_3, self.t5_tokens)]

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of all encoders one after the other, and CLIP's pooled text."""
        text, _, pooled, _ = self.pipe.encode_prompt(
            prompts,
            None,
            None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.t5_tokens,
        )
        return {"text": text, "pooled": pooled}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer, which predicts the velocity ε − x0."""
        return self.network(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=condition["text"],
            pooled_projections=condition["pooled"],
            return_dict=False,
        )[0]


class PixArt(TextDenoiser):
    """PixArt-α: T5, and at 1024 pixels the image's size as an added condition."""

    lowercase = True
    t5_tokens: ClassVar[int] = 120

    def tokenizers(self) -> list[tuple[Any, int]]:
        """T5's tokenizer."""
        return [(self.pipe.tokenizer, self.t5_tokens)]

    def embed(self, prompts: list[str]) -> Condition:
        """T5's hidden states and the mask of the prompt's own."""
        text, mask, _, _ = self.pipe.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False, max_sequence_length=self.t5_tokens
        )
        return {"text": text, "mask": mask}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer."""
        # smaller models of the family have no such conditions
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.network.use_additional_conditions:
            edge = torch.full((len(x), 2), self.resolution, dtype=x.dtype, device=x.device)
            added = {"resolution": edge, "aspect_ratio": torch.ones_like(edge[:, :1])}
        return self.network(
            x,
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            timestep=timestep,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]


class PixArtSigma(PixArt):
    """PixArt-Σ: PixArt with longer prompts."""

    t5_tokens = 300


class DeepFloydIF(TextDenoiser):
    """DeepFloyd IF, stage I: T5, on pixels instead of latents."""

    without: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }
    lowercase = True

    @property
    def pixels_per_latent(self) -> int:
        """One, as there is no VAE."""
        return 1

    def tokenizers(self) -> list[tuple[Any, int]]:
        """T5's tokenizer."""
        return [(self.pipe.tokenizer, 77)]

    def embed(self, prompts: list[str]) -> Condition:
        """T5's hidden states."""
        return {"text": self.pipe.encode_prompt(prompts, False, device=self.device)[0]}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the U-Net, whose last three channels are the variance."""
        return self.network(x, timestep, encoder_hidden_states=condition["text"], return_dict=False)[0]

    def _encode(self, image: Tensor) -> Tensor:
        return image

    def _decode(self, x0: Tensor) -> Tensor:
        return x0


def _has_moments(config: Mapping[str, Any]) -> bool:
    """Tell whether a VAE's config has the mean and the standard deviation of each channel of its latents."""
    return None not in (config.get("latents_mean"), config.get("latents_std"))


FAMILIES: dict[str, type[DiffusersDenoiser]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "KolorsPipeline": Kolors,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArtSigma,
    "IFPipeline": DeepFloydIF,
    "LatentConsistencyModelPipeline": StableDiffusion,
    "DiTPipeline": DiT,
    "DDPMPipeline": PixelUNet,
    "DDIMPipeline": PixelUNet,
    "LDMPipeline": LatentUNet,
    "ConsistencyModelPipeline": ConsistencyUNet,
    "FluxPipeline": Flux,
    "SanaPipeline": Sana,
    "SanaSprintPipeline": SanaSprint,
    "AuraFlowPipeline": AuraFlow,
    "Lumina2Pipeline": Lumina2,
    "ZImagePipeline": ZImage,
    "CogView4Pipeline": CogView4,
    "ChromaPipeline": Chroma,
    "QwenImagePipeline": QwenImage,
    "Flux2Pipeline": Flux2,
    "Flux2KleinPipeline": Flux2Klein,
    "HunyuanDiTPipeline": HunyuanDiT,
}
"""Families by the `_class_name` in `model_index.json`."""

RELATED: dict[str, str] = {
    "ChromaImg2ImgPipeline": "ChromaPipeline",
    "ChromaInpaintPipeline": "ChromaPipeline",
    "FluxImg2ImgPipeline": "FluxPipeline",
    "FluxInpaintPipeline": "FluxPipeline",
    "LatentConsistencyModelImg2ImgPipeline": "LatentConsistencyModelPipeline",
    "QwenImageImg2ImgPipeline": "QwenImagePipeline",
    "QwenImageInpaintPipeline": "QwenImagePipeline",
    "SanaSprintImg2ImgPipeline": "SanaSprintPipeline",
    "StableDiffusion3Img2ImgPipeline": "StableDiffusion3Pipeline",
    "StableDiffusion3InpaintPipeline": "StableDiffusion3Pipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "StableDiffusionInpaintPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline": "StableDiffusionXLPipeline",
    "ZImageImg2ImgPipeline": "ZImagePipeline",
    "ZImageInpaintPipeline": "ZImagePipeline",
}
"""Pipelines that have the parts of a family's and use them to change images; they are loaded as that family's."""
