"""Progress for a terminal, for a file and for nobody."""

import io
import pickle
import sys

import pytest

from hybridclf.utils.progress import progress_bar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(**options: bool) -> str:
    with progress_bar(range(50), desc="work", show=True, **options) as bar:
        for _ in bar:
            with progress_bar(total=1, desc="part", leave=None, show=True) as inner:
                inner.update()
    return sys.stderr.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_file_gets_lines_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    with progress_bar(range(500), desc="work", show=True) as bar:
        list(bar)
    sys.stderr.seek(0)
    text = sys.stderr.read()
    assert not {"\r", "\x1b"} & set(text)
    lines = text.splitlines()
    assert lines[0].startswith("work:   0%") and lines[-1].startswith("work: 100%") and 2 <= len(lines) <= 4


def test_a_terminal_gets_one_line_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert "\rwork:   0%" in shown()


@pytest.mark.parametrize(("value", "hidden"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_tqdm_disable_is_honoured(value: str, hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TQDM_DISABLE", value)
    assert (shown() == "") == hidden


def test_nothing_is_shown_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress_bar(range(3), show=False))
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_another_process_gets_a_hidden_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(total=2, show=True) as bar:
        before, sent = sys.stderr.getvalue(), pickle.loads(pickle.dumps(bar))  # type: ignore[attr-defined]
        sent.set_description("elsewhere")
        sent.update()
        assert sys.stderr.getvalue() == before and bar.n == 0  # type: ignore[attr-defined]
