"""HunyuanDiT as a denoiser."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from hybridclf.ports import Condition

from ._diffusers_base import call_default
from ._diffusers_prompts import TextDenoiser

__all__ = ["HunyuanDiT"]


class HunyuanDiT(TextDenoiser):
    """HunyuanDiT: a bilingual CLIP and mT5, and before version 1.2 the image's size and a style as added conditions."""

    without: ClassVar[Mapping[str, Any]] = {
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    limits: ClassVar[tuple[int, int]] = (77, 256)
    """Tokens that CLIP and T5 read."""

    def tokenizers(self) -> list[tuple[Any, int]]:
        """CLIP's tokenizer and T5's."""
        return list(zip((self.pipe.tokenizer, self.pipe.tokenizer_2), self.limits, strict=True))

    def embed(self, prompts: list[str]) -> Condition:
        """Hidden states of both encoders, with the masks of the prompt's own."""
        condition: dict[str, Tensor] = {}
        for index, (name, limit) in enumerate(zip(("clip", "t5"), self.limits, strict=True)):
            condition[name], _, condition[f"{name} mask"], _ = self.pipe.encode_prompt(
                prompts,
                device=self.device,
                dtype=self.dtype,
                do_classifier_free_guidance=False,
                max_sequence_length=limit,
                text_encoder_index=index,
            )
        return condition

    def forward(self, x: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run the transformer, in whose output the second half of the channels is the variance."""
        # sizes of the original and of the target and the crop's corner, by the defaults of the pipeline's call
        original, edge = call_default(self.pipe, "original_size"), self.resolution
        sizes = torch.tensor([*original, edge, edge, 0, 0], dtype=x.dtype, device=x.device)
        return self.network(
            x,
            timestep.to(x.dtype),
            encoder_hidden_states=condition["clip"],
            text_embedding_mask=condition["clip mask"],
            encoder_hidden_states_t5=condition["t5"].contiguous(),  # of which it takes a view
            text_embedding_mask_t5=condition["t5 mask"],
            image_meta_size=sizes.repeat(len(x), 1),
            style=torch.zeros(len(x), dtype=torch.long, device=x.device),
            image_rotary_emb=self._positions(x),
            return_dict=False,
        )[0]

    def _positions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary embedding of the positions of the tokens, scaled to those of an image of 512 pixels."""
        from diffusers.models.embeddings import get_2d_rotary_pos_embed
        from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

        grid = (x.shape[-2] // self.patch, x.shape[-1] // self.patch)
        corners = get_resize_crop_region_for_grid(grid, 512 // 8 // self.patch)
        width = self.network.inner_dim // self.network.num_heads
        return get_2d_rotary_pos_embed(width, corners, grid, device=x.device, output_type="pt")
