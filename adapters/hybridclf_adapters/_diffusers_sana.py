"""Sana and Sana-Sprint as denoisers: Gemma, and an autoencoder that shrinks an edge 32 times."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridclf.errors import UnknownSpecError
from hybridclf.ports import Condition

from ._diffusers_base import call_default
from ._diffusers_flow import FlowDenoiser
from ._diffusers_prompts import TextDenoiser
from ._diffusers_schedule import Schedule

__all__ = ["Sana", "SanaSprint"]

TOKENS = 300
"""Tokens of a prompt that the networks read."""


class GemmaPrompts(TextDenoiser):
    """Denoiser of prompts that Gemma reads after an instruction to enhance them, the default of the pipeline's call."""

    half = torch.bfloat16
    lowercase = True
    guided: ClassVar[dict[str, Any]] = {}
    """Keywords of `encode_prompt` that leave out the negative prompt."""

    @property
    def pixels_per_latent(self) -> int:
        """Factor by which the autoencoder shrinks an edge of an image."""
        return self.pipe.vae_scale_factor

    @property
    def instruction(self) -> str:
        """Text before the prompt."""
        return "\n".join(call_default(self.pipe, "complex_human_instruction"))

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Gemma's tokenizer, whose limit counts the instruction's tokens, too."""
        return [(self.pipe.tokenizer, len(self.pipe.tokenizer.encode(self.instruction)) + TOKENS - 2)]

    def as_read(self, prompts: list[str]) -> list[str]:
        """The instruction and each prompt, in lower case."""
        return [self.instruction + prompt for prompt in super().as_read(prompts)]

    def embed(self, prompts: list[str]) -> Condition:
        """Gemma's hidden states of the prompt, and the mask that leaves padding out."""
        text, mask, *_ = self.pipe.encode_prompt(
            prompts,
            device=self.device,
            max_sequence_length=TOKENS,
            complex_human_instruction=call_default(self.pipe, "complex_human_instruction"),
            **self.guided,
        )
        return {"text": text, "mask": mask}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer."""
        return self.network(
            x,
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            guidance=self._scaled_guidance(x),
            timestep=timestep * self.network.config.timestep_scale,
            return_dict=False,
        )[0]

    def _scaled_guidance(self, x: Tensor) -> Tensor | None:
        scale = self.guidance_of(x)
        return None if scale is None else scale.to(x.dtype) * self.network.config.guidance_embeds_scale


class Sana(GemmaPrompts, FlowDenoiser):
    """Sana: flow matching with linear attention."""

    guided: ClassVar[dict[str, Any]] = {"do_classifier_free_guidance": False}


class SanaSprint(GemmaPrompts):
    """Sana-Sprint: Sana distilled to few steps and from guided predictions, in the form of TrigFlow.

    x_t = cos t·x0 + sin t·ε with t from 0 to π/2, and F = cos t·ε − sin t·x0 is a v-prediction. The network itself is
    that of a flow: it is told s = sin t/(cos t + sin t), the noise level of a flow with the same ratio of signal and
    noise. Section 3 of arXiv 2503.09641.
    """

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer on a flow's x_t and time, and convert its velocity to F."""
        sine, cosine = timestep.sin().view(-1, 1, 1, 1), timestep.cos().view(-1, 1, 1, 1)
        s = sine / (cosine + sine)
        norm = (s**2 + (1 - s) ** 2).sqrt()
        flow = x * norm
        velocity = super().forward(flow.to(x.dtype), s.flatten(), condition)
        return ((1 - 2 * s) * flow + (1 - 2 * s + 2 * s**2) * velocity) / norm

    def _schedule(self) -> Schedule:
        scheduler = self.pipe.scheduler
        if scheduler.config.get("prediction_type") != "trigflow":
            raise UnknownSpecError(
                f"a {type(scheduler).__name__} is not supported here; Sana-Sprint needs SCMScheduler"
            )
        n_levels = scheduler.config.num_train_timesteps
        angle = torch.arange(1, n_levels + 1) / n_levels * math.pi / 2
        return Schedule(angle.cos(), angle.sin(), angle, "v_prediction")
