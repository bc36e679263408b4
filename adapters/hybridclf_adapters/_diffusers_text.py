"""From labels to text embeddings: prompts that differ, tokenised as the model reads them, encoded once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridclf.ports import Condition, Label

from ._checks import check_distinct, warn_of_cut

__all__ = ["CACHE_BYTES", "Embeddings", "Reading"]

CACHE_BYTES = 4 * 2**30
"""Text embeddings kept in main memory: a thousand prompts of T5-XXL and all that come up of CLIP."""

BATCH = 8
"""Prompts in one pass of the text encoder, always: an embedding must not depend on which others are asked for."""


class Reading:
    """How a model's tokenizers read prompts: refuses labels that read the same, warns of prompts that are cut off.

    Parameters
    ----------
    tokenizers : sequence of (tokenizer, limit)
        With how many tokens each is allowed.
    """

    def __init__(self, tokenizers: Sequence[tuple[Any, int]]) -> None:
        self.tokenizers = [(tokenizer, limit) for tokenizer, limit in tokenizers if tokenizer is not None]
        self._warned: set[str] = set()

    def check(self, labels: Sequence[Label], prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Check the prompts of L labels, `[L·n]` label by label, which reach the tokenizers as `texts`.

        Raises
        ------
        InvalidInputError
            If all prompts of two labels become the same tokens.
        """
        tokens = [(self._tokens(tokenizer, limit, texts), limit) for tokenizer, limit in self.tokenizers]
        self._warn([(p, limit) for ids, limit in tokens for p, i in zip(prompts, ids, strict=True) if len(i) > limit])
        readings = [tuple(tuple(ids[i][: limit - 1]) for ids, limit in tokens) for i in range(len(prompts))]
        n = len(prompts) // len(labels)
        check_distinct(labels, prompts, [tuple(readings[i : i + n]) for i in range(0, len(readings), n)])

    def _warn(self, long: list[tuple[str, int]]) -> None:
        new = {prompt: limit for prompt, limit in long if prompt not in self._warned}
        self._warned.update(new)
        warn_of_cut(list(new), next(iter(new.values()), 0), stacklevel=4)

    @staticmethod
    def _tokens(tokenizer: Any, limit: int, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, one more than the limit at most."""
        return tokenizer(list(texts), truncation=True, max_length=limit + 1)["input_ids"]


class Embeddings:
    """Text embeddings by prompt, encoded once; those least recently asked for are forgotten first.

    Parameters
    ----------
    encode : function
        From n prompts to their condition `[n, …]`.
    limit : int
        Bytes to keep.
    """

    def __init__(self, encode: Callable[[list[str]], Condition], limit: int = CACHE_BYTES) -> None:
        self.encode, self.limit = encode, limit
        self._known: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0

    def __call__(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """The condition `[L, …]` of L prompts, on a device."""
        rows = {p: self._known[p] for p in prompts if p in self._known}
        missing = [p for p in dict.fromkeys(prompts) if p not in rows]
        for i in range(0, len(missing), BATCH):
            batch = missing[i : i + BATCH]
            encoded = self.encode(batch + batch[-1:] * (BATCH - len(batch)))
            for n, prompt in enumerate(batch):
                rows[prompt] = {name: value[n].to("cpu", copy=True) for name, value in encoded.items()}
        self._keep({p: rows[p] for p in prompts})
        return {name: torch.stack([rows[p][name] for p in prompts]).to(device) for name in rows[prompts[0]]}

    def _keep(self, rows: dict[str, dict[str, Tensor]]) -> None:
        for prompt, row in rows.items():
            if prompt not in self._known:
                self._bytes += _size(row)
            self._known[prompt] = row
            self._known.move_to_end(prompt)
        while self._bytes > self.limit and self._known:
            self._bytes -= _size(self._known.popitem(last=False)[1])


def _size(row: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in row.values())
