"""Checks of options, labels and prompts that several adapters share."""

import warnings
from collections.abc import Hashable, Sequence

import torch

from hybridclf.errors import InvalidInputError
from hybridclf.ports import Label
from hybridclf.utils.names import Prompts, Template, name_of

__all__ = ["as_dtype", "check_distinct", "check_templates", "fill", "same_twice", "warn_of_cut"]

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Types by the values of the option `precision`."""


def as_dtype(precision: str) -> torch.dtype:
    """Look up the type of a `precision`.

    Raises
    ------
    InvalidInputError
        For anything but "fp32", "fp16" or "bf16".
    """
    if precision not in PRECISIONS:
        raise InvalidInputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return PRECISIONS[precision]


def check_templates(prompts: Prompts) -> tuple[Template, ...]:
    """Check one template or several, and return them as a tuple.

    Raises
    ------
    InvalidInputError
        If there is none, or one is neither a function nor a text with "{}".
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
    """Fill n templates with L labels' names, label by label, `[L·n]`; `utils.names.name_of` gives the names.

    Raises
    ------
    InvalidInputError
        For a template function that returns no string.
    """
    prompts = [
        # not str.format: a label may have braces of its own
        template.replace("{}", name) if isinstance(template, str) else template(name)
        for name in map(name_of, labels)
        for template in templates
    ]
    wrong = [prompt for prompt in prompts if not isinstance(prompt, str)]
    if wrong:
        raise InvalidInputError(f"a function among the prompts must return a string, got {wrong[0]!r}")
    return prompts


def check_distinct(labels: Sequence[Label], prompts: Sequence[str], readings: Sequence[Hashable]) -> None:
    """Check that labels of different names read differently to a model; labels of one name may read the same.

    Parameters
    ----------
    labels : sequence of L labels
        The labels.
    prompts : sequence of L·n str
        Prompts, label by label.
    readings : sequence of L keys
        Tokens of all prompts of a label.

    Raises
    ------
    InvalidInputError
        If two labels of different names have equal readings.
    """
    # only the first label of each name is compared: "crane (#134)" and "crane (#517)" have one name on purpose
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
    """Warn of prompts, if any, that are longer than the model reads."""
    if prompts:
        others = f" (and so are {len(prompts) - 1} more)" if len(prompts) > 1 else ""
        warnings.warn(
            f"cut off after {limit} tokens, all the model reads: {prompts[0]!r}{others}", stacklevel=stacklevel + 1
        )


def same_twice(keys: Sequence[Hashable]) -> tuple[int, int] | None:
    """Positions of the first two equal keys, or None."""
    first: dict[Hashable, int] = {}
    for i, key in enumerate(keys):
        if first.setdefault(key, i) != i:
            return first[key], i
    return None
