"""Decision ids: a ULID and a keyed MAC over it and the client.

A replica tells a forged or foreign id from one that has merely not arrived yet without a look-up.
"""

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Callable

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_FROM_RFC4648 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _CROCKFORD.encode())
_MAC_BYTES = 10
LENGTH = 26 + 16


def ulid(milliseconds: int, randomness: bytes) -> str:
    """26 Crockford base32 characters: 48 bits of time, 80 of randomness (github.com/ulid/spec).

    >>> ulid(1469918176385, bytes(10))
    '01ARYZ6S410000000000000000'
    """
    value = (milliseconds << 80) | int.from_bytes(randomness)
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


class DecisionIds:
    """Makes and checks decision ids under one secret key."""

    def __init__(
        self,
        secret: bytes,
        clock: Callable[[], float] = time.time,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if len(secret) < 16:
            raise ValueError(f"the secret has {len(secret)} bytes; at least 16 are needed")
        self._secret = secret
        self._clock = clock
        self._randomness = randomness

    def new(self, client: str) -> str:
        stem = ulid(int(self._clock() * 1000), self._randomness(10))
        return stem + self._mac(stem, client)

    def belongs(self, decision_id: str, client: str) -> bool:
        """Whether this server made the id for this client."""
        if len(decision_id) != LENGTH or not decision_id.isascii():
            return False
        return hmac.compare_digest(decision_id[26:], self._mac(decision_id[:26], client))

    def _mac(self, stem: str, client: str) -> str:
        digest = hashlib.blake2b(f"{stem}{client}".encode(), key=self._secret, digest_size=_MAC_BYTES)
        return base64.b32encode(digest.digest()).translate(_FROM_RFC4648).decode()


def seed_of(decision_id: str, seed: int) -> int:
    """The 63-bit seed of a decision's random choices: a pure function of its id and the settings' seed."""
    digest = hashlib.blake2b(f"{seed}/{decision_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
