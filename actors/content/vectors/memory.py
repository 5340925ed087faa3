"""A vector store's entries in memory: what `store.Store` makes durable.

Every entry is in two spaces, that of its provider within its cluster (a *partition*) and that of its whole cluster;
both read the same bytes of the snapshot until something in them changes.

Shapes: S slots, numbers of entries; E size; Q queries; K neighbours; N selected.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from actors.content.vectors.cells import Cells, Ints
from actors.content.vectors.changes import Settled
from actors.content.vectors.entry import (
    Change,
    Delete,
    Entry,
    Feedback,
    Filter,
    Move,
    Neighbours,
    Outcomes,
    Put,
    Scope,
    Vectors,
)
from actors.content.vectors.snapshot import Arrays, Snapshot
from actors.content.vectors.space import LARGE, Flat, Selection, Space

SELECTIONS_BYTES = 256 * 2**20
"""For copies of what filters select, kept until the entries change."""


@dataclass(frozen=True, eq=False)
class Region:
    """A space and the partitions whose entries it holds; `wide` is that of a cluster."""

    cluster: str
    provider_id: str
    space: Space
    parts: list[int]
    wide: bool


class Memory:
    """Begins as a snapshot; `flat` is for its partitions (see `Space`)."""

    def __init__(self, found: Snapshot, flat: Flat | None = None) -> None:
        self._width, self._flat = found.vectors_SE.shape[1], flat
        self._ids, self._payloads, self._free = found.item_ids, found.payloads, list[int]()
        self._slot_of = dict(zip(self._ids, range(len(self._ids)), strict=True))
        self._partitions, self._part_of = list[Region](), dict[tuple[str, str], int]()
        self._clusters: dict[str, Region] = {}
        self._selections: OrderedDict[tuple[bytes, int], Selection] = OrderedDict()
        self._part_S, self._row_S, self._wide_S = (np.zeros(len(self._ids), np.int64) for _ in range(3))
        self._load(found)

    def __len__(self) -> int:
        return len(self._slot_of)

    def settled(self, changes: Sequence[Change], decay: float) -> list[Settled]:
        """Each reward as the entry that it leads to, after the changes before it."""
        known: dict[str, Entry | None] = {}
        found: list[Settled] = []
        for change in changes:
            match change:
                case Feedback(entry, kind, reward):
                    old = known[entry.item_id] if entry.item_id in known else self._entry(entry.item_id)
                    if old is None or old.provider_id != entry.provider_id:
                        old = entry
                    outcomes = dict(old.outcomes)
                    outcomes[kind] = outcomes.get(kind, Outcomes()).after(reward, decay)
                    known[entry.item_id] = replace(entry, outcomes=outcomes)
                    found.append(Put(replace(entry, outcomes=outcomes)))
                    continue
                case Put(entry):
                    known[entry.item_id] = entry
                case Delete(item_id):
                    there = known[item_id] is not None if item_id in known else item_id in self._slot_of
                    known[item_id] = None
                    if not there:
                        continue
                case Move():
                    pass  # outcomes move along
            found.append(change)
        return found

    def get(self, item_ids: Iterable[str]) -> dict[str, Entry]:
        found = ((item_id, self._entry(item_id)) for item_id in item_ids)
        return {item_id: entry for item_id, entry in found if entry is not None}

    def search(
        self,
        query_QE: Vectors,
        k: int,
        cluster: str | None,
        provider_id: str | None,
        where: Filter | None,
        own: Sequence[str | None] | None,
        wider: bool,
    ) -> list[Neighbours]:
        most = k if own is None else k + 1
        scope, regions = self._scope(most, cluster, provider_id, where, wider)
        found = [region.space.nearest(query_QE, most, chosen) for region, chosen in regions]
        similarity_QK, slot_QK = found[0] if len(found) == 1 else _merged(found, len(query_QE), most)
        if own is not None:
            own_Q = np.array([self._slot_of.get(i, -2) if i is not None else -2 for i in own])
            similarity_QK, slot_QK = _without(similarity_QK, slot_QK, own_Q)
        ids, there_Q = self._ids, (slot_QK >= 0).sum(1).tolist()
        rows = zip(slot_QK.tolist(), similarity_QK, there_Q, strict=True)
        return [Neighbours([ids[slot] for slot in slots[:n]], near_K[:n], scope) for slots, near_K, n in rows]

    def apply(self, changes: Sequence[Settled]) -> None:
        """The same changes in the same parts give the same rows."""
        new: dict[int, list[tuple[int, Vectors]]] = {}  # by partition, added together
        for change in changes:
            match change:
                case Put(entry):
                    self._put(entry, new)
                case Delete(item_id) if item_id in self._slot_of:
                    self._add(new)
                    slot = self._slot_of.pop(item_id)
                    self._take(slot)
                    self._free.append(slot)
                case Move(provider_id, source, target) if (source, provider_id) in self._part_of and source != target:
                    self._add(new)
                    self._move(provider_id, source, target, new)
        self._add(new)

    def snapshot(self) -> Snapshot:
        """The entries partition by partition, those of a cluster together; cells fitted to what became large."""
        regions = sorted(
            (r for r in self._partitions if len(r.space)), key=lambda region: (region.cluster, region.provider_id)
        )
        slot_S = np.concatenate([np.empty(0, np.int64), *[r.space.slot_R for r in regions]])
        vectors_SE = np.concatenate([np.empty((0, self._width), np.float32), *[r.space.vectors_RE for r in regions]])
        return Snapshot(
            [self._ids[slot] for slot in slot_S.tolist()],
            vectors_SE,
            self._payloads.of(slot_S),
            [(r.cluster, r.provider_id, len(r.space)) for r in regions],
            self._cells(regions, slot_S, vectors_SE),
        )

    def _load(self, found: Snapshot) -> None:
        spans: dict[str, tuple[int, int]] = {}
        start = 0
        for cluster, provider_id, count in found.partitions:
            end = start + count
            spans[cluster] = (spans.get(cluster, (start, end))[0], end)
            space = _space(found, f"partition {cluster}\0{provider_id}", start, end, self._flat)
            part = self._part(cluster, provider_id, space)
            self._part_S[start:end], self._row_S[start:end] = part, np.arange(count)
            start = end
        for cluster, (start, end) in spans.items():
            space = _space(found, f"cluster {cluster}", start, end, None)
            self._clusters[cluster] = replace(self._clusters[cluster], space=space)
            self._wide_S[start:end] = np.arange(end - start)

    def _part(self, cluster: str, provider_id: str, space: Space | None = None) -> int:
        """The number of a partition, made where there is none."""
        part = self._part_of.get((cluster, provider_id))
        if part is None:
            part = self._part_of[cluster, provider_id] = len(self._partitions)
            own = space if space is not None else Space.empty(self._width, self._flat)
            self._partitions.append(Region(cluster, provider_id, own, [part], wide=False))
            if cluster not in self._clusters:
                self._clusters[cluster] = Region(cluster, "", Space.empty(self._width), [], wide=True)
            self._clusters[cluster].parts.append(part)
        return part

    def _entry(self, item_id: str) -> Entry | None:
        slot = self._slot_of.get(item_id)
        if slot is None:
            return None
        region = self._partitions[self._part_S[slot]]
        models, outcomes = self._payloads[slot]
        vector_E = region.space.vectors_RE[self._row_S[slot]].copy()
        return Entry(item_id, region.provider_id, region.cluster, vector_E, models, outcomes)

    def _put(self, entry: Entry, new: dict[int, list[tuple[int, Vectors]]]) -> None:
        part = self._part(entry.cluster, entry.provider_id)
        slot = self._slot_of.get(entry.item_id)
        if slot is None:
            slot = self._slot(entry.item_id)
            new.setdefault(part, []).append((slot, entry.embedding_E))
        else:
            if new:
                self._add(new)
            old = self._partitions[self._part_S[slot]]
            if self._part_S[slot] != part:
                self._take(slot)
                new.setdefault(part, []).append((slot, entry.embedding_E))
            elif old.space.vectors_RE[self._row_S[slot]].tobytes() != entry.embedding_E.tobytes():
                old.space.replace(int(self._row_S[slot]), entry.embedding_E)
                self._clusters[old.cluster].space.replace(int(self._wide_S[slot]), entry.embedding_E)
        self._payloads[slot] = entry.models, entry.outcomes

    def _slot(self, item_id: str) -> int:
        """A number for a new entry."""
        if self._free:
            slot = self._free.pop()
            self._ids[slot] = item_id
        else:
            slot = len(self._ids)
            self._ids.append(item_id)
            if slot >= len(self._part_S):
                self._part_S, self._row_S, self._wide_S = map(_longer, (self._part_S, self._row_S, self._wide_S))
        self._slot_of[item_id] = slot
        return slot

    def _add(self, new: dict[int, list[tuple[int, Vectors]]]) -> None:
        for part, pairs in new.items():
            region = self._partitions[part]
            slot_N = np.array([slot for slot, _ in pairs])
            vectors_NE = np.array([vector_E for _, vector_E in pairs])
            rows = np.arange(len(pairs))
            self._part_S[slot_N] = part
            self._row_S[slot_N] = region.space.add(vectors_NE, slot_N) + rows
            self._wide_S[slot_N] = self._clusters[region.cluster].space.add(vectors_NE, slot_N) + rows
        new.clear()

    def _take(self, slot: int) -> None:
        """Out of its spaces; its number stays."""
        region = self._partitions[self._part_S[slot]]
        for space, row_S in ((region.space, self._row_S), (self._clusters[region.cluster].space, self._wide_S)):
            row = row_S[slot]
            row_S[space.remove(int(row))] = row

    def _move(self, provider_id: str, source: str, target: str, new: dict[int, list[tuple[int, Vectors]]]) -> None:
        space, part = self._partitions[self._part_of[source, provider_id]].space, self._part(target, provider_id)
        moved = [*zip(space.slot_R.tolist(), space.vectors_RE.copy(), strict=True)]
        for slot, _ in moved:
            self._take(slot)
        if moved:
            new[part] = moved

    def _scope(
        self, most: int, cluster: str | None, provider_id: str | None, where: Filter | None, wider: bool
    ) -> tuple[Scope, list[tuple[Region, Selection | None]]]:
        """The narrowest scope with `most` entries that may be found."""
        part = self._part_of.get((cluster or "", provider_id or ""))
        tried: list[tuple[Scope, list[Region]]] = [
            ("provider", [] if part is None else [self._partitions[part]]),
            ("cluster", [self._clusters[cluster]] if cluster in self._clusters else []),
            ("all", list(self._clusters.values())),
        ]
        first = 0 if provider_id is not None else 1 if cluster is not None else 2
        for scope, regions in tried[first:]:
            found = [(region, self._selected(region, where)) for region in regions]
            count = sum(len(r.space) if chosen is None else len(chosen.row_N) for r, chosen in found)
            if not wider or scope == "all" or count >= most:
                break
        return scope, [pair for pair in found if pair[1] is None or len(pair[1].row_N)]

    def _selected(self, region: Region, where: Filter | None) -> Selection | None:
        if where is None:
            return None
        key = (where.key, id(region))
        found = self._selections.get(key)
        if found is None or found.generation != region.space.generation:
            found = self._selections[key] = region.space.select(self._rows(region, where))
            kept = sum(chosen.bytes for chosen in self._selections.values())
            while kept > SELECTIONS_BYTES and len(self._selections) > 1:
                kept -= self._selections.popitem(last=False)[1].bytes
        self._selections.move_to_end(key)
        return found

    def _rows(self, region: Region, where: Filter) -> Ints:
        parts = region.parts
        if where.providers is not None:
            providers = set(where.providers)
            parts = [part for part in parts if self._partitions[part].provider_id in providers]
        if where.item_ids is None:
            slot_N = np.concatenate([np.empty(0, np.int64), *[self._partitions[part].space.slot_R for part in parts]])
        else:
            known = self._slot_of
            slot_N = np.array([known[item_id] for item_id in where.item_ids if item_id in known], np.int64)
            slot_N = slot_N[np.isin(self._part_S[slot_N], parts)]
        return np.unique((self._wide_S if region.wide else self._row_S)[slot_N])

    def _cells(self, regions: Sequence[Region], slot_S: Ints, vectors_SE: Vectors) -> Arrays:
        """By name of the space and of the array; a cluster of one provider has its partition's."""
        arrays: Arrays = {}
        spans: dict[str, tuple[int, int]] = {}
        start = 0
        for region in regions:
            end = start + len(region.space)
            spans[region.cluster] = (spans.get(region.cluster, (start, end))[0], end)
            own = _divided(region.space, vectors_SE[start:end], np.arange(end - start))
            name, start = f"partition {region.cluster}\0{region.provider_id}", end
            arrays |= {f"{name}\0{part}": array for part, array in own.items()}
            if len(region.space) == len(self._clusters[region.cluster].space):
                arrays |= {f"cluster {region.cluster}\0{part}": array for part, array in own.items()}
                del spans[region.cluster]
        for cluster, (start, end) in spans.items():
            own = _divided(self._clusters[cluster].space, vectors_SE[start:end], self._wide_S[slot_S[start:end]])
            arrays |= {f"cluster {cluster}\0{part}": array for part, array in own.items()}
        return arrays


