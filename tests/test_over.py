"""A version over another catalogue: its features as they are served when the items that changed are put."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits.ensemble import Ensemble
from actors.bandits.members import Uniform
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from actors.features.kin import Kin
from cluster.config import ContentSettings, FeatureSettings, LawSettings, WeightSettings
from cluster.importers.catalogue import items_of
from tests.features_samples import shop
from tune.specialise import Content, Vectors
from tune.whatif.version_policy import VersionPolicy

SHOP = shop()
MAP = FeatureMap.fit(SHOP, np.arange(500), FeatureSettings(kind="joint"), 0)
IDS = MAP.item_ids


def version(content: Content | None = None, encoder: str | None = None) -> Version:
    """Of items that came with embeddings of size 8, all but the sixth."""
    related = (content or Content()).related(MAP, SHOP.items, ContentSettings(neighbours=3), encoder)
    ensemble = Ensemble((Uniform(),), np.zeros(1), LawSettings(), WeightSettings(), MAP.dimension, MAP.fingerprint)
    return Version(related, ensemble, SHOP.items)


def published() -> Content:
    """Other embeddings of the same size."""
    rng = np.random.default_rng(7)
    vectors: dict[str, Vectors] = {}
    for item_id in IDS:
        vector_E = rng.normal(size=8)
        vectors[item_id] = (vector_E / np.linalg.norm(vector_E)).astype(np.float32)
    return Content(vectors, source="shop-content/1", encoder="clip")


def embedded(rows: Sequence[int], vectors: Sequence[list[float] | None]) -> pa.Table:
    """The items, these with another embedding."""
    column = SHOP.items["embedding"].to_pylist()
    for row, vector in zip(rows, vectors, strict=True):
        column[row] = vector
    at = SHOP.items.schema.get_field_index("embedding")
    return SHOP.items.set_column(at, SHOP.items.schema.field(at), pa.array(column, pa.list_(pa.float32())))


def kin(feature_map: FeatureMap, rows: Sequence[int]) -> Kin:
    found = feature_map.features({}, [IDS[row] for row in rows], None).kin
    assert found is not None
    return found


def equal(one: Kin, other: Kin) -> bool:
    return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


@pytest.mark.parametrize("content", [None, published()], ids=["own", "published"])
def test_a_replaced_embedding_has_the_neighbours_that_it_is_served_with(content: Content | None) -> None:
    """One that is new, one that is another, one that is taken away; all others keep what the fit knew."""
    made, changed = version(content), [2, 5, 9]
    items = embedded(changed, [list(range(8)), [1.0] * 8, None])
    over = made.over(items)
    assert equal(kin(over, changed), kin(made.feature_map.with_changes(items.take(changed), []), changed))
    others = [row for row in range(len(IDS)) if row not in changed]
    assert equal(kin(over, others), kin(made.feature_map, others))
    before = kin(made.feature_map, changed)
    assert not np.array_equal(kin(over, changed).similarity_KJ[0], before.similarity_KJ[0])
    assert np.array_equal(kin(over, changed).near_KJ[2], before.near_KJ[2]), "what the fit knew of it"


def test_the_next_version_of_the_catalogue_has_it_too() -> None:
    items = embedded([2], [list(range(8))])
    again = replace(version(), feature_map=version().over(items), items=items)
    assert equal(kin(again.over(items), [2]), kin(again.feature_map, [2]))
    assert equal(kin(again.over(SHOP.items), [2]), kin(version().over(SHOP.items), [2]))


def test_embeddings_of_another_encoder_are_not_compared() -> None:
    """Every item has another one, and one is new: it resembles nothing; where nobody knows the encoder, all are new."""
    made = version(published())
    given = np.random.default_rng(3).normal(size=(len(IDS), 8)).tolist()
    items = pa.concat_tables([embedded(range(len(IDS)), given), embedded([0], [given[1]]).slice(0, 1)])
    items = items.set_column(0, items.schema.field(0), pa.array([*IDS, "new"]))
    over, rows = made.over(items, "another"), range(len(IDS))
    assert equal(kin(over, rows), kin(made.feature_map, rows))
    assert equal(kin(over, rows), kin(made.over(items, "clip").with_items(SHOP.items), rows)) is False
    new = over.features({}, ["new"], None).kin
    assert new is not None
    assert new.level_K.tolist() == [0]
    for encoder in ("clip", None):
        new = made.over(items, encoder).features({}, ["new"], None).kin
        assert new is not None
        assert new.level_K[0] > 0


def test_relations_say_which_encoder_made_what_they_compare() -> None:
    assert [
        made.feature_map.relations and made.feature_map.relations.encoder
        for made in (version(), version(encoder="theirs"), version(published(), "theirs"))
    ] == ["", "theirs", "clip"]


def test_a_log_that_names_ids_alone_has_items_as_the_version_knows_them() -> None:
    made = version(published())
    named = items_of(pa.array(["new", IDS[4], IDS[2]]))
    found = VersionPolicy("version:1", made, named, 5, greedy=False, learns=False).features
    known = [IDS[2], IDS[4]]
    expected = made.feature_map.features({}, known, None)
    assert found.item_ids == ("new", IDS[4], IDS[2])
    assert np.array_equal(found.features({}, known, None).phi_KD, expected.phi_KD)


def test_a_log_whose_items_changed_is_judged_with_what_they_are_now() -> None:
    made, items = version(), embedded([2, 5], [list(range(8)), [1.0] * 8])
    policy = VersionPolicy("version:1", made, items, 5, greedy=False, learns=False)
    assert equal(kin(policy.features, [2]), kin(made.over(items), [2]))
    assert not equal(kin(policy.features, [2]), kin(made.feature_map, [2]))
    other = VersionPolicy(
        "version:1", version(published(), "clip"), items, 5, greedy=False, learns=False, encoder="another"
    )
    assert equal(kin(other.features, [2]), kin(version(published(), "clip").feature_map, [2]))
