"""Options, labels and prompts that adapters check alike."""

import warnings
from collections.abc import Hashable, Sequence

import torch

from hybridclf.errors import InvalidInputError
from hybridclf.ports import Label
from hybridclf.utils.names import Prompts, Template, name_of

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


def check_templates(prompts: Prompts) -> tuple[Template, ...]:
    """The templates, one or several.

    Raises
    ------
    InvalidInputError
        For none, or one that is neither a function nor a text with "{}".
    """
    templates = (prompts,) if isinstance(prompts, str) or callable(prompts) else prompts
    known = isinstance(templates, list | tuple) and all(map(_is_template, templates))
    if not known or not templates:
        raise InvalidInputError(
            "prompts must be templates with {} where the label goes, such as 'a photo of a {}.', or functions from a "
            f"name to its prompt; got {prompts!r}"
        )
    return tuple(templates)


def _is_template(template: object) -> bool:
    return callable(template) or (isinstance(template, str) and "{}" in template)


def fill(templates: Sequence[Template], labels: Sequence[Label]) -> list[str]:
    """The prompts of each label, label by label, `[L·n]` for n templates; `utils.names.name_of` is what they name.

    Raises
    ------
    InvalidInputError
        For a function that returns no string.
    """
    prompts = [_prompt(template, name) for name in map(name_of, labels) for template in templates]
    wrong = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if wrong:
        raise InvalidInputError(f"a function among the prompts must return a string, got {wrong[0]!r}")
    return prompts


def _prompt(template: Template, name: str) -> str:
    return template.replace("{}", name) if isinstance(template, str) else template(name)


def check_distinct(labels: Sequence[Label], prompts: Sequence[str], readings: Sequence[Hashable]) -> None:
    """Check that a model reads each name's prompts in another way; labels of one name, told apart, may read the same.

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
        If two labels of different names read the same.
    """
    first: dict[Label, int] = {}
    for position, label in enumerate(labels):
        first.setdefault(name_of(label) if isinstance(label, str) else label, position)
    shown = list(first.values())
    same = same_twice([readings[i] for i in shown])
    if same:
        i, j = (shown[k] for k in same)
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
