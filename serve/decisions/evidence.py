"""What a learner needs of a decision, as the bytes that the journal keeps.

A header (magic, catalogue revision, slots S, features D, members M), then one row of float64 per slot
(parameter row "arm", catalogue index, propensity, φ (D), π_m (M)), then the item ids as JSON. Exact, so that
learning from the journal again gives the same bits. Where a part of a large catalogue was scored, or items were left
out because the user had seen them, or the user's history may have been dropped, or a language model had read the
context, the JSON is {"ids": [...], "part": text, "seen": [...], "forgotten": true, "code": text} with the part as
`pack_part` writes it and the code as `pack_numbers`. Where items have kin, "kin" is {"provider": [...], "cluster":
[...], "means": text}, slot by slot: rows of parameters, and the members' means as `pack_numbers` writes them.

Shapes: S slots, F numbers of a slot, D features, M members, H width of a code.
"""

import base64
import json
import struct
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.bandits.law import Slot
from actors.bandits.learn import Outcome
from actors.features.features import Features, Floats, Ints
from actors.features.kin import Kin
from cluster.errors import JournalError

_HEADER = struct.Struct("<4sqIII")
_MAGIC = b"MEV1"
_FIXED = 3


@dataclass(frozen=True)
class Evidence:
    """revision: catalogue changes that the decision knew. rows_SF: one row per slot, F = 3 + D + M. part: what was
    scored of a large catalogue (`unpack_part`), None for all that was eligible. seen: what the user had been shown.
    forgotten: the replica had perhaps no room for the user's history, and decided without. code: of the context, where
    a language model had read it (`unpack_numbers`). kin: of the slots' items, None where items have none."""

    revision: int
    item_ids: tuple[str, ...]
    dimension: int
    rows_SF: Floats
    part: str | None = None
    seen: tuple[str, ...] = ()
    forgotten: bool = False
    code: str | None = None
    kin: "Known | None" = None

    def arm(self, slot: int) -> int:
        return int(self.rows_SF[slot, 0])

    def item(self, slot: int) -> int:
        return int(self.rows_SF[slot, 1])

    def propensity(self, slot: int) -> float:
        return float(self.rows_SF[slot, 2])

    def phi(self, slot: int) -> Floats:
        return self.rows_SF[slot, _FIXED : _FIXED + self.dimension]

    def members(self, slot: int) -> Floats:
        return self.rows_SF[slot, _FIXED + self.dimension :]

    def outcome(self, slot: int, user: str | None, reward: float, asked: bool) -> Outcome:
        """What is to be learned of a slot's reward; asked: whether the members had a say in it."""
        return Outcome(
            user=user,
            phi_D=self.phi(slot),
            arm=self.arm(slot),
            item=self.item(slot),
            reward=reward,
            propensity=self.propensity(slot),
            member_propensities_M=self.members(slot) if asked else None,
            provider=-1 if self.kin is None else self.kin.providers[slot],
            cluster=-1 if self.kin is None else self.kin.clusters[slot],
            member_means_M=None if self.kin is None else self.kin.means_SM[slot],
        )


@dataclass(frozen=True)
class Known:
    """Of the items of S slots: rows of parameters of their providers and clusters, and what the members thought."""

    providers: tuple[int, ...]
    clusters: tuple[int, ...]
    means_SM: Floats

    @classmethod
    def of(cls, kin: Kin, slots: Sequence[Slot]) -> "Known":
        providers, clusters = (
            tuple(int(row_K[slot.index]) for slot in slots) for row_K in (kin.provider_K, kin.cluster_K)
        )
        return cls(providers, clusters, np.stack([slot.member_means_M for slot in slots]))

    def packed(self) -> dict[str, Any]:
        """For JSON."""
        return {"provider": self.providers, "cluster": self.clusters, "means": pack_numbers(self.means_SM)}

    @classmethod
    def unpacked(cls, known: dict[str, Any], slots: int, members: int) -> "Known":
        """The inverse of `packed`. Raises LookupError or ValueError where it is not for these slots and members."""
        means_SM = unpack_numbers(known["means"]).reshape(slots, members)
        providers, clusters = (tuple(int(row) for row in known[name]) for name in ("provider", "cluster"))
        if len(providers) != slots or len(clusters) != slots:
            raise ValueError(f"rows of {len(providers)} providers and {len(clusters)} clusters for {slots} slots")
        return cls(providers, clusters, means_SM)


