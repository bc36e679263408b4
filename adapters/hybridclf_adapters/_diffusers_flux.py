"""Flow-matching families of diffusers pipelines whose transformer takes latents packed to tokens, as denoisers.

Trials see latents `[C, h, w]`. A token is a patch of 2 × 2 of them, `[4·C]`, in the order of `torch.pixel_unshuffle`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

from hybridclf.ports import Condition

from ._diffusers_base import call_default, channel_moments
from ._diffusers_flow import FlowDenoiser, user_messages

__all__ = ["Chroma", "Flux", "Flux2", "Flux2Klein", "QwenImage"]


class PackedDenoiser(FlowDenoiser):
    """Denoiser whose transformer takes packed latents."""

    half = torch.bfloat16
    text_tokens = 512

    @property
    def patch(self) -> int:
        """Edge in latents of a token's patch, whatever the transformer's config has as `patch_size`."""
        return 2

    @property
    def channels(self) -> int:
        """Number of channels of latents that are not packed."""
        return self.network.config.in_channels // self.patch**2

    def _trained_size(self) -> int:
        return self.pipe.default_sample_size * self.pipe.vae_scale_factor

    def _run(self, x: Tensor, timestep: Tensor, **inputs: Any) -> Tensor:
        """Run the transformer, with times in [0, 1], on latents `[E, C, h, w]`, packed on the way in and out."""
        tokens = pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2)
        output = self.network(hidden_states=tokens, timestep=timestep / 1000, return_dict=False, **inputs)[0]
        edge = x.shape[-1] // self.patch
        return pixel_shuffle(output.transpose(1, 2).unflatten(2, (edge, edge)), self.patch)

    def _positions(self, x: Tensor) -> Tensor:
        """Positions (0, row, column) `[n_tokens, 3]` of the tokens of latents `[E, C, h, w]`."""
        rows = torch.arange(x.shape[-1] // self.patch, device=x.device)
        return torch.cartesian_prod(rows[:1], rows, rows)


class Flux(PackedDenoiser):
    """FLUX.1: CLIP's pooled text and T5, and in dev, which is distilled from guided predictions, their scale.

    schnell has no such input. It was distilled to few steps and reads 256 tokens, where dev reads 512.
    """

    without: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}

    def tokenizers(self) -> list[tuple[Any, int]]:
        """CLIP's tokenizer and T5's."""
        clip = (self.pipe.tokenizer, self.pipe.tokenizer_max_length)
        return [clip, (self.pipe.tokenizer_2, self._t5_tokens)]

    def embed(self, prompts: list[str]) -> Condition:
        """T5's hidden states, and CLIP's pooled text."""
        text, pooled, _ = self.pipe.encode_prompt(prompts, device=self.device, max_sequence_length=self._t5_tokens)
        return {"text": text, "pooled": pooled}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer; text has the position 0."""
        return self._run(
            x,
            timestep,
            guidance=self.guidance_of(x),
            pooled_projections=condition["pooled"],
            encoder_hidden_states=condition["text"],
            txt_ids=torch.zeros(condition["text"].shape[1], 3, device=x.device),
            img_ids=self._positions(x),
        )

    @property
    def _t5_tokens(self) -> int:
        return self.text_tokens // 2 if self.guidance is None else self.text_tokens


