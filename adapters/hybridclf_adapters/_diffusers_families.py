"""Families of diffusers pipelines as denoisers, one small class each.

A family defines how its pipeline encodes labels and how its network is called. diffusers' own forward passes are used
unchanged.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hybridclf.devices import send
from hybridclf.errors import InvalidInputError, UnknownLabelError
from hybridclf.ports import Condition, Label

from ._checks import same_twice
from ._diffusers_base import DiffusersDenoiser, TextDenoiser, call_default
from ._diffusers_flow import AuraFlow, CogView4, FlowDenoiser, Lumina2, ZImage
from ._diffusers_flux import Chroma, Flux, Flux2, Flux2Klein, QwenImage
from ._diffusers_hunyuan import HunyuanDiT
from ._diffusers_sana import Sana, SanaSprint
from ._imagenet import imagenet, named

__all__ = ["FAMILIES", "RELATED"]


class StableDiffusion(TextDenoiser):
    """Stable Diffusion 1.x and 2.x."""

    without: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "image_encoder": None,
        "requires_safety_checker": False,
    }

    def tokenizers(self) -> list[tuple[Any, int]]:
        """CLIP's tokenizer."""
        return [(self.pipe.tokenizer, self.pipe.tokenizer.model_max_length)]

    def embed(self, prompts: list[str]) -> Condition:
        """CLIP's last hidden states."""
        return {"text": self.pipe.encode_prompt(prompts, self.device, 1, False)[0]}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the U-Net."""
        return self.network(x, timestep, encoder_hidden_states=condition["text"], return_dict=False)[0]


class StableDiffusionXL(TextDenoiser):
    """Stable Diffusion XL: two text encoders, with the pooled text and the image's size as added conditions."""

    without: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}
    optional: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")

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
        # (original size, crop corner, target size), as in SDXL's training
        size = (self.resolution, self.resolution)
        time_ids = send(torch.tensor([*size, 0, 0, *size], dtype=x.dtype), x.device).expand(len(x), -1)
        added = {"text_embeds": condition["pooled"], "time_ids": time_ids}
        text = condition["text"]
        return self.network(x, timestep, encoder_hidden_states=text, added_cond_kwargs=added, return_dict=False)[0]

    def _scaled(self, latents: Tensor, config: Mapping[str, Any]) -> Tensor:
        """Standardise latents by channel if the config has means, as some pipelines of this family do."""
        mean, std = config.get("latents_mean"), config.get("latents_std")
        if mean is None or std is None:
            return super()._scaled(latents, config)
        mean, std = (latents.new_tensor(value).view(-1, 1, 1) for value in (mean, std))
        return (latents - mean) * config["scaling_factor"] / std


class Kolors(StableDiffusionXL):
    """Kolors: Stable Diffusion XL with ChatGLM in place of both text encoders."""

    optional = ()

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
        """T5's hidden states and the mask of those that are text."""
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


class DiT(DiffusersDenoiser):
    """DiT: labels are the classes of its training set, by name or by number."""

    takes_prompts: ClassVar[bool] = False

    def __init__(self, pipe: Any, *args: Any) -> None:
        super().__init__(pipe, *args)
        self.n_classes: int = self.network.config.num_embeds_ada_norm
        # JSON has turned the numbers into texts
        own = {int(number): name for number, name in (pipe.config.get("id2label") or _names(pipe.labels)).items()}
        unnamed = not own and self.n_classes == 1000  # `save_pretrained` leaves ImageNet's names out
        _, self._numbers = imagenet() if unnamed else named(own)

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
        numbers = [self._number(label) for label in labels]
        same = same_twice(numbers)
        if same:
            i, j = same
            raise InvalidInputError(
                f"labels {labels[i]!r} and {labels[j]!r} are both class {numbers[i]}; leave one out"
            )
        return {"class": torch.tensor(numbers, device=self.device)}

    def unconditional(self) -> Condition:
        """Condition `[1]` of no class, with which the model was trained a part of the time."""
        return {"class": torch.tensor([self.n_classes], device=self.device)}

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
        return {"class_labels": [self._number(label) for label in labels]}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer, in whose output the second half of the channels is the variance."""
        return self.network(x, timestep=timestep, class_labels=condition["class"], return_dict=False)[0]

    def predict_variance(self, x_t: Tensor, t: Tensor, row: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Predict the noise and the log-variance of p(x_{t-1} | x_t), each `[P, *shape]`; arguments as in `predict`.

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

    def _number(self, label: Label) -> int:
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


FAMILIES: dict[str, type[DiffusersDenoiser]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "KolorsPipeline": Kolors,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "PixArtAlphaPipeline": PixArt,
    "PixArtSigmaPipeline": PixArtSigma,
    "IFPipeline": DeepFloydIF,
    "DiTPipeline": DiT,
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
    "QwenImageImg2ImgPipeline": "QwenImagePipeline",
    "QwenImageInpaintPipeline": "QwenImagePipeline",
    "SanaSprintImg2ImgPipeline": "SanaSprintPipeline",
    "ZImageImg2ImgPipeline": "ZImagePipeline",
    "ZImageInpaintPipeline": "ZImagePipeline",
}
"""Pipelines that have the parts of a family's and use them to change images; they are loaded as that family's."""


def _names(labels: Mapping[str, int]) -> dict[int, str]:
    """Invert a pipeline's class numbers by name: the names of each class, joined by commas."""
    names: dict[int, list[str]] = {}
    for name, number in labels.items():
        names.setdefault(number, []).append(name)
    return {number: ", ".join(synonyms) for number, synonyms in names.items()}