def pack(
    features: Features,
    slots: Sequence[Slot],
    item_ids: Sequence[str],
    revision: int,
    part: str | None = None,
    seen: Collection[str] = (),
    forgotten: bool = False,
) -> bytes:
    """The evidence of a decision's chosen items, `item_ids` slot by slot; the rest as in `Evidence`."""
    dimension, members = features.phi_KD.shape[1], len(slots[0].member_propensities_M)
    rows_SF = np.empty((len(slots), _FIXED + dimension + members), "<f8")
    for row_F, slot in zip(rows_SF, slots, strict=True):
        row_F[:_FIXED] = features.arm_K[slot.index], features.item_K[slot.index], slot.propensity
        row_F[_FIXED : _FIXED + dimension] = features.phi_KD[slot.index]
        row_F[_FIXED + dimension :] = slot.member_propensities_M
    header = _HEADER.pack(_MAGIC, revision, len(slots), dimension, members)
    names: Any = list(item_ids)
    code = None if features.code_H is None else pack_numbers(features.code_H)
    if part is not None or seen or forgotten or code is not None or features.kin is not None:
        names = {"ids": names, "part": part, "seen": sorted(seen), "forgotten": forgotten, "code": code}
    if features.kin is not None:
        names["kin"] = Known.of(features.kin, slots).packed()
    return header + rows_SF.tobytes() + json.dumps(names).encode()


def pack_part(ranks: Ints) -> str:
    """Places in the catalogue's order, ascending, as text: their differences, compressed. 140 of a million take 400
    characters."""
    steps = np.diff(ranks, prepend=0).astype("<u4")
    return base64.b85encode(zlib.compress(steps.tobytes(), 1)).decode()


def unpack_part(text: str) -> Ints:
    """The inverse of `pack_part`."""
    return np.cumsum(np.frombuffer(zlib.decompress(base64.b85decode(text)), "<u4"), dtype=np.int64)


def pack_numbers(numbers_N: Floats) -> str:
    """Numbers as text, to the bit."""
    return base64.b85encode(numbers_N.astype("<f8").tobytes()).decode()


def unpack_numbers(text: str) -> Floats:
    """The inverse of `pack_numbers`, in one row. Raises ValueError for any other text."""
    return np.frombuffer(base64.b85decode(text), "<f8")


def unpack(data: bytes) -> Evidence:
    """The inverse of `pack`. Raises JournalError where the bytes are of another format or cut short."""
    try:
        magic, revision, slots, dimension, members = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError(f"it begins with {magic!r} instead of {_MAGIC!r}")
        shape = (slots, _FIXED + dimension + members)
        rows_SF = np.frombuffer(data, "<f8", shape[0] * shape[1], _HEADER.size).reshape(shape)
        names = json.loads(data[_HEADER.size + rows_SF.nbytes :])
        known = names if isinstance(names, dict) else {"ids": names}
        kin = Known.unpacked(known["kin"], slots, members) if "kin" in known else None
    except (struct.error, LookupError, ValueError, TypeError) as error:
        raise JournalError(f"evidence of a decision is not readable ({error}); it is from another Medley") from error
    beside = {name: known[name] for name in ("part", "forgotten", "code") if name in known}
    seen = tuple(known.get("seen", ()))
    return Evidence(revision, tuple(known["ids"]), dimension, rows_SF, seen=seen, kin=kin, **beside)
