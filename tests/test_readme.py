"""The README's Python runs as it stands."""

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"


def test_python_examples_run(capsys: Any) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) == 3
    assert len(blocks[0].strip().splitlines()) <= 10
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["posterior"].shape == (5, 10)
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert [r.ranking[0] for r in names["results"]] == [0, 1]
