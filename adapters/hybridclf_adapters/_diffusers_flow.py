"""Flow-matching families of diffusers pipelines on plain latents, as denoisers.

A flow predicts the velocity v = ε − x0 of x_t = (1 − σ)·x0 + σ·ε. Families differ in its sign and in the time that
their network is told.
"""

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from hybridclf.denoising.weighting import velocity_weights
from hybridclf.ports import Condition

from ._diffusers_base import call_default
from ._diffusers_prompts import TextDenoiser
from ._diffusers_schedule import Schedule, flow_schedule, linear_shift

__all__ = ["AuraFlow", "CogView4", "FlowDenoiser", "Lumina2", "ZImage", "user_messages"]


class FlowDenoiser(TextDenoiser):
    """Denoiser of a flow-matching model conditioned on text; errors are weighted as those of its velocity."""

    weighting = staticmethod(velocity_weights)
    text_tokens: ClassVar[int]
    """Tokens of a prompt that the network reads."""

    @property
    def n_tokens(self) -> int:
        """Number of the transformer's tokens for an image."""
        return (self.shape[1] // self.patch) ** 2

    def _each(self, prompts: list[str], **options: Any) -> Condition:
        """Encode n prompts, each on its own, so that none depends on the length of the others.

        Returns
        -------
        Condition
            Hidden states "text" `[n, text_tokens, d]`, padded with zeros, and the "length" `[n]` of what is no padding.
        """
        options |= {"device": self.device, "max_sequence_length": self.text_tokens}
        own = {prompt: self.pipe.encode_prompt([prompt], **options)[0][0] for prompt in dict.fromkeys(prompts)}
        rows = [own[prompt] for prompt in prompts]
        text = torch.stack([pad(row, (0, 0, 0, self.text_tokens - len(row))) for row in rows])
        return {"text": text, "length": torch.tensor([len(row) for row in rows], device=self.device)}

    def _shift(self) -> float:
        """Dynamic shift of the noise levels for images of this resolution."""
        return linear_shift(self.pipe.scheduler.config, self.n_tokens)

    def _schedule(self) -> Schedule:
        return flow_schedule(self.pipe.scheduler, self._shift())


def user_messages(tokenizer: Any, prompts: list[str], thinking: bool) -> list[str]:
    """Each prompt as a user's message to a chat model, in the template of its tokenizer."""
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": thinking}
    return [tokenizer.apply_chat_template([{"role": "user", "content": prompt}], **options) for prompt in prompts]


class AuraFlow(FlowDenoiser):
    """AuraFlow: T5."""

    text_tokens = 256

    def tokenizers(self) -> list[tuple[Any, int]]:
        """T5's tokenizer."""
        return [(self.pipe.tokenizer, self.text_tokens)]

    def embed(self, prompts: list[str]) -> Condition:
        """T5's hidden states, 0 where there is no text."""
        options = {"do_classifier_free_guidance": False, "max_sequence_length": self.text_tokens}
        return {"text": self.pipe.encode_prompt(prompts, device=self.device, **options)[0]}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer, with times in [0, 1]."""
        time, text = timestep / 1000, condition["text"]
        return self.network(x, encoder_hidden_states=text, timestep=time, return_dict=False)[0]

    def _trained_size(self) -> int:
        size: int = call_default(
            self.pipe, "height"
        )  # the config's sample_size is that of an earlier stage of training
        return size


class Lumina2(FlowDenoiser):
    """Lumina-Image 2.0: Gemma, after a system prompt; the network's time runs from noise to clean."""

    half = torch.bfloat16
    text_tokens = 256

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Gemma's tokenizer, whose limit counts the system prompt's tokens, too."""
        return [(self.pipe.tokenizer, self.text_tokens)]

    def as_read(self, prompts: list[str]) -> list[str]:
        """The system prompt and each prompt."""
        return [f"{self.pipe.system_prompt} <Prompt Start> {prompt}" for prompt in prompts]

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of Gemma's last layer but one, and the mask of the prompt's own."""
        options = {"do_classifier_free_guidance": False, "max_sequence_length": self.text_tokens}
        text, mask, *_ = self.pipe.encode_prompt(prompts, device=self.device, **options)
        return {"text": text, "mask": mask}

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer, which predicts x0 − ε."""
        return -self.network(
            hidden_states=x,
            timestep=1 - timestep / 1000,
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            return_dict=False,
        )[0]


class ZImage(FlowDenoiser):
    """Z-Image: Qwen3 reads the prompt as a user's message; the network's time runs from noise to clean."""

    half = torch.bfloat16
    text_tokens = 512

    @property
    def patch(self) -> int:
        """Edge in latents of a token's patch."""
        return self.network.config.all_patch_size[0]

    def tokenizers(self) -> list[tuple[Any, int]]:
        """Qwen's tokenizer, whose limit counts the message's frame, too."""
        return [(self.pipe.tokenizer, self.text_tokens)]

    def as_read(self, prompts: list[str]) -> list[str]:
        """Each prompt as a user's message."""
        return user_messages(self.pipe.tokenizer, prompts, thinking=True)

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of Qwen3's last layer but one."""
        return self._each(prompts, do_classifier_free_guidance=False)

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer, which takes lists of texts and of images with a time axis, and predicts x0 − ε."""
        lengths = condition["length"].tolist()
        texts = [text[:length] for text, length in zip(condition["text"], lengths, strict=True)]
        images = list(x.unsqueeze(2).unbind())
        output = self.network(images, 1 - timestep / 1000, texts, return_dict=False)[0]
        return -torch.stack(output).squeeze(2)

    def _trained_size(self) -> int:
        return 1024  # the default of the pipeline's call; no config has it


class CogView4(FlowDenoiser):
    """CogView4: GLM, and the image's size as an added condition.

    Prompts are padded to a multiple of 16 tokens, and the network attends to the padding. It takes 1,024 tokens, of
    which 256 are used here.
    """

    half = torch.bfloat16
    text_tokens = 256

    def tokenizers(self) -> list[tuple[Any, int]]:
        """GLM's tokenizer."""
        return [(self.pipe.tokenizer, self.text_tokens)]

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of GLM's last layer but one."""
        return self._each(prompts, do_classifier_free_guidance=False)

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer once for each length of the texts, as it would attend to further padding."""
        output, lengths = torch.empty_like(x), condition["length"]
        for length in lengths.unique().tolist():
            own = (lengths == length).nonzero().flatten()
            output[own] = self._of_one_length(x[own], timestep[own], condition["text"][own, :length])
        return output

    def _of_one_length(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        # size of the original and of the target and the crop's corner, by the defaults of the pipeline's call
        size = torch.full((len(x), 2), self.resolution, dtype=text.dtype, device=x.device)
        return self.network(
            hidden_states=x,
            encoder_hidden_states=text,
            timestep=timestep,
            original_size=size,
            target_size=size,
            crop_coords=torch.zeros_like(size),
            return_dict=False,
        )[0]

    def _shift(self) -> float:
        config = self.pipe.scheduler.config
        ratio = (self.n_tokens / config.get("base_image_seq_len", 256)) ** 0.5
        return ratio * config.get("max_shift", 0.75) + config.get("base_shift", 0.25)

    def _schedule(self) -> Schedule:
        schedule = super()._schedule()
        # levels are shifted, and the network is told the time before the shift
        return replace(schedule, timestep=torch.arange(1, len(schedule.sigma) + 1).float())
