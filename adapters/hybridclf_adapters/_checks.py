"""Options, labels and prompts that adapters check alike."""

import warnings
from collections.abc import Hashable, Sequence

import torch

from hybridclf.errors import InvalidInputError
from hybridclf.ports import Label

__all__ = ["as_dtype", "check_distinct", "check_templates", "fill", "same_twice", "warn_of_cut"]

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""What `precision` may be."""


def as_dtype(precision: str) -> torch.dtype:
    """The type of that name.

    Raises
    ------
    InvalidInputError
        For any other name.
    """
    if precision not in PRECISIONS:
        raise InvalidInputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return PRECISIONS[precision]


def check_templates(prompts: str | Sequence[str]) -> tuple[str, ...]:
    """The templates, one or several.

    Raises
    ------
    InvalidInputError
        For none, or one without "{}".
    """
    templates = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if not templates or not all(isinstance(t, str) and "{}" in t for t in templates):
        raise InvalidInputError(
            f"prompts must be templates with {{}} where the label goes, such as 'a photo of a {{}}.'; got {prompts!r}"
        )
    return templates


def fill(templates: Sequence[str], labels: Sequence[Label]) -> list[str]:
    """The prompts of each label, label by label, `[L·n]` for n templates."""
    return [template.replace("{}", str(label)) for label in labels for template in templates]


def check_distinct(labels: Sequence[Label], prompts: Sequence[str], readings: Sequence[Hashable]) -> None:
    """Check that a model reads each label's prompts in another way.

    Parameters
    ----------
    labels : sequence of L labels
        What is asked for.
    prompts : sequence of L·n str
        Their prompts, label by label.
    readings : sequence of L keys
        What the model makes of all prompts of a label.

    Raises
    ------
    InvalidInputError
        If two labels read the same.
    """
    same = same_twice(readings)
    if same:
        i, j = same
        n = len(prompts) // len(labels)
        raise InvalidInputError(
            f"labels {labels[i]!r} and {labels[j]!r} read the same to the model, as {prompts[n * i]!r} and "
            f"{prompts[n * j]!r}; leave one out, or reword the labels or the prompts"
        )


def warn_of_cut(prompts: Sequence[str], limit: int, stacklevel: int) -> None:
    """Warn of these prompts, if any, as longer than the tokens that the model reads."""
    if prompts:
        others = f" (and so are {len(prompts) - 1} more)" if len(prompts) > 1 else ""
        warnings.warn(
            f"cut off after {limit} tokens, all the model reads: {prompts[0]!r}{others}", stacklevel=stacklevel + 1
        )


def same_twice(keys: Sequence[Hashable]) -> tuple[int, int] | None:
    """Positions of the first two keys that are equal, or None."""
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        if first.setdefault(key, i) != i:
            return first[key], i
    return None
