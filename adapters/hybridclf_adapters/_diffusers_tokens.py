"""Textual inversion: tokens with learned embeddings, added to a pipeline's tokenizers and text encoders."""

from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hybridclf.errors import InvalidInputError, SavedModelError

from ._diffusers_logging import quiet

__all__ = ["load_embedding"]

TWO_ENCODERS = {"clip_l": "", "clip_g": "_2"}
"""Names of the embeddings for Stable Diffusion XL's text encoders, by the end of the parts' names."""

UNNAMED = "emb_params"
"""Name of an embedding whose token is the name of its file."""


def load_embedding(pipe: Any, path: Path) -> None:
    """Add the tokens of a file to a pipeline; a label or a template then uses them as words.

    The token is the name of the embedding in the file, such as "<my-cat>", or that of the file in the forms that have
    no name.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Pipeline with CLIP text encoders.
    path : Path
        File in safetensors; embeddings are `[d]` or, of several vectors for a token, `[n, d]`.

    Raises
    ------
    InvalidInputError
        For a family whose pipeline takes no such tokens.
    SavedModelError
        If the file cannot be read, is not in safetensors, or does not fit the pipeline.
    """
    if not hasattr(pipe, "load_textual_inversion"):
        raise InvalidInputError(f"a {type(pipe).__name__} takes no textual inversion; leave embedding out")
    path = path.expanduser()
    if path.suffix != ".safetensors":
        raise SavedModelError(
            f"{str(path)!r} is no embedding in safetensors (a pickled one can run any code when read)"
        )
    try:
        for part, embeddings in _by_part(path).items():
            encoder, tokenizer = getattr(pipe, f"text_encoder{part}"), getattr(pipe, f"tokenizer{part}")
            for token, value in embeddings.items():
                _add(pipe, token, value, encoder, tokenizer)
    except (AttributeError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise SavedModelError(
            f"the embedding {str(path)!r} cannot be used with this pipeline: {error}; give the pipeline that it was "
            "trained on"
        ) from error


def _by_part(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read embeddings by token, by the end of the names of the parts that they belong to."""
    tensors = safetensors.torch.load_file(path)
    if tensors and tensors.keys() <= TWO_ENCODERS.keys():
        return {TWO_ENCODERS[name]: {path.stem: value} for name, value in tensors.items()}
    return {"": {path.stem if name == UNNAMED else name: value for name, value in tensors.items()}}


def _add(pipe: Any, token: str, value: Tensor, encoder: Any, tokenizer: Any) -> None:
    width = encoder.get_input_embeddings().weight.shape[1]
    if value.ndim not in (1, 2) or value.shape[-1] != width:
        raise ValueError(f"{token!r} has the shape {tuple(value.shape)}, and the text encoder's width is {width}")
    with quiet():
        pipe.load_textual_inversion({token: value}, token=token, text_encoder=encoder, tokenizer=tokenizer)