class Chroma(PackedDenoiser):
    """Chroma: FLUX.1 schnell made smaller and trained anew, with T5 alone and a mask of its tokens."""

    without: ClassVar[Mapping[str, Any]] = {"feature_extractor": None, "image_encoder": None}

    def tokenizers(self) -> list[tuple[Any, int]]:
        """T5's tokenizer."""
        return [(self.pipe.tokenizer, self.text_tokens)]

    def embed(self, prompts: list[str]) -> Condition:
        """T5's hidden states, and the pipeline's mask of those that are text or the first one after it."""
        options = {"do_classifier_free_guidance": False, "max_sequence_length": self.text_tokens}
        text, _, mask, *_ = self.pipe.encode_prompt(prompts, device=self.device, **options)
        return {"text": text, "mask": mask}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer; the mask is extended over the image."""
        mask, positions = condition["mask"], self._positions(x)
        return self._run(
            x,
            timestep,
            encoder_hidden_states=condition["text"],
            attention_mask=torch.cat([mask, mask.new_ones(len(x), len(positions))], dim=1),
            txt_ids=torch.zeros(condition["text"].shape[1], 3, device=x.device),
            img_ids=positions,
        )


class QwenImage(PackedDenoiser):
    """Qwen-Image: Qwen2.5-VL inside a request to describe the image, and the VAE of a video model."""

    @property
    def pixels_per_latent(self) -> int:
        """Factor by which the VAE shrinks an edge of an image."""
        return self.pipe.vae_scale_factor

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Qwen's tokenizer, whose limit counts the system prompt's tokens, too."""
        return [(self.pipe.tokenizer, self.pipe.prompt_template_encode_start_idx + self.text_tokens)]

    def as_read(self, prompts: list[str]) -> list[str]:
        """Each prompt inside the pipeline's request."""
        return [self.pipe.prompt_template_encode.format(prompt) for prompt in prompts]

    def embed(self, prompts: list[str]) -> Condition:
        """Qwen's last hidden states after the system prompt."""
        return self._each(prompts)

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer on as many tokens as the longest text has."""
        lengths = condition["length"]
        width = int(lengths.max())
        mask = torch.arange(width, device=x.device) < lengths[:, None]
        edge = x.shape[-1] // self.patch
        return self._run(
            x,
            timestep,
            guidance=self.guidance_of(x),
            encoder_hidden_states=condition["text"][:, :width],
            encoder_hidden_states_mask=mask,
            img_shapes=[[(1, edge, edge)]] * len(x),
        )

    def _encode(self, image: Tensor) -> Tensor:
        """Encode an image `[1, 3, H, W]` as a video of one frame, and standardise its latents by channel."""
        vae = self.pipe.vae
        latents = vae.encode(image.to(vae.dtype).unsqueeze(2)).latent_dist.mean.squeeze(2)
        mean, std = channel_moments(latents, vae.config)
        return (latents - mean) / std

    def _decode(self, x0: Tensor) -> Tensor:
        mean, std = channel_moments(x0, self.pipe.vae.config)
        video = (x0 * std + mean).to(self.pipe.vae.dtype).unsqueeze(2)
        return self.pipe.vae.decode(video, return_dict=False)[0].squeeze(2)


class Flux2Klein(PackedDenoiser):
    """FLUX.2 klein: three layers of Qwen3, which reads the prompt as a user's message.

    Latents are patches of the VAE's, standardised by channel; each is a token.
    """

    @property
    def pixels_per_latent(self) -> int:
        """Edge in pixels of a patch of 2 × 2 of the VAE's latents."""
        return 2 * super().pixels_per_latent

    @property
    def patch(self) -> int:
        """One, as latents are patches."""
        return 1

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Qwen's tokenizer, whose limit counts the message's frame, too."""
        return [(self.pipe.tokenizer, self.text_tokens)]

    def as_read(self, prompts: list[str]) -> list[str]:
        """Each prompt as a user's message."""
        return user_messages(self.pipe.tokenizer, prompts, thinking=False)

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of three of the text model's layers, side by side."""
        return self._each(prompts)

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer; positions are (0, row, column, 0) in an image and (0, 0, 0, i) in a text."""
        text, zero = condition["text"], torch.zeros(1, dtype=torch.long, device=x.device)
        positions = torch.cartesian_prod(zero, zero, zero, torch.arange(text.shape[1], device=x.device))
        return self._run(
            x,
            timestep,
            guidance=self.guidance_of(x),
            encoder_hidden_states=text,
            txt_ids=positions.expand(len(x), -1, -1),
            img_ids=pad(self._positions(x), (0, 1)).expand(len(x), -1, -1),
        )

    def _encode(self, image: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = pixel_unshuffle(vae.encode(image.to(vae.dtype)).latent_dist.mean, 2)
        return (latents - vae.bn.running_mean.view(-1, 1, 1)) / self._std.view(-1, 1, 1)

    def _decode(self, x0: Tensor) -> Tensor:
        vae = self.pipe.vae
        latents = x0 * self._std.view(-1, 1, 1) + vae.bn.running_mean.view(-1, 1, 1)
        return vae.decode(pixel_shuffle(latents, 2).to(vae.dtype), return_dict=False)[0]

    @property
    def _std(self) -> Tensor:
        """Standard deviation of each channel."""
        vae = self.pipe.vae
        return (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()

    def _shift(self) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        # it depends on the sampler's steps, too
        return compute_empirical_mu(self.n_tokens, call_default(self.pipe, "num_inference_steps"))


class Flux2(Flux2Klein):
    """FLUX.2 dev: three layers of Mistral after a system prompt, and a guidance scale as in FLUX.1 dev."""

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Mistral's tokenizer, whose limit counts the system prompt's tokens, too."""
        return [(self.pipe.tokenizer.tokenizer, self.text_tokens)]

    def as_read(self, prompts: list[str]) -> list[str]:
        """The system prompt and each prompt as a user's message."""
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        conversations = format_input(prompts, self.pipe.system_message)
        return self.pipe.tokenizer.apply_chat_template(conversations, add_generation_prompt=False, tokenize=False)
