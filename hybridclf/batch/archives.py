"""Tar archives of images, as WebDataset writes them."""

import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, Self

from ..data.image_files import PICTURES
from ..errors import InvalidInputError
from .folders import MAX_BYTES, Folder, lost

__all__ = ["Member", "members", "read_members"]

MAX_HEADER = 2**20
"""Most bytes of a long name, or of extended headers."""

PADDING = 20 * tarfile.BLOCKSIZE
"""Bytes to which writers fill an archive up with zeros."""

_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)


class Member(NamedTuple):
    """Image in an archive: its name there, and where its bytes are; a size of -1 for a link, which has none."""

    name: str
    offset: int
    size: int


class _Entry(tarfile.TarInfo):
    """Header with a size that can be: others make tarfile go in circles, or take all memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in _HEADERS and entry.size > MAX_HEADER):
            raise tarfile.ReadError(f"a header with a size of {entry.size}")
        return entry


def members(folder: Folder, name: str) -> list[Member]:
    """List the images of an archive, in its order; hidden names and what has not the ending of an image are skipped.

    Of several images of one name the last one counts, as tar has it.

    Raises
    ------
    InvalidInputError
        If it is no tar archive, is damaged or cut off, or is compressed, so that nothing can be found without reading
        all of it.
    """
    try:
        with folder.open(name) as source:
            found = {one.name: _member(one) for one in _entries(source) if _is_picture(one)}
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise InvalidInputError(
            f"{folder}/{name} cannot be read as an uncompressed tar archive: {error}; unpack it, or make it anew"
        ) from error
    except OSError as error:
        raise lost(folder, name, error) from error
    return list(found.values())


def _entries(source: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Read the headers of an archive up to its end mark; tarfile alone takes a damaged header for the end."""
    with tarfile.open(fileobj=source, mode="r:", tarinfo=_Entry) as archive:
        last = "its beginning"
        for one in archive:
            if one.size < 0:  # by an extended header
                raise tarfile.ReadError(f"a size of {one.size}")
            last = one.name
            yield one
        source.seek(archive.offset)
        end, rest = source.read(tarfile.BLOCKSIZE), source.read(PADDING + 1)
        if len(end) < tarfile.BLOCKSIZE or any(end):
            raise tarfile.ReadError(f"damaged or cut off after {last}")
        if any(rest) or len(rest) > PADDING:
            raise tarfile.ReadError(f"something follows its end, after {last}")


def _is_picture(entry: tarfile.TarInfo) -> bool:
    hidden = any(part.startswith(".") and part not in (".", "..") for part in entry.name.split("/"))
    return entry.name.lower().endswith(PICTURES) and not hidden and (entry.isreg() or entry.islnk() or entry.issym())


def _member(entry: tarfile.TarInfo) -> Member:
    has_bytes = entry.isreg() and not entry.issparse()
    return Member(entry.name, entry.offset_data, entry.size if has_bytes else -1)


def read_members(folder: Folder, name: str, chosen: Sequence[Member]) -> Iterator[bytes | InvalidInputError]:
    """Read the bytes of some images of an archive; one that is too large, or cut off, gives its own error."""
    try:
        with folder.open(name) as source:
            for member in chosen:
                yield _bytes_of(source, member)
    except OSError as error:
        raise lost(folder, name, error) from error


def _bytes_of(source: IO[bytes], member: Member) -> bytes | InvalidInputError:
    if member.size < 0:
        return InvalidInputError("a link or a sparse file in an archive; make it anew with --dereference")
    if member.size > MAX_BYTES:
        return InvalidInputError(f"it has more than {MAX_BYTES:,} bytes; save it smaller")
    source.seek(member.offset)
    content = source.read(member.size)
    return content if len(content) == member.size else InvalidInputError("the archive ends within this image")
