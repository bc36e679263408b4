"""Checksums of Parquet files, each within the file itself: a part is one file, so its hash cannot go astray."""

import hashlib

__all__ = ["SEAL", "is_intact", "seal"]

_PREFIX, _DIGITS = "sha256:", 64

SEAL = _PREFIX + "0" * _DIGITS
"""Value in a Parquet file's metadata that `seal` replaces by the hash of the file with this value in its place."""


def seal(content: bytes) -> bytes:
    """Write the SHA-256 of a Parquet file's bytes into its metadata, in place of `SEAL`."""
    at = content.rindex(SEAL.encode())  # the metadata are last in the file
    return content[:at] + f"{_PREFIX}{hashlib.sha256(content).hexdigest()}".encode() + content[at + len(SEAL) :]


def is_intact(content: bytes) -> bool:
    """Tell whether a sealed file is, to the bit, what was sealed."""
    at = content.rfind(_PREFIX.encode())
    if at < 0:
        return False
    unsealed = content[:at] + SEAL.encode() + content[at + len(SEAL) :]
    return seal(unsealed) == content
