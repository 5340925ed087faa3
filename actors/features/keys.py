"""Stable 64-bit names of items and users: the same on every machine and in every process."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from actors.features.features import Keys


@lru_cache(maxsize=1 << 20)
def key(name: str) -> int:
    """First eight bytes, little-endian, of BLAKE2b (RFC 7693) over the UTF-8 text."""
    text = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def item_keys(ids: Sequence[str]) -> Keys:
    """ids (K) -> hashes (K). Two of a million items share one with probability 3e-8."""
    return np.fromiter((key(name) for name in ids), np.uint64, len(ids))
