"""Tar archives of images, as WebDataset writes them."""

import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

from ..data.image_files import PICTURES
from ..errors import InvalidInputError
from .folders import GO_ON, MAX_BYTES, Folder

__all__ = ["Member", "members", "read_members"]


class Member(NamedTuple):
    """Image in an archive: its name there, and where its bytes are."""

    name: str
    offset: int
    size: int


def members(folder: Folder, name: str) -> list[Member]:
    """List the images of an archive, in its order: regular files with the ending of an image.

    Raises
    ------
    InvalidInputError
        If it is no tar archive, or a compressed one, in which nothing can be found without reading all of it.
    """
    try:
        with folder.open(name) as source, tarfile.open(fileobj=source, mode="r:") as archive:
            return [
                Member(one.name, one.offset_data, one.size)
                for one in archive
                if one.isreg() and not one.issparse() and one.name.lower().endswith(PICTURES)
            ]
    except tarfile.TarError as error:
        raise InvalidInputError(
            f"{folder}/{name} cannot be read as an uncompressed tar archive: {error}; unpack it, or make it anew"
        ) from error
    except OSError as error:
        raise InvalidInputError(f"{folder}/{name} cannot be read: {error}; {GO_ON}") from error


def read_members(folder: Folder, name: str, chosen: Sequence[Member]) -> Iterator[bytes | InvalidInputError]:
    """Read the bytes of some images of an archive; one that is too large, or cut off, gives its own error."""
    try:
        with folder.open(name) as source:
            for member in chosen:
                yield _bytes_of(source, member)
    except OSError as error:
        raise InvalidInputError(f"{folder}/{name} cannot be read: {error}; {GO_ON}") from error


def _bytes_of(source: IO[bytes], member: Member) -> bytes | InvalidInputError:
    if member.size > MAX_BYTES:
        return InvalidInputError(f"it has more than {MAX_BYTES:,} bytes; save it smaller")
    source.seek(member.offset)
    content = source.read(member.size)
    return content if len(content) == member.size else InvalidInputError("the archive ends within this image")
