"""Flow-matching families of diffusers pipelines whose transformer takes latents packed to tokens, as denoisers.

Trials see unpacked latents `[C, h, w]`. A token is a patch of 2 × 2 of them, `[4·C]`, in the order of
`torch.pixel_unshuffle`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from hybridclf.ports import Condition

from ._diffusers_flow import FlowDenoiser

__all__ = ["Flux"]

PATCH = 2
"""Edge in latents of a token's patch."""


class PackedDenoiser(FlowDenoiser):
    """Denoiser whose transformer takes packed latents."""

    half = torch.bfloat16

    @property
    def patch(self) -> int:
        """Edge in latents of a token's patch, whatever the transformer's config has as `patch_size`."""
        return PATCH

    @property
    def channels(self) -> int:
        """Number of channels of unpacked latents."""
        return self.network.config.in_channels // PATCH**2

    def _trained_size(self) -> int:
        return self.pipe.default_sample_size * self.pixels_per_latent

    def _run(self, x: Tensor, timestep: Tensor, **inputs: Any) -> Tensor:
        """Run the transformer, with times in [0, 1], on latents `[P, C, h, w]`, packed on the way in and out."""
        tokens = pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2)
        output = self.network(hidden_states=tokens, timestep=timestep / 1000, return_dict=False, **inputs)[0]
        edge = x.shape[-1] // PATCH
        return pixel_shuffle(output.transpose(1, 2).unflatten(2, (edge, edge)), PATCH)

    def _positions(self, x: Tensor) -> Tensor:
        """Positions (0, row, column) `[h·w/4, 3]` of the tokens of latents `[P, C, h, w]`."""
        rows = torch.arange(x.shape[-1] // PATCH, device=x.device)
        return torch.cartesian_prod(rows[:1], rows, rows)


class Flux(PackedDenoiser):
    """FLUX.1: CLIP's pooled text and T5, and in dev, which is distilled from guided predictions, their scale.

    schnell has no such input. It was distilled to few steps and read 256 tokens, where dev reads 512.
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
        return 256 if self.guidance is None else 512
