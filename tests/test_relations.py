"""Relations of a catalogue's items: numbers by hand, and the same again after saving."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from actors.features import store
from actors.features.kin import Kin, alphas
from actors.features.relations import Relations
from cluster.errors import ModelError
from cluster.records import item_table

NONE = -1


def relations(providers: Sequence[str | None] = ("b", "a", None, "b"), temperature: float = 0.1) -> Relations:
    """Four items; the third has no provider, the last no embedding."""
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 0.0]])
    near = np.array([[1, 2], [2, 0], [1, 0], [NONE, NONE]])
    similarity = np.array([[0.6, 0.0], [0.8, 0.6], [0.8, 0.0], [0.0, 0.0]])
    level = np.array([3, 2, 3, 0])
    return Relations.of(providers, {"a": "x", "b": "y", "c": "z"}, vectors, near, similarity, level, temperature)


def test_rows_of_parameters() -> None:
    """Providers a, b are rows 0, 1, then come new ones of clusters x, y; the last row, -1, is unknown."""
    made = relations()
    assert (made.providers, made.clusters, made.cluster_P.tolist()) == (("a", "b"), ("x", "y"), [0, 1])
    assert made.kin.provider_K.tolist() == [1, 0, -1, 1, -1]
    assert made.kin.cluster_K.tolist() == [1, 0, -1, 1, -1]
    assert (made.provider_rows, made.cluster_rows, made.neighbours) == (5, 3, 2)


def test_neighbours_weights_by_hand() -> None:
    alpha = relations(temperature=0.5).kin.alpha_KJ
    e = math.exp
    assert alpha[0] == pytest.approx([e(1.2) / (e(1.2) + 1), 1 / (e(1.2) + 1)], rel=1e-12)
    assert alpha[1] == pytest.approx([e(1.6) / (e(1.6) + e(1.2)), e(1.2) / (e(1.6) + e(1.2))], rel=1e-12)
    assert alpha[3].tolist() == alpha[4].tolist() == [0.0, 0.0]
    one = alphas(np.array([[0.3, 0.9]]), np.array([[4, NONE]]), 0.01)
    assert one.tolist() == [[1.0, 0.0]]


def test_reduced_embeddings_are_principal_axes() -> None:
    """Along the axes of numpy's SVD of the centred vectors, up to sign and one scale; 0 where there is none."""
    made = relations()
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    left, singular, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    found = made.kin.reduced_KQ
    assert found[3:].tolist() == [[0.0, 0.0]] * 2
    ratio = np.abs(found[:3]) / np.abs(left * singular)
    assert ratio == pytest.approx(np.full((3, 2), ratio[0, 0]), rel=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\['d'\] have no cluster"):
        relations(("d", "a", None, "b"))
    with pytest.raises(ModelError, match="above 0"):
        relations(temperature=0.0)
    with pytest.raises(ModelError, match="each needs a row"):
        relations(("a", "b"))


def same(one: Kin, other: Kin) -> bool:
    return all(
        np.array_equal(mine, theirs) for mine, theirs in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_relations_come_again_from_arrays_and_facts() -> None:
    made = relations()
    again = store.unpack(Relations, *store.pack(made))
    assert same(again.kin, made.kin)
    assert again.providers == made.providers
    assert np.array_equal(again.vectors_FE, made.vectors_FE)


def items(**providers: str | None) -> pa.Table:
    return item_table({name: json.dumps({"provider_id": provider}) for name, provider in providers.items()})


def test_an_item_that_changed_its_provider_is_the_same_in_a_new_catalogue_as_after_a_put() -> None:
    """Of b, a, none and b: one goes to a, one stays, one comes to a new provider, one loses its own."""
    made, rows = relations(), np.arange(4)
    changed = items(i="a", j="a", k="new", l=None)
    proven, served = made.with_items(changed, rows, rows).kin, made.followed(changed, rows).kin.take(np.arange(4, 8))
    assert served.provider_K.tolist() == [0, 0, 2, -1], "new is of x, whose only item is nearer to k than y's"
    assert np.array_equal(proven.provider_K[:4], served.provider_K)
    assert np.array_equal(proven.cluster_K[:4], served.cluster_K)
    assert np.array_equal(proven.near_KJ[[0, 2, 3]], served.near_KJ[[0, 2, 3]])
    again = made.with_items(changed, rows, rows)
    assert same(again.with_items(changed, rows, rows).kin, again.kin)


def test_a_catalogue_without_a_change_keeps_what_the_fit_knew() -> None:
    made, rows = relations(), np.arange(4)
    assert same(made.with_items(items(i="b", j="a", k=None, l="b"), rows, rows).kin, made.kin)


@pytest.mark.parametrize("scale", [1e-40, 1e-15, 1e-6, 1.0, 1e37])
def test_an_embedding_of_any_length_has_the_same_neighbours(scale: float) -> None:
    """0.6, 0.8 is j's, and 0.6 and 0.8 are the cosines with i and k; 1e-40 has few bits in single precision."""
    table = item_table({"new": json.dumps({"embedding": [0.6 * scale, 0.8 * scale]})})
    kin = relations().later(table, np.array([-1]))
    assert kin.near_KJ.tolist() == [[1, 2]]
    np.testing.assert_allclose(kin.similarity_KJ, [[1.0, 0.8]], atol=1e-4)
