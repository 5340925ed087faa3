"""What a composition takes up of its items' content: neighbours by brute force, clusters, members and their rows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits.ensemble import Prior
from actors.content.models import by_cluster, by_provider
from actors.content.published import CONTENT, Published
from actors.content.regrouping import kept
from actors.content.regrouping.groups import Groups
from actors.content.regrouping.regrouping import Regrouping
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from actors.features.kin import LEVELS
from cluster.config import BanditSettings, ContentSettings, FeatureSettings, RewardKind, Settings
from cluster.records import Dataset
from cluster.registry import Registry
from tests.compose_cases import changed, two_kinds
from tests.features_samples import shop
from tune.groundwork import Groundwork
from tune.predefined import Design, Predefined
from tune.restart import _predefined
from tune.specialise import Content, near, told

MEMBERS: tuple[Any, ...] = ("uniform", "linear", "cluster", "provider")
GROUPED = Regrouping(
    Groups()
    .move("p0", "c1", "2026-01-01", "first", {})
    .move("p1", "c2", "2026-01-01", "first", {})
    .move("gone", "c2", "2026-01-01", "first", {}),
    0.05,
)


def with_items(dataset: Dataset, **columns: Sequence[Any]) -> Dataset:
    items = dataset.items
    for name, values in columns.items():
        place = items.schema.get_field_index(name)
        items = items.set_column(place, items.schema.field(name), pa.array(values, items.schema.field(name).type))
    return replace(dataset, items=items)


def fitted(dataset: Dataset, content: Content | None = None, **bandits: Any) -> Predefined:
    """The members asked for, on the first 400 events."""
    feature_map = FeatureMap.fit(dataset, np.arange(400), FeatureSettings(), 0)
    related = (content or Content()).related(feature_map, dataset.items, ContentSettings())
    design = Design.of(related, dataset.events.slice(0, 400), RewardKind())
    return Predefined(design, related, BanditSettings(predefined=MEMBERS, **bandits))


def scope(i: int, names: list[str | None], clusters: dict[str, str], there: Floats, most: int) -> tuple[str, list[int]]:
    """The narrowest scope with `most` others, by the rule of docs/vectors.md, item by item."""
    others = [j for j in np.flatnonzero(there).tolist() if j != i]
    own = names[i]
    if own is not None:
        provider = [j for j in others if names[j] == own]
        cluster = [j for j in others if (name := names[j]) is not None and clusters[name] == clusters[own]]
        for level, found in (("provider", provider), ("cluster", cluster)):
            if len(found) >= most:
                return level, found
    return "all", others


def test_neighbours_are_the_nearest_in_the_narrowest_scope_that_has_enough() -> None:
    rng = np.random.default_rng(0)
    names: list[str | None] = [*["a"] * 6, *["b"] * 2, *["c"] * 3, *["d"] * 2, None, None]
    clusters = {"a": "x", "b": "y", "c": "y", "d": "z"}
    vectors = rng.standard_normal((len(names), 5)).astype(np.float32)
    vectors[[2, 13]] = 0  # these have none
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    ids = [f"i{i}" for i in range(len(names))]
    near_IJ, similarity_IJ, level_I = near(ids, names, clusters, vectors, 3)
    seen = set()
    for i, there in enumerate(vectors.any(axis=1)):
        if not there:
            assert near_IJ[i].tolist() == [-1] * 3
            assert (similarity_IJ[i].any(), level_I[i]) == (False, 0)
            continue
        level, others = scope(i, names, clusters, vectors.any(axis=1), 3)
        best = sorted(others, key=lambda j: -float(vectors[i] @ vectors[j]))[:3]
        assert near_IJ[i].tolist() == best
        assert similarity_IJ[i] == pytest.approx(vectors[best] @ vectors[i], abs=1e-6)
        assert LEVELS[level_I[i]] == level
        seen.add(level)
    assert seen == {"provider", "cluster", "all"}


def test_two_items_are_each_others_only_neighbours() -> None:
    near_IJ, _, level_I = near(["i", "j", "k"], ["a", "a", None], {"a": "x"}, np.eye(3, 2, dtype=np.float32), 4)
    assert near_IJ.tolist() == [[1, -1, -1, -1], [0, -1, -1, -1], [-1] * 4]
    assert [LEVELS[level] for level in level_I] == ["all", "all", "none"]


def test_items_that_name_no_provider_and_have_no_embedding_are_as_before() -> None:
    own = fitted(two_kinds())
    assert own.feature_map.relations is None
    assert [member.name for member in own.members()] == ["uniform", "linear"]
    assert (own.design.provider_N == -1).all()


def test_items_speak_for_themselves_where_nothing_is_published() -> None:
    """Thirty items of three providers, one of them without embedding, and one cluster: no model of clusters."""
    dataset = shop()
    own = fitted(dataset)
    relations = own.feature_map.relations
    assert relations is not None
    assert (relations.providers, relations.clusters) == (("p0", "p1", "p2"), ("all",))
    assert relations.neighbours == 5
    lacks = dataset.items["embedding"].is_null().to_pylist().index(True)
    assert relations.kin.near_KJ[lacks].tolist() == [-1] * 5
    assert [member.name for member in own.members()] == ["uniform", "linear", "provider"]
    assert own.design.provider_N.tolist() == [int(i[1:]) % 3 for i in dataset.events["item_id"].to_pylist()[:400]]


def test_what_was_published_for_other_items_hides_no_embeddings_of_these() -> None:
    """`tune.embed` ran for other data under the same name."""
    dataset = shop()
    vectors = np.random.default_rng(0).normal(size=(len(dataset.items), 3))
    dataset = with_items(dataset, embedding=vectors.tolist())
    other = Content(vectors={"of another shop": np.array([0.6, 0.8], np.float32)}, source="shop-content/1")
    found, own = (fitted(dataset, content).feature_map.relations for content in (other, Content()))
    assert found is not None
    assert own is not None
    assert (found.source, found.width) == ("", 3)
    assert np.array_equal(found.kin.near_KJ, own.kin.near_KJ)


def test_empty_embeddings_are_none() -> None:
    dataset = with_items(shop(), embedding=[[]] * 30)
    relations = fitted(dataset).feature_map.relations
    assert relations is not None
    assert (relations.neighbours, told(relations)["embedded"]) == (0, 0)
    assert told(relations)["embeddings"].startswith("none")


def test_what_was_published_is_taken_up(tmp_path: Path) -> None:
    """Embeddings come before those of the items, clusters from the last regrouping; p2, whom nobody has grouped, goes
    to the cluster of the nearest content."""
    dataset, registry = shop(), Registry(str(tmp_path / "registry"))
    assert Content.of(registry, "shop") == Content()
    ids = dataset.items["item_id"].to_pylist()
    angle = np.array([{"p0": 0.0, "p1": 1.0, "p2": 0.9}[name] for name in dataset.items["provider_id"].to_pylist()])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    registry.publish(CONTENT.format("shop"), Published.of(ids, [None] * len(ids), vectors, [], {}).save)
    registry.publish(kept.NAME.format("shop"), lambda folder: kept.save(GROUPED, {}, folder))
    content = Content.of(registry, "shop")
    assert content.source == "shop-content/1"
    own = fitted(dataset, content)
    relations = own.feature_map.relations
    assert relations is not None
    assert relations.vectors_FE == pytest.approx(vectors)
    assert dict(zip(relations.providers, relations.cluster_P.tolist(), strict=True)) == {"p0": 0, "p1": 1, "p2": 1}
    assert relations.clusters == ("c1", "c2")
    assert [member.name for member in own.members()] == list(MEMBERS)
    assert told(relations) == {"providers": 3, "clusters": 2, "embedded": 30, "embeddings": "shop-content/1"}
    without = replace(content, vectors={})
    alone = fitted(with_items(dataset, embedding=[None] * len(ids)), without).feature_map.relations
    assert alone is not None
    assert alone.neighbours == 0
    assert alone.cluster_P.tolist() == [0, 1, 1]  # p2 goes to the cluster with most providers


def test_the_members_are_the_content_models_posteriors() -> None:
    own = fitted(shop(), Content(regrouping=GROUPED), prior_strength=0.5)
    relations, d = own.feature_map.relations, own.design
    assert relations is not None
    parts = {member.name: member for member in own.members()}
    for name, fit, rows in (("cluster", by_cluster, 3), ("provider", by_provider, 6)):
        model = fit(d.phi_ND, d.provider_N, d.reward_N, relations.cluster_P, own.feature_map.groups)
        member = parts[name]
        assert isinstance(member, Prior)
        assert (member.view, member.noise, len(member.shift_AD)) == (name, model.posterior.noise, rows)
        np.testing.assert_array_equal(member.precision_ADD, 0.5 * model.posterior.precision_ADD)
        np.testing.assert_array_equal(member.shift_AD, 0.5 * model.posterior.shift_AD)
    assert rows == relations.provider_rows


def test_members_without_use_are_left_out() -> None:
    dataset = shop()
    size = 8 * 5 * fitted(dataset).feature_map.dimension ** 2
    assert [m.name for m in fitted(dataset, content_bytes=size).members()] == ["uniform", "linear", "provider"]
    small = fitted(dataset, content_bytes=size - 1)
    assert [m.name for m in small.members()] == ["uniform", "linear"]
    assert small.left_out["provider"] == f"{size:,} bytes of precision, more than bandits.content_bytes"
    alone = with_items(dataset, provider_id=["p0"] * 30)
    assert [m.name for m in fitted(alone).members()] == ["uniform", "linear"]
    unseen = with_items(dataset, provider_id=["p0", "p1", *[None] * 28])
    never = changed(unseen, item_id=["i2"] * len(dataset.events), candidates=[["i2", "i3"]] * len(dataset.events))
    assert [m.name for m in fitted(never).members()] == ["uniform", "linear"]


def test_after_a_change_the_scales_stay() -> None:
    dataset = shop()
    own = fitted(dataset)
    settings = Settings(bandits=BanditSettings(predefined=MEMBERS))
    since = dataset.events.slice(400)
    again = _predefined(own.feature_map, since, settings, own).content["provider"]
    assert (again.precision_LG == own.content["provider"].precision_LG).all()
    assert again.posterior.noise == own.content["provider"].posterior.noise
    rows = Design.of(own.feature_map, since, RewardKind())
    expected = own.content["provider"].again(rows.phi_ND, rows.provider_N, rows.reward_N, own.feature_map.groups)
    np.testing.assert_array_equal(again.posterior.shift_AD, expected.posterior.shift_AD)
    strangers = replace(own, design=replace(own.design, provider_N=np.full(400, -1)))
    assert not _predefined(own.feature_map, since, settings, strangers).content


def test_groundwork_relates_the_items_of_a_feature_map_that_it_fits() -> None:
    work = Groundwork.of(shop(), Settings(), content=Content(regrouping=GROUPED))
    assert work.feature_map.relations is not None
    assert work.feature_map.relations.clusters == ("c1", "c2")
    given = FeatureMap.fit(shop(), np.arange(400), FeatureSettings(), 0)
    assert Groundwork.of(shop(), Settings(), given).feature_map is given
