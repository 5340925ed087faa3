"""Policies that a log can be asked about: what each would have done in every logged situation.

    uniform         every candidate with the same probability
    popularity      the candidate with the greatest mean reward among *other* users, ties in equal shares
    item:ID         always this item; uniform where it is no candidate
    version:N       a published version by its law; `version:latest` is the newest (tune.whatif.version_policy)
    greedy:N        the same version without exploration: its greatest blended mean
    module:Class    the user's own (tune.whatif.own_policy)

Shapes: N events of a block, K candidates (padded), I items of the catalogue, F folds of users.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from actors.bandits.version import Version
from actors.features.features import Floats, Ints
from cluster.errors import RequestError
from cluster.registry import Registry
from tune.offpolicy.cross_fit import FOLDS, folds_of
from tune.whatif.block import Block, Policy, greatest, shared
from tune.whatif.own_policy import OwnPolicy
from tune.whatif.version_policy import VersionPolicy

FORMS = "uniform, popularity, item:ID, version:N, version:latest, greedy:N, or your own as module:Class"


@dataclass(frozen=True)
class Uniform:
    name: str = "uniform"
    learns: bool = False

    def probabilities(self, block: Block) -> Floats:
        return shared(block.log.mask_NK)

    def remark(self) -> str:
        return ""


class Always:
    """One item wherever it is a candidate."""

    learns = False

    def __init__(self, item: str, name: str):
        self.name, self._item = name, item
        self._seen = self._absent = 0

    def probabilities(self, block: Block) -> Floats:
        place = block.items.index(self._item)
        offered_NK = (block.row_NK == place) & block.log.mask_NK
        absent_N = ~offered_NK.any(1)
        self._seen += len(block.log)
        self._absent += int(absent_N.sum())
        return shared(np.where(absent_N[:, None], block.log.mask_NK, offered_NK))

    def remark(self) -> str:
        return f"no candidate in {self._absent / self._seen:.1%} of all events, uniform there" if self._absent else ""


class Counts:
    """Events and rewards of every item by fold of users, summed up block by block.

    A user's popularity is counted on the folds that the user is not in.
    """

    def __init__(self, items: int, seed: int):
        self.seed = seed
        self._count_FI, self._total_FI = np.zeros((FOLDS, items)), np.zeros((FOLDS, items))
        self._square = 0.0

    def add(self, block: Block) -> None:
        fold_N, acted_N = self.fold(block), np.arange(len(block.log))
        row_N, reward_N = block.row_NK[acted_N, block.log.action_N], block.log.reward_N
        known = row_N >= 0
        np.add.at(self._count_FI, (fold_N[known], row_N[known]), 1.0)
        np.add.at(self._total_FI, (fold_N[known], row_N[known]), reward_N[known])
        self._square += float(reward_N[known] @ reward_N[known])

    def fold(self, block: Block) -> Ints:
        return folds_of(block.events, seed=self.seed)

    def means(self) -> Floats:
        """Each item's mean reward on the other folds, shrunk toward that of all, (F, I).

        Items' means have a prior of the observed mean and variance between items (method of moments), as the
        popularity member's (actors.bandits.pooled).
        """
        count_FI = self._count_FI.sum(0) - self._count_FI
        total_FI = self._total_FI.sum(0) - self._total_FI
        events = max(float(self._count_FI.sum()), 1.0)
        mean = float(self._total_FI.sum()) / events
        noise = max(self._square / events - mean**2, 1e-4)
        count_I, total_I = self._count_FI.sum(0), self._total_FI.sum(0)
        raw_I = np.divide(total_I**2, count_I, out=np.zeros_like(total_I), where=count_I > 0)
        raw = float(raw_I.sum()) / events - mean**2
        between = max(raw - noise * float((count_I > 0).sum()) / events, 1e-2 * noise)
        return np.asarray((mean / between + total_FI / noise) / (1.0 / between + count_FI / noise))


class Popularity:
    """Needs counts of the same log, made in a pass of their own."""

    name, learns = "popularity", False

    def __init__(self, counts: Counts):
        self._counts = counts

    @cached_property
    def _mean_FI(self) -> Floats:
        return np.pad(self._counts.means(), ((0, 0), (0, 1)), constant_values=-np.inf)  # the last: unknown items

    def probabilities(self, block: Block) -> Floats:
        score_NK = self._mean_FI[self._counts.fold(block)[:, None], block.row_NK]
        return greatest(score_NK, block.log.mask_NK)

    def remark(self) -> str:
        return ""


@dataclass(frozen=True)
class Ground:
    """What policies are made from: the log's catalogue, published versions, and counts of the log.

    encoder: fingerprint of the model that made the items' embeddings, None where nobody knows.
    overlap: in words, what a version's own training has to do with the rows that are judged.
    """

    items: pa.Table
    registry: Registry
    name: str
    seed: int
    learn: bool
    counts: Counts
    encoder: str | None
    overlap: Callable[[Version], str]

    def policy(self, text: str) -> Policy:
        """Raises RequestError for a form, item or version that is not there; ModelError for a class that is not."""
        form, colon, rest = text.partition(":")
        match form:
            case "uniform" if not colon:
                return Uniform()
            case "popularity" if not colon:
                return Popularity(self.counts)
            case "item" if rest:
                return self._always(rest, text)
            case "version" | "greedy" if rest:
                return self._version(rest, text, greedy=form == "greedy")
        if not (form and rest):
            raise RequestError(("policy", text), f"no such policy; give {FORMS}")
        return OwnPolicy(text, self.learn)

    def _always(self, item: str, text: str) -> Policy:
        ids = self.items["item_id"].to_pylist()
        if item not in ids:
            known = f"it has {', '.join(ids[:3])}, ..."
            raise RequestError(("policy", text), f"the catalogue of {len(ids):,} items has no {item!r}; {known}")
        return Always(item, text)

    def _version(self, number: str, text: str, *, greedy: bool) -> Policy:
        there = self.registry.versions(self.name)
        if number == "latest" and there:
            number = str(there[-1])
        if not number.isdigit() or int(number) not in there:
            known = ", ".join(str(one) for one in there[-10:]) or "none"
            raise RequestError(("policy", text), f"no such version of {self.name!r}; published: {known}")
        version = Version.load(self.registry.fetch(self.name, int(number)))
        name = f"{text.partition(':')[0]}:{number}"
        remark = self.overlap(version)
        return VersionPolicy(
            name,
            version,
            self.items,
            self.seed,
            greedy=greedy,
            learns=self.learn,
            encoder=self.encoder,
            remark=remark,
        )
