"""What is on the disk after a cut at any moment is whole, or says that it is not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hybridclf.atomic import make_folder, sync_tree, write_together, write_whole

OLD = {"a": b"old a", "b": b"old b", "sign": b"old"}
NEW = {"a": b"new a", "b": b"", "c": b"new c", "sign": b"new"}
EVENTS = ((os, "fsync"), (Path, "replace"), (Path, "unlink"))


class Cut(Exception):
    """The power fails."""


def cut_before(patch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Let so many syncs, renamings and removals happen, and none after; what happened is listed."""
    done: list[str] = []

    def watched(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def act(target: Any, *args: Any, **kwargs: Any) -> Any:
            if len(done) >= count:
                raise Cut
            name = Path(os.readlink(f"/proc/self/fd/{target}")) if what == "fsync" else target
            done.append(f"{what} {name.name}")
            return real(target, *args, **kwargs)

        return act

    for owner, what in EVENTS:
        patch.setattr(owner, what, watched(what, getattr(owner, what)))
    return done


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".part"}


def written(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in contents.items() if content}


proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files are read from /proc")


@proc
def test_a_folder_that_was_cut_short_is_old_or_new_or_has_no_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for count in range(30):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_together(folder, OLD)
        with monkeypatch.context() as patch:
            done = cut_before(patch, count)
            try:
                write_together(folder, NEW)
            except Cut:
                pass
            else:
                assert state(folder) == written(NEW) and len(done) <= count
        after = state(folder)
        assert "sign" not in after or after in (OLD, written(NEW))
        seen.add("none" if "sign" not in after else after["sign"].decode())
    assert seen == {"old", "none", "new"}


@proc
def test_all_is_on_the_disk_before_the_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new"
    with monkeypatch.context() as patch:
        done = cut_before(patch, 100)
        make_folder(folder)
        write_together(folder, NEW)
    at = done.index("replace sign.part")
    assert {"fsync a.part", "fsync c.part", "fsync sign.part", "replace a.part", "replace c.part"} <= set(done[:at])
    assert done[0] == f"fsync {tmp_path.name}"  # the folder's own name
    assert done[at - 1] == done[-1] == "fsync new" and done[at + 1 :].count("fsync new") == 1
    assert state(folder) == written(NEW)


@proc
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        done = cut_before(patch, 100)
        write_whole(tmp_path / "x", tmp_path / "x.part", lambda file: file.write(b"whole"))
    assert [event for event in done if not event.startswith("unlink")] == [
        "fsync x.part",
        "replace x.part",
        f"fsync {tmp_path.name}",
    ]
    assert state(tmp_path) == {"x": b"whole"}


@proc
def test_a_tree_is_on_the_disk_with_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "tree" / "below")
    for path in ("tree/x", "tree/below/y"):
        (tmp_path / path).write_bytes(b"z")
    with monkeypatch.context() as patch:
        done = cut_before(patch, 100)
        sync_tree(tmp_path / "tree")
    assert sorted(done) == ["fsync below", "fsync tree", "fsync x", "fsync y"]
