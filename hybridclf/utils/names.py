"""Class names: distinct labels where names repeat, plain names for prompts, and prompt templates."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from ..ports import Label

__all__ = ["Prompts", "Template", "name_of", "told_apart"]

Template = str | Callable[[str], str]
"""Prompt template: a text with {} in place of the class name, or a function of the name."""

Prompts = Template | Sequence[Template]
"""One template or several."""

_MARK = re.compile(r" \((#\d+|n\d{8})\)$")


def told_apart(labels: Sequence[Label]) -> list[Label]:
    """Make labels distinct: repeated names get their position from 0 appended, "crane (#134)" and "crane (#517)"."""
    count = Counter(labels)
    repeats = [isinstance(label, str) and count[label] > 1 for label in labels]
    return [f"{label} (#{i})" if again else label for i, (label, again) in enumerate(zip(labels, repeats, strict=True))]


def name_of(label: Label) -> str:
    """Name of a class in prompts: its label without a final position "(#517)" or WordNet id "(n03126707)"."""
    return _MARK.sub("", str(label))
