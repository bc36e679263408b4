"""Text embeddings of labels: prompts are checked as the model's tokenizers read them, and encoded once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybridclf.ports import Condition, Label

from ._checks import check_distinct, warn_of_cut

__all__ = ["CACHE_BYTES", "Embeddings", "Reading"]

CACHE_BYTES = 4 * 2**30
"""Memory limit of cached embeddings, enough for a thousand prompts of T5-XXL or practically any number of CLIP's."""

BATCH = 8
"""Prompts per pass of the text encoder. The size is fixed, so that an embedding does not depend on the others."""


class Reading:
    """Check of prompts by a model's tokenizers: refuses labels with equal tokens, warns of prompts that are cut off.

    Parameters
    ----------
    tokenizers : sequence of (tokenizer, limit)
        Tokenizers, or None for an absent one, with their token limits.
    """

    def __init__(self, tokenizers: Sequence[tuple[Any, int]]) -> None:
        self.tokenizers = [(tokenizer, limit) for tokenizer, limit in tokenizers if tokenizer is not None]
        self._warned: set[str] = set()

    def check(self, labels: Sequence[Label], prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Check the prompts of L labels, `[L·n]` label by label, which reach the tokenizers as `texts`.

        Raises
        ------
        InvalidInputError
            If two labels have the same tokens in all prompts.
        """
        # one token more than the limit is enough to see that a prompt is cut off; the last one kept is the end mark
        tokens = [(self._tokens(tokenizer, limit, texts), limit) for tokenizer, limit in self.tokenizers]
        self._warn([(p, limit) for ids, limit in tokens for p, i in zip(prompts, ids, strict=True) if len(i) > limit])
        readings = [tuple(tuple(ids[i][: limit - 1]) for ids, limit in tokens) for i in range(len(prompts))]
        n = len(prompts) // len(labels)
        check_distinct(labels, prompts, [tuple(readings[i : i + n]) for i in range(0, len(readings), n)])

    def _warn(self, long: list[tuple[str, int]]) -> None:
        # each prompt once, however often it is encoded
        new = {prompt: limit for prompt, limit in long if prompt not in self._warned}
        self._warned.update(new)
        warn_of_cut(list(new), next(iter(new.values()), 0), stacklevel=4)

    @staticmethod
    def _tokens(tokenizer: Any, limit: int, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts, each to at most one token more than the limit."""
        return tokenizer(list(texts), truncation=True, max_length=limit + 1)["input_ids"]


class Embeddings:
    """Cache of text embeddings by prompt; the least recently used are dropped first.

    Parameters
    ----------
    encode : function
        Function from n prompts to their condition `[n, …]`.
    limit : int
        Memory limit in bytes.
    """

    def __init__(self, encode: Callable[[list[str]], Condition], limit: int = CACHE_BYTES) -> None:
        self.encode, self.limit = encode, limit
        self._known: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0

    def __call__(self, prompts: Sequence[str], device: torch.device) -> Condition:
        """Encode L prompts to a condition `[L, …]` on a device."""
        rows = {p: self._known[p] for p in prompts if p in self._known}
        missing = [p for p in dict.fromkeys(prompts) if p not in rows]
        for i in range(0, len(missing), BATCH):
            batch = missing[i : i + BATCH]
            encoded = self.encode(batch + batch[-1:] * (BATCH - len(batch)))  # padded by repeating the last prompt
            for n, prompt in enumerate(batch):
                # copies, as a view would keep the whole batch in memory
                rows[prompt] = {name: value[n].to("cpu", copy=True) for name, value in encoded.items()}
        self._keep({p: rows[p] for p in prompts})
        return {name: torch.stack([rows[p][name] for p in prompts]).to(device) for name in rows[prompts[0]]}

    def _keep(self, rows: dict[str, dict[str, Tensor]]) -> None:
        """Cache embeddings as the most recent ones, within the memory limit."""
        for prompt, row in rows.items():
            if prompt not in self._known:
                self._bytes += _size(row)
            self._known[prompt] = row
            self._known.move_to_end(prompt)
        while self._bytes > self.limit and self._known:
            self._bytes -= _size(self._known.popitem(last=False)[1])


def _size(row: dict[str, Tensor]) -> int:
    return sum(value.nbytes for value in row.values())