def _space(found: Snapshot, name: str, start: int, end: int, flat: Flat | None) -> Space:
    vectors_RE, cells = found.vectors_SE[start:end], None
    if f"{name}\0centre" in found.cells:
        centre_CE, probes_S, cell_R = (found.cells[f"{name}\0{part}"] for part in ("centre", "probes", "cell"))
        cells = Cells.of(centre_CE, tuple(probes_S.tolist()), cell_R, vectors_RE)
    tried = int(found.cells[f"{name}\0tried"][0]) if f"{name}\0tried" in found.cells else 0
    return Space(vectors_RE, np.arange(start, end), cells, flat, tried)


def _divided(space: Space, vectors_RE: Vectors, row_R: Ints) -> Arrays:
    """The cells for these vectors, which are the space's rows in this order, and for how many rows they were fitted."""
    if len(space) < LARGE:
        return {}
    tried, cells = space.tried, space.cells
    if not tried / 2 <= len(space) <= 2 * tried:
        tried, cells = len(space), Cells.fit(vectors_RE)
    elif cells is not None:
        cells = replace(cells, cell_R=np.ascontiguousarray(cells.cell_R[row_R]))
    arrays: Arrays = {"tried": np.array([tried])}
    if cells is not None and any(cells.probes_S):
        arrays |= {"centre": cells.centre_CE, "probes": np.array(cells.probes_S), "cell": cells.cell_R}
    return arrays


def _merged(found: Sequence[tuple[Vectors, Ints]], queries: int, most: int) -> tuple[Vectors, Ints]:
    """The nearest of several spaces; of equal ones those of the first space."""
    similarity_QN = np.concatenate([np.empty((queries, 0), np.float32), *[near for near, _ in found]], 1)
    slot_QN = np.concatenate([np.empty((queries, 0), np.int64), *[slots for _, slots in found]], 1)
    order_QK = np.argsort(-similarity_QN, 1, kind="stable")[:, :most]
    return np.take_along_axis(similarity_QN, order_QK, 1), np.take_along_axis(slot_QN, order_QK, 1)


def _without(similarity_QK: Vectors, slot_QK: Ints, own_Q: Ints) -> tuple[Vectors, Ints]:
    """One neighbour less each: the query's own entry, else the last."""
    keep_QK = slot_QK != own_Q[:, None]
    order_QK = np.argsort(~keep_QK, 1, kind="stable")[:, :-1]
    return np.take_along_axis(similarity_QK, order_QK, 1), np.take_along_axis(slot_QK, order_QK, 1)


def _longer(numbers_S: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([numbers_S, np.zeros(max(1_024, len(numbers_S) // 2), np.int64)])
