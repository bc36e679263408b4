"""Folders of a batch in a store: the rows are those of the same files on this machine, and failures say what to do."""

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from hybridclf import batch
from hybridclf.batch import output, stores
from hybridclf.batch.folders import LocalFolder
from hybridclf.batch.inputs import Part, list_input
from hybridclf.batch.stores import RemoteFolder, folder_of
from hybridclf.errors import InvalidInputError, MissingDependencyError

Check = Callable[[Path], None]


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    """An empty store in memory, for memory://."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridclf.batch.inputs.PART", 8)
    monkeypatch.setattr("hybridclf.batch.PART", 8)


@pytest.fixture
def uploaded(
    digits_folder: Callable[[int], tuple[Path, Check]], store: MemoryFileSystem, small_parts: None
) -> tuple[Path, Check]:
    """24 digits in the store, under /in, and on this machine: three parts."""
    folder, check = digits_folder(24)
    for file in folder.iterdir():
        store.pipe_file(f"/in/{file.name}", file.read_bytes())
    return folder, check


def download(store: MemoryFileSystem, folder: Path) -> Path:
    folder.mkdir()
    for path in store.find("/out"):
        (folder / path.rpartition("/")[2]).write_bytes(store.cat_file(path))
    return folder


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_in_a_store_is_that_of_this_machine_to_the_bit(
    uploaded: tuple[Path, Check], store: MemoryFileSystem, tmp_path: Path
) -> None:
    folder, check = uploaded
    summary = batch.run("memory://in/", "memory://out", "digits")
    assert (summary.output, summary.parts, summary.images, summary.errors) == ("memory://out", 3, 24, 2)
    check(download(store, tmp_path / "downloaded"))
    batch.run(f"file://{folder}", f"file://{tmp_path}/here", "digits")
    here = {file.name: file.read_bytes() for file in (tmp_path / "here").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "downloaded").iterdir()} == here
    assert batch.run(folder, "memory://out", "digits").done_before == 24  # the same input, wherever it lies


def test_what_is_missing_or_damaged_in_a_store_is_done_again(
    uploaded: tuple[Path, Check], store: MemoryFileSystem
) -> None:
    """Every one of 200 flipped bits is noticed, and the part becomes what it was."""
    batch.run("memory://in", "memory://out", "digits")
    path, rng = "/out/part-000001.parquet", np.random.default_rng(0)
    content = store.cat_file(path)
    out, part = RemoteFolder("memory://out"), list_input("memory://in").parts[1]
    assert output.is_done(out, part)
    for bit in rng.choice(8 * len(content), 200, replace=False).tolist():
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        store.pipe_file(path, bytes(damaged))
        assert not output.is_done(out, part), bit
    store.rm_file("/out/part-000002.parquet")
    assert batch.run("memory://in", "memory://out", "digits").done_before == 8
    assert store.cat_file(path) == content


def test_parquet_in_a_store(uploaded: tuple[Path, Check], store: MemoryFileSystem) -> None:
    image = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(uploaded[0].iterdir())]
    with store.open("/tables/a.parquet", "wb") as file:
        pq.write_table(pa.table({"image": image}), file, row_group_size=5)
    batch.run(uploaded[0], "memory://of files", "digits")
    assert list_input("memory://tables/a.parquet") == list_input("memory://tables")
    batch.run("memory://tables/a.parquet", "memory://out", "digits")
    with store.open("/out/part-000001.parquet") as one, store.open("/of files/part-000001.parquet") as other:
        rows, files = pq.read_table(one), pq.read_table(other)
    assert rows["label"] == files["label"]
    assert set(rows["path"].to_pylist()) == {"a.parquet"}


def test_images_of_a_store_are_listed_in_the_order_of_this_machine(store: MemoryFileSystem, tmp_path: Path) -> None:
    for name in ("a-b/x.png", "a/x.png", "a/y.JPG", "a.png", ".hidden/x.png", "a/.x.png", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "in" / name).write_bytes(b"1")
        store.pipe_file(f"/in/{name}", b"1")
    here, there = list_input(tmp_path / "in"), list_input("memory://in")
    assert there.parts == here.parts
    assert there.sha256 == here.sha256


def test_a_huge_image_of_a_store_is_a_row_with_an_error(
    uploaded: tuple[Path, Check], store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_BYTES", 200)
    store.pipe_file("/in/00003.png", bytes(300))
    assert batch.run("memory://in", "memory://out", "digits").errors == 3
    with store.open("/out/part-000000.parquet") as file:
        assert "more than 200 bytes" in pq.read_table(file)["error"][3].as_py()


# --- locks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "BEAT", 0.05)
    monkeypatch.setattr(stores, "LEASE", 1.0)


def test_an_empty_object_is_a_row_with_an_error(
    uploaded: tuple[Path, Check], store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 has no range of an object without bytes, and says so by an error."""
    cat_file = MemoryFileSystem.cat_file

    def ranged(self: MemoryFileSystem, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
        if start is not None and self.size(path) == 0:
            raise OSError(22, "The requested range is not satisfiable")
        return cat_file(self, path, start, end, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", ranged)
    name = sorted(path.name for path in uploaded[0].iterdir())[3]
    store.pipe_file(f"/in/{name}", b"")
    summary = batch.run("memory://in", "memory://out", "digits")
    rows = pq.read_table(download(store, tmp_path / "out")).to_pylist()
    assert summary.images == 24 and "not an image in one of the formats" in rows[3]["error"]


def test_a_folder_that_a_console_has_made_is_empty(uploaded: tuple[Path, Check], store: MemoryFileSystem) -> None:
    """By an object without bytes that has the name of the folder and a slash."""
    store.store["/out/"] = MemoryFile(store, "/out/", b"")
    assert batch.run("memory://in", "memory://out", "digits").done_before == 0
    assert batch.run("memory://in", "memory://out", "digits").done_before == 24


def test_keys_that_differ_by_a_slash_are_two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {path: {"size": 1} for path in ("/in/a.png", "/in//a.png", "/in/b/c.png")}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_, **__: found)
    assert set(RemoteFolder("memory://in").sizes([".png"])) == {"a.png", "/a.png", "b/c.png"}


def test_a_second_run_into_a_store_is_refused(store: MemoryFileSystem, quick_beats: None) -> None:
    with output.exclusive(RemoteFolder("memory://out")):
        with (
            pytest.raises(InvalidInputError, match="another run writes to memory://out"),
            output.exclusive(RemoteFolder("memory://out")),
        ):
            pass
        assert store.exists("/out/_lock")
    assert not store.exists("/out/_lock")


def test_the_lock_of_a_dead_run_is_taken_over(store: MemoryFileSystem, quick_beats: None) -> None:
    store.pipe_file("/out/_lock", b"of a run that was killed")
    with output.exclusive(RemoteFolder("memory://out")):
        assert store.cat_file("/out/_lock") != b"of a run that was killed"


def test_a_lock_that_is_removed_while_it_is_watched_is_free(store: MemoryFileSystem, quick_beats: None) -> None:
    store.pipe_file("/out/_lock", b"of a run that ends")
    remover = threading.Timer(0.1, store.rm_file, ["/out/_lock"])
    remover.start()
    with output.exclusive(RemoteFolder("memory://out")):
        remover.join()


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_store_that_fails_costs_no_image(
    uploaded: tuple[Path, Check], store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends and goes on later; rows with errors would stay."""
    cat_file = MemoryFileSystem.cat_file

    def failing(self: Any, path: str, *args: Any, **options: Any) -> bytes:
        if path.endswith("00012.png"):
            unreachable()
        return cat_file(self, path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", failing)
        with pytest.raises(InvalidInputError, match=r"memory://in/00012.png cannot be read: no route to host; mend"):
            batch.run("memory://in", "memory://out", "digits")
    assert batch.run("memory://in", "memory://out", "digits").done_before == 8
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "find", unreachable)
        with pytest.raises(InvalidInputError, match="memory://in cannot be read: no route to host; mend that"):
            batch.run("memory://in", "memory://out", "digits")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", unreachable)
        with pytest.raises(InvalidInputError, match="memory://new cannot be written: no route to host; mend that"):
            batch.run("memory://in", "memory://new", "digits")


def test_an_output_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    uploaded: tuple[Path, Check], store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest of another batch, and its parts, would be overwritten or taken for this one's."""
    store.pipe_file("/out/_manifest.json", b"of another batch")
    ls = MemoryFileSystem.ls

    def forbidden(self: MemoryFileSystem, path: str, *args: Any, **options: Any) -> Any:
        if "out" in path:
            raise PermissionError("access denied")
        return ls(self, path, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", forbidden)
    with pytest.raises(InvalidInputError, match="memory://out cannot be written: access denied; mend that"):
        batch.run("memory://in", "memory://out", "digits")
    assert store.cat_file("/out/_manifest.json") == b"of another batch"


def test_an_attempt_that_cannot_be_forgotten_ends_the_run(
    store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFileSystem, "rm_file", unreachable)
    with (
        pytest.raises(InvalidInputError, match=r"memory://out/.*cannot be written: no route to host; mend that"),
        output.attempt(RemoteFolder("memory://out"), Part(0, ("a.png",)), "run"),
    ):
        pass


def unreachable(*_: Any, **__: Any) -> None:
    raise RuntimeError("no route to host")  # no OSError, as of some stores' libraries


def test_a_store_that_fails_within_a_parquet_file_costs_no_row(store: MemoryFileSystem) -> None:
    with store.open("/a.parquet", "wb") as file:
        pq.write_table(pa.table({"x": [1, 2]}), file)
    with RemoteFolder("memory://").open("a.parquet") as source, pq.ParquetFile(source) as table:
        source._file.read = unreachable  # type: ignore[attr-defined]
        with pytest.raises(InvalidInputError, match=r"a.parquet cannot be read: no route to host; mend that"):
            table.read()


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("https://example.org/photos", InvalidInputError, "of the web, of which nothing is fetched"),
        ("zip://a::http://example.org/photos.zip", InvalidInputError, "of the web"),
        ("nonsense://bucket", InvalidInputError, "Protocol not known: nonsense"),
        (Path("s3://bucket"), InvalidInputError, "lost a slash in a Path"),
        ("oci://bucket", MissingDependencyError, "type: pip install ocifs"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_before_anything_is_written(
    uploaded: tuple[Path, Check],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    address: str | Path,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for places in ((uploaded[0], address), (address, tmp_path / "out")):
        with pytest.raises(error, match=message):
            batch.run(*places, "digits")
    assert not list(tmp_path.iterdir())


def test_an_output_within_the_input_is_refused(uploaded: tuple[Path, Check]) -> None:
    with pytest.raises(InvalidInputError, match="lies in INPUT"):
        batch.run("memory://in", "memory://in/out", "digits")


def test_folders_travel_to_workers() -> None:
    folder = RemoteFolder("memory://in")
    assert folder.system
    assert pickle.loads(pickle.dumps(folder)) == folder
    assert folder_of("file:///photos/") == LocalFolder(Path("/photos"))
