"""Names of classes, and one naming of ImageNet for all models: "crane (n02012849)" is a bird to all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

__all__ = ["imagenet", "named"]

Naming = tuple[dict[int, str], dict[str, list[int]]]
"""The name of each class number, which is no other's, and the numbers that a name may stand for."""

Names = Mapping[int, Sequence[str]]


@cache
def imagenet(subset: str = "imagenet-1k") -> Naming:
    """The classes of ImageNet, or of one of its subsets that timm knows, in their usual order.

    A class is called by its WordNet lemmas, "tench, Tinca tinca", with its WordNet id behind them where another has the
    same, "crane (n02012849)". It is also known by its id and by each of its lemmas, which others may share: there the
    first lemma of a class comes before the others of another.
    """
    ids, lemmas = _wordnet(subset)
    names = _distinct(lemmas, ids)
    return names, _numbers(_known(lemmas, ids), _firsts(lemmas), _alone(names))


def named(given: Mapping[int, str]) -> Naming:
    """The same of classes that came with names of their own, several of one class set apart by commas.

    If these are ImageNet's classes, they are known by ImageNet's names too. If not, the id behind names that repeat is
    the class's number.
    """
    if not _is_imagenet(given):
        names = _distinct(given, {i: str(i) for i in given})
        return names, _numbers(_known(given), _firsts(given), _alone(names))
    ids, lemmas = _wordnet("imagenet-1k")
    names, theirs = _distinct(given, ids), _distinct(lemmas, ids)
    return names, _numbers(
        _known(given, ids), _known(lemmas, ids), _firsts(lemmas), _firsts(given), _alone(theirs), _alone(names)
    )


@cache
def _wordnet(subset: str) -> tuple[dict[int, str], dict[int, str]]:
    """WordNet ids and lemmas by class number."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    return dict(enumerate(info.label_names())), dict(enumerate(info.label_descriptions()))


def _is_imagenet(names: Mapping[int, str]) -> bool:
    """Whether these are the thousand classes of ImageNet in its order, up to the spelling of a few."""
    if sorted(names) != list(range(1000)):
        return False
    _, lemmas = _wordnet("imagenet-1k")
    return sum(not set(_split(lemmas[i])).isdisjoint(_split(name)) for i, name in names.items()) >= 900


def _numbers(*tiers: Names) -> dict[str, list[int]]:
    """The numbers of the classes that each name may stand for; a name means what the last tier that has it says."""
    numbers: dict[str, list[int]] = {}
    for tier in tiers:
        found: dict[str, list[int]] = {}
        for number, texts in tier.items():
            for text in dict.fromkeys(texts):
                found.setdefault(text, []).append(number)
        numbers |= found
    return numbers


def _known(names: Mapping[int, str], ids: Mapping[int, str] | None = None) -> Names:
    """All that a class may be known by: its names, together and each, its id, and names with the id behind them."""
    known = {i: [name, *_split(name)] for i, name in names.items()}
    return known if ids is None else {i: [ids[i], *own, *(f"{n} ({ids[i]})" for n in own)] for i, own in known.items()}


def _firsts(names: Mapping[int, str]) -> Names:
    return {i: _split(name)[:1] for i, name in names.items()}


def _alone(names: Mapping[int, str]) -> Names:
    return {i: [name] for i, name in names.items()}


def _distinct(names: Mapping[int, str], ids: Mapping[int, str]) -> dict[int, str]:
    """The names, those that repeat with an id behind them."""
    count = Counter(names.values())
    return {i: f"{name} ({ids[i]})" if count[name] > 1 else name for i, name in names.items()}


def _split(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]
