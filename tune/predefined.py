"""The predefined members of an ensemble, fitted on logged events: uniform, popularity, pooled linear, forgetting, and
by content: a model of each cluster of providers, and of each provider.

Shapes: N rows (logged actions), D features.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.bandits import pooled
from actors.bandits.ensemble import Part
from actors.bandits.members import Uniform, custom
from actors.content.models import ContentModel, by_cluster, by_provider
from actors.features.actions import actions
from actors.features.catalogue import row_numbers
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import BanditSettings, RewardKind

log = logging.getLogger(__name__)
Content: TypeAlias = Literal["cluster", "provider"]
FITS: dict[Content, Callable[..., ContentModel]] = {"cluster": by_cluster, "provider": by_provider}


@dataclass(frozen=True)
class Design:
    """What was done and what came of it: rows of the logged items, rewards scaled to [0, 1].

    provider_N: the items' parameter rows of the member "provider", -1 for unknown.
    """

    phi_ND: Floats
    arm_N: Ints
    item_N: Ints
    reward_N: Floats
    provider_N: Ints

    @classmethod
    def of(cls, feature_map: FeatureMap, events: pa.Table, kind: RewardKind) -> "Design":
        rewards = np.asarray(pc.fill_null(events["reward"], kind.default), np.float64)
        acted, relations = actions(feature_map, events), feature_map.relations
        provider_N = np.full(len(events), -1)
        if relations is not None:
            provider_N = relations.kin.provider_K[row_numbers(feature_map.row, events["item_id"].to_pylist())]
        return cls(acted.phi_ND, acted.arm_N, acted.item_N, (rewards - kind.low) / (kind.high - kind.low), provider_N)

    def __len__(self) -> int:
        return len(self.reward_N)

    def take(self, rows: Ints) -> "Design":
        """These rows only."""
        return Design(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True)
class Predefined:
    """Fits the pooled priors once, and names them as members.

    before: those before a change, whose scales still hold.
    """

    design: Design
    feature_map: FeatureMap
    settings: BanditSettings
    before: "Predefined | None" = None

    @cached_property
    def linear(self) -> pooled.Pooled:
        d = self.design
        if self.before is not None:
            return self.before.linear.again(d.phi_ND, d.arm_N, d.reward_N)
        return pooled.fit(
            d.phi_ND,
            d.arm_N,
            d.reward_N,
            self.feature_map.arms,
            self.feature_map.groups,
            self.settings.least_noise,
            intercepts=self.feature_map.intercepts,
        )

    @cached_property
    def popularity(self) -> pooled.Pooled:
        if self.before is not None:
            return self.before.popularity.again(
                np.ones((len(self.design), 1)), self.design.item_N, self.design.reward_N
            )
        return pooled.popularity(self.design.item_N, self.design.reward_N, len(self.feature_map.fitted_ids))

    @cached_property
    def content(self) -> dict[Content, ContentModel]:
        """The models of clusters and of providers that are asked for and of use here."""
        for name, reason in self.left_out.items():
            log.info("no member %r: %s", name, reason)
        asked = [name for name in FITS if name in self.settings.predefined and name not in self.left_out]
        return {name: self._content(name) for name in asked}

    @cached_property
    def left_out(self) -> dict[Content, str]:
        """Members that are asked for and of no use here, and why."""
        reasons = {name: self._needless(name) for name in FITS if name in self.settings.predefined}
        return {name: reason for name, reason in reasons.items() if reason}

    def _content(self, name: Content) -> ContentModel:
        d, relations = self.design, self.feature_map.relations
        assert relations is not None
        groups_D = self.feature_map.groups
        if self.before is not None:
            return self.before.content[name].again(d.phi_ND, d.provider_N, d.reward_N, groups_D)
        return FITS[name](d.phi_ND, d.provider_N, d.reward_N, relations.cluster_P, groups_D)

    def _needless(self, name: Content) -> str:
        """Why these items have no use for a model of each cluster, or of each provider; empty where they have."""
        relations, provider_N = self.feature_map.relations, self.design.provider_N
        if relations is None or len(relations.providers) < 2:
            return "the items name fewer than two providers"
        if name == "cluster" and len(relations.clusters) < 2:
            return "the providers are one cluster"
        rows = relations.cluster_rows if name == "cluster" else relations.provider_rows
        size = 8 * rows * self.feature_map.dimension**2
        if size > self.settings.content_bytes:
            return f"{size:,} bytes of precision, more than bandits.content_bytes"
        if provider_N.max(initial=-1) < 0:
            return "no logged item has a provider"
        if self.before is not None and name not in self.before.content:
            return "there was none before the change"
        return ""

    def members(self) -> tuple[Part, ...]:
        return (
            *(self._member(name) for name in self.settings.predefined if name not in FITS or name in self.content),
            *(custom(source, self._shape) for source in self.settings.custom),
        )

    def _member(self, name: str) -> Part:
        strength = self.settings.prior_strength
        match name:
            case "uniform":
                return Uniform()
            case "popularity":
                return self.popularity.prior("popularity", "items", strength=strength)
            case "linear":
                return self.linear.prior("linear", "features", strength=strength)
            case "forgetting":
                half_life = self.settings.forgetting_half_life
                return self.linear.prior("forgetting", "features", half_life, strength)
            case "cluster":
                return self.content["cluster"].prior("cluster", strength)
            case _:
                return self.content["provider"].prior("provider", strength)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.feature_map.arms, self.feature_map.dimension, len(self.feature_map.fitted_ids)
