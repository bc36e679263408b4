"""The table of conditions: every label finds its own, whatever comes and goes."""

import numpy as np
import pytest
import torch

from hybridclf.denoising.conditions import ConditionTable
from hybridclf.ports import Condition, take


def condition(labels: list[str]) -> Condition:
    """Two tensors that tell every label from every other."""
    codes = torch.tensor([[float(ord(c)) for c in label] for label in labels])
    return {"code": codes, "length": codes.sum(dim=1).long()}


def knows(table: ConditionTable, label: str) -> bool:
    try:
        return bool(table.numbers([label]))
    except KeyError:
        return False


def check(table: ConditionTable, labels: list[str]) -> None:
    found = take(table.prompts, torch.tensor(table.numbers(labels)))
    for name, value in condition(labels).items():
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("begin", [[], ["ab", "cd"]])
def test_labels_are_added_once(begin: list[str]) -> None:
    table = ConditionTable({label: i for i, label in enumerate(begin)}, condition(begin) if begin else {})
    for labels in (["cd", "ef"], ["ef", "gh", "ab"], ["gh"]):
        table.add(labels, condition(labels))
        check(table, labels)
    assert len(table) == len(table.prompts["code"]) == 4
    check(table, ["ab", "cd", "ef", "gh"])


def test_labels_not_in_use_are_forgotten() -> None:
    table = ConditionTable({"ab": 1, "cd": 0}, condition(["cd", "ab"]))
    table.add(["ef", "gh", "ij"], condition(["ef", "gh", "ij"]))
    held = np.array([table.numbers(["gh", "ab"]), table.numbers(["ij", "ij"])])
    moved = table.forget(np.unique(held))
    assert [knows(table, label) for label in ("ab", "cd", "ef", "gh", "ij")] == [True, True, False, True, True]
    assert len(table.prompts["code"]) == 4
    assert moved[held].tolist() == [table.numbers(["gh", "ab"]), table.numbers(["ij", "ij"])]
    check(table, ["ab", "cd", "gh", "ij"])
    table.add(["ef"], condition(["ef"]))
    check(table, ["ij", "ef", "ab"])


def test_several_prompts_per_label() -> None:
    """Each label's prompts stay together, whatever comes and goes."""

    def prompts(labels: list[str]) -> Condition:
        return condition([label + end for label in labels for end in "xyz"])

    table = ConditionTable({"ab": 1, "cd": 0}, prompts(["cd", "ab"]))
    assert table.n_prompts == 3
    table.add(["cd", "ef", "gh"], prompts(["cd", "ef", "gh"]))
    table.forget(np.array(table.numbers(["gh"])))
    rows = (np.array(table.numbers(["gh", "ab"]))[:, None] * 3 + np.arange(3)).ravel()
    found = take(table.prompts, torch.from_numpy(rows))
    for name, value in prompts(["gh", "ab"]).items():
        assert torch.equal(found[name], value)
    assert ConditionTable({}, {}).n_prompts == 1


def test_what_does_not_fit_changes_nothing() -> None:
    table = ConditionTable({"ab": 0}, condition(["ab"]))
    with pytest.raises(RuntimeError):
        table.add(["c"], condition(["c"]))
    assert not knows(table, "c") and len(table) == 1
    table.add(["cd"], condition(["cd"]))
    check(table, ["ab", "cd"])
