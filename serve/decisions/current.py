"""What decides for a client at a moment: a loaded version, what was learned on it, and the client's catalogue."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from actors.bandits import learn
from actors.bandits.history import History
from actors.bandits.members import Member, Shared, followed
from actors.bandits.mixture import Mixture
from actors.bandits.published import Published
from actors.bandits.shares import ItemWeights
from actors.bandits.version import Version
from actors.features.features import Floats
from serve.decisions import catalogue as catalogues
from serve.decisions.catalogue import Catalogue, Large


@dataclass(frozen=True)
class Update:
    """What a learner publishes of one client's version: the members that learn, weights and what they follow from, what
    items say of the members (None for nothing), changed histories."""

    client: str
    version: int
    epoch: int
    members: dict[str, Member]
    weights_M: Floats
    alternatives_M: Floats
    histories: dict[str, History]
    values_M: Floats | None = None
    errors_M: Floats | None = None
    items: ItemWeights | None = None


@dataclass(frozen=True)
class Loaded:
    """A version in memory, and how it decides before anything is learned."""

    number: int
    version: Version
    published: Published
    linear_AD: Floats | None
    catalogue: Catalogue
    names: tuple[str, ...]
    rows: Mapping[str, int]
    variants: dict[tuple[str, ...], "Loaded"] = field(default_factory=dict)

    @cached_property
    def reader(self) -> tuple[str, int] | None:
        """The generator whose language model reads the contexts of unknown users; None where nobody has use for it."""
        members = self.version.ensemble.members
        return self.version.reader if any(isinstance(m, Mixture) and m.decoder is not None for m in members) else None

    def of(self, client: str) -> "Loaded":
        """The version with the members that decide for this client; alike for clients with the same members."""
        ensemble = self.version.ensemble.of(client)
        if ensemble is self.version.ensemble:
            return self
        if ensemble.names not in self.variants:
            published = learn.publish(learn.start(ensemble))
            version = replace(self.version, ensemble=ensemble)
            own = replace(self, version=version, published=published, linear_AD=_linear(published))
            self.variants[ensemble.names] = own
        return self.variants[ensemble.names]


@dataclass(frozen=True)
class Current:
    """What decides for one client now. linear_AD: blended coefficients of the linear members, for reasons."""

    loaded: Loaded
    published: Published
    linear_AD: Floats | None
    catalogue: Catalogue


def load(number: int, version: Version, large: Large | None = None) -> Loaded:
    """Factor a version's starting state. Its first publication has epoch 1, in every process.

    Args:
        large: from when on a part of the catalogue is scored; None always scores all.
    """
    published = learn.publish(learn.start(version.ensemble))
    feature_map = version.feature_map
    ids, items = version.items["item_id"].to_pylist(), version.items
    same = len(ids) == len(feature_map.item_ids) and all(map(operator.eq, ids, feature_map.item_ids))
    rows = feature_map.row if same else {item_id: row for row, item_id in enumerate(ids)}
    if not same:
        items = items.take(pa.array([rows.get(item_id) for item_id in feature_map.item_ids], pa.int64()))
    catalogue = catalogues.of_version(feature_map, items, large)
    return Loaded(number, version, published, _linear(published), catalogue, feature_map.names, rows)


def updated(loaded: Loaded, update: Update | None, catalogue: Catalogue) -> Current:
    """A version with what a learner published of it, if it has."""
    if update is None:
        return Current(loaded, loaded.published, loaded.linear_AD, catalogue)
    base = loaded.published
    published = replace(
        base,
        members=followed(tuple(update.members.get(member.name, member) for member in base.members)),
        weights_M=update.weights_M,
        alternatives_M=update.alternatives_M,
        epoch=update.epoch,
        values_M=update.values_M,
        errors_M=update.errors_M,
        items=update.items,
    )
    return Current(loaded, published, _linear(published), catalogue)


def _linear(published: Published) -> Floats | None:
    weights = published.weights_M[published.scored]
    blended = [
        published.weights_M[m] / weights.sum() * member.posterior.mean_AD
        for m, member in enumerate(published.members)
        if isinstance(member, Shared) and member.view == "features"
    ]
    return (published.high - published.low) * np.sum(blended, axis=0) if blended else None
