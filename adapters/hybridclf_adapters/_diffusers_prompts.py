"""Base class of diffusers denoisers that are conditioned on text: prompts, and their cached embeddings."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, ClassVar, Self

import torch

from hybridclf.ports import Condition, Label

from ._checks import check_templates, fill
from ._diffusers_base import DiffusersDenoiser
from ._diffusers_logging import quiet
from ._diffusers_text import Embeddings, Reading
from ._diffusers_tuning import Adaptation

__all__ = ["TextDenoiser"]

OTHER_LABEL = "#"
"""Stands for another label in a prompt, to find a label's own tokens."""

_READING = Lock()
"""Lock of all tokenizers, which are not thread-safe. A denoiser with a lock of its own could not be copied."""


class TextDenoiser(DiffusersDenoiser):
    """Denoiser conditioned on text: a prompt per label and template, encoded by the pipeline's `encode_prompt`."""

    lowercase: ClassVar[bool] = False
    """True if the pipeline converts prompts to lower case before it tokenises them."""

    def __init__(self, pipe: Any, prompts: str | Sequence[str], *args: Any) -> None:
        super().__init__(pipe, prompts, *args)
        self.templates = check_templates(prompts)
        self._reading = Reading(self.tokenizers())
        self._embeddings = Embeddings(self._embed)

    def follow(self, device: torch.device, dtype: torch.dtype) -> None:
        """Adopt device and type, and forget the embeddings, which were computed in another type."""
        super().follow(device, dtype)
        self._embeddings = Embeddings(self._embed)

    def replace_embeddings(self, known: Embeddings | None = None) -> Embeddings:
        """Replace the cache of text embeddings, by default with an empty one, and return the earlier one."""
        earlier, self._embeddings = self._embeddings, known or Embeddings(self._embed)
        return earlier

    @contextmanager
    def adapted(self, rank: int, words_of: Sequence[Label], seed: int) -> Iterator[Adaptation]:
        """Add new parameters for tuning in a `with` block; see `hybridclf.ports.TunableDenoiser`."""
        # what was encoded before, or is in the block, is of no use on the other side of its end
        known = self.replace_embeddings() if words_of else None
        try:
            with super().adapted(rank, words_of, seed) as adaptation:
                yield adaptation
        finally:
            if known is not None:
                self.replace_embeddings(known)

    def rows_of(self, table: str, labels: Sequence[Label]) -> list[int]:
        """Tokens of labels in a text encoder's table, as the prompts have them, sorted.

        They are those by which a prompt differs from the same one of another label: many tokenizers read a word behind
        a space otherwise than by itself, and some pipelines read small letters alone.
        """
        tokenizer = getattr(self.pipe, table.replace("text_encoder", "tokenizer"))
        prompts = [self.as_read(fill(self.templates, names)) for names in (labels, [OTHER_LABEL] * len(labels))]
        own, other = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in prompts)
        found = {token for ids, others in zip(own, other, strict=True) for token in _between(ids, others)}
        return sorted(found - set(tokenizer.all_special_ids))

    def encode_labels(self, labels: Sequence[Label]) -> Condition:
        """Encode labels as `condition` does, but anew and with gradients."""
        return self.embed(fill(self.templates, labels))

    def with_prompts(self, prompts: str | Sequence[str]) -> Self:
        """A copy with other prompt templates; it shares the networks and the cached embeddings.

        Raises
        ------
        InvalidInputError
            For a template without {}.
        """
        other = copy.copy(self)
        other.templates = check_templates(prompts)
        return other

    @abstractmethod
    def tokenizers(self) -> list[tuple[Any, int]]:
        """List the pipeline's tokenizers with their token limits; an absent one is None."""

    @abstractmethod
    def embed(self, prompts: list[str]) -> Condition:
        """Encode n prompts to a condition `[n, …]`."""

    def as_read(self, prompts: list[str]) -> list[str]:
        """Prompts as the pipeline passes them to its tokenizers, in lower case or inside a template of its own."""
        return [prompt.lower().strip() for prompt in prompts] if self.lowercase else prompts

    def sampler_inputs(self, labels: Sequence[Label], seeds: Sequence[int]) -> dict[str, Any]:
        """A prompt per image, and the guidance scale of a network that takes one."""
        chosen = [self.templates[seed % len(self.templates)] for seed in seeds]
        prompts = [fill([own], [label])[0] for own, label in zip(chosen, labels, strict=True)]
        return {"prompt": prompts} | ({} if self.guidance is None else {"guidance_scale": self.guidance})

    def condition(self, labels: Sequence[Label]) -> Condition:
        """Encode L labels and n templates to text embeddings `[L·n, …]`; each prompt is encoded once and cached.

        Threads wait for each other.

        Raises
        ------
        InvalidInputError
            If two labels have the same tokens in all prompts.
        """
        prompts = fill(self.templates, labels)
        with _READING:
            self._reading.check(labels, prompts, self.as_read(prompts))
            return self._embeddings(prompts, self.device)

    def _embed(self, prompts: list[str]) -> Condition:
        with torch.no_grad(), quiet():
            embedded = self.embed(prompts)
        # masks stay integers
        return {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in embedded.items()}


def _between(own: Sequence[int], other: Sequence[int]) -> Sequence[int]:
    """Tokens of one list that are behind the beginning and before the end which it shares with another.

    >>> _between([7, 1, 2, 9, 8], [7, 3, 9, 8])
    [1, 2]
    """
    n = min(len(own), len(other))
    start = next((i for i in range(n) if own[i] != other[i]), n)
    end = next((i for i in range(n - start) if own[-1 - i] != other[-1 - i]), n - start)
    return own[start : len(own) - end]
