"""Labels of classes whose names repeat, the name that a model of text reads ("crane (#517)" is a "crane"), prompts."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from ..ports import Label

__all__ = ["Prompts", "Template", "name_of", "told_apart"]

Template = str | Callable[[str], str]
"""What makes a prompt of a class's name: a text with {} in its place, or a function."""

Prompts = Template | Sequence[Template]
"""One template or several."""

_MARK = re.compile(r" \((#\d+|n\d{8})\)$")


def told_apart(labels: Sequence[Label]) -> list[Label]:
    """The labels; names that repeat get their position behind them, counted from 0: "crane (#134)", "crane (#517)"."""
    count = Counter(labels)
    repeats = [isinstance(label, str) and count[label] > 1 for label in labels]
    return [f"{label} (#{i})" if again else label for i, (label, again) in enumerate(zip(labels, repeats, strict=True))]


def name_of(label: Label) -> str:
    """What prompts call a class: its label, without a position "(#517)" or a WordNet id "(n03126707)" at the end."""
    return _MARK.sub("", str(label))
