"""Class names, with one naming of ImageNet for all models: "crane (n02012849)" is a bird to each of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache

__all__ = ["imagenet", "named"]

Naming = tuple[dict[int, str], dict[str, list[int]]]
"""Distinct name of each class number, and the class numbers that each known name may mean."""

Names = Mapping[int, Sequence[str]]


@cache
def imagenet(subset: str = "imagenet-1k") -> Naming:
    """Name the classes of ImageNet, or of one of its subsets that timm knows, in their usual order.

    The name of a class is its WordNet lemmas, "tench, Tinca tinca". If two classes have the same, their WordNet ids are
    appended, "crane (n02012849)". A class is also known by its id and by each of its lemmas. A lemma that several
    classes share means the class whose first lemma it is.
    """
    ids, lemmas = _wordnet(subset)
    names = _distinct(lemmas, ids)
    return names, _numbers(_known(lemmas, ids), _firsts(lemmas), _alone(names))


def named(given: Mapping[int, str]) -> Naming:
    """Name classes that come with names of their own, a class's synonyms joined by commas.

    ImageNet's classes are known by ImageNet's names too. For any others, the number of a class is appended to a name
    that repeats.
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
    """Look up WordNet ids and lemmas by class number."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo(subset)
    return dict(enumerate(info.label_names())), dict(enumerate(info.label_descriptions()))


def _is_imagenet(names: Mapping[int, str]) -> bool:
    """Tell whether names are the thousand classes of ImageNet in its order, up to the spelling of a few."""
    if sorted(names) != list(range(1000)):
        return False
    _, lemmas = _wordnet("imagenet-1k")
    # 900 of 1000: lists differ in the spelling or choice of some synonyms
    return sum(not set(_split(lemmas[i])).isdisjoint(_split(name)) for i, name in names.items()) >= 900


def _numbers(*tiers: Names) -> dict[str, list[int]]:
    """Class numbers that each name may mean; a later mapping overrides the earlier ones."""
    numbers: dict[str, list[int]] = {}
    for tier in tiers:
        found: dict[str, list[int]] = {}
        for number, texts in tier.items():
            # each name of a class once
            for text in dict.fromkeys(texts):
                found.setdefault(text, []).append(number)
        numbers |= found
    return numbers


def _known(names: Mapping[int, str], ids: Mapping[int, str] | None = None) -> Names:
    """List all names of each class: together, one by one, its id, and the names with the id appended."""
    known = {i: [name, *_split(name)] for i, name in names.items()}
    return known if ids is None else {i: [ids[i], *own, *(f"{n} ({ids[i]})" for n in own)] for i, own in known.items()}


def _firsts(names: Mapping[int, str]) -> Names:
    return {i: _split(name)[:1] for i, name in names.items()}


def _alone(names: Mapping[int, str]) -> Names:
    return {i: [name] for i, name in names.items()}


def _distinct(names: Mapping[int, str], ids: Mapping[int, str]) -> dict[int, str]:
    """Make names distinct: an id is appended to those that repeat."""
    count = Counter(names.values())
    return {i: f"{name} ({ids[i]})" if count[name] > 1 else name for i, name in names.items()}


def _split(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]
