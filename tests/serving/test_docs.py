"""The page on serving: its examples run, against a real server."""

import re
from pathlib import Path
from typing import Any

from tests.serving.processes import Server, picture

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "serving.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)


def test_the_example_in_process_runs(capsys: Any) -> None:
    exec(compile(BLOCKS[0], "serving.md", "exec"), {})
    best, evaluations, stopped_by = capsys.readouterr().out.split()
    assert best == "3"
    assert int(evaluations) > 0
    assert stopped_by in ("confident", "budget")


def test_the_client_of_a_few_lines_runs(server: Server) -> None:
    assert len(BLOCKS[1].strip().splitlines()) <= 18
    names: dict[str, Any] = {}
    source = BLOCKS[1].replace("http://127.0.0.1:8000", server.url)
    source = source.replace('"deadline_ms": 200', '"deadline_ms": 60_000').replace(
        "timeout=5", "timeout=60"
    )  # slow machines
    exec(compile(source, "serving.md", "exec"), names)
    with names["server"]:
        assert names["second_opinion"](picture(3), ["8", "3"], [-0.6, -0.9]) == "3"
        assert names["second_opinion"](picture(3), ["8", "3"], [-0.001, -7.0]) == "8"  # sure enough not to ask
        assert names["second_opinion"](picture(3), ["3", "8"], [-7.0, -0.001]) == "8"  # in whatever order
        assert names["second_opinion"](picture(3), ["3", "yak"], [-0.9, -0.6]) == "yak"  # refused: tier 1's
        names["server"].base_url = "http://127.0.0.1:1"
        assert names["second_opinion"](picture(3), ["8", "3"], [-0.6, -0.9]) == "8"  # no server at all
