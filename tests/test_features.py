"""The feature map: kinds, fallbacks, agreement of its two paths, persistence, and that it sees the fit rows only."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file

from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch
from cluster.config import FeatureSettings
from cluster.errors import ModelError
from cluster.records import ITEMS, Dataset, decode
from tests.features_samples import events_of, labelled, shop, table

SHOP, TABLE = shop(), labelled()
JOINT = FeatureMap.fit(SHOP, np.arange(500), FeatureSettings(kind="joint"), 0)
ARMS = FeatureMap.fit(TABLE, np.arange(700), FeatureSettings(), 0)

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400), st.just("nan")
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=2), scalars, max_size=2))
contexts = st.dictionaries(
    st.one_of(st.sampled_from(["device", "hour", "spent", "member", "recent", "x", "shape"]), st.text(max_size=3)),
    values,
    max_size=6,
)


def test_the_kinds_and_their_sizes() -> None:
    assert (JOINT.kind, JOINT.arms, JOINT.dimension) == ("joint", 1, len(JOINT.names))
    assert (ARMS.kind, ARMS.arms, ARMS.dimension) == ("arms", 4, len(ARMS.names))
    assert JOINT.dimension <= 96
    assert JOINT.names[0] == ARMS.names[0] == "1"
    assert ARMS.item_ids == ("a", "b", "c")
    assert {"x", "shape=flat"} <= set(ARMS.context_names)


def test_arms_features_by_hand() -> None:
    """φ = [1, context]; x is standardised by mean and deviation of the fit rows (after the clip, which none meets)."""
    x_N = np.array([decode(pairs)["x"] for pairs in TABLE.events["context"].to_pylist()[:700]], float)
    features = ARMS.features({"x": 0.5, "shape": "flat"}, ["c", "a", "new"], None)
    assert features.arm_K.tolist() == [2, 0, -1]
    assert features.item_K.tolist() == [2, 0, -1]
    assert features.phi_KD.shape == (3, ARMS.dimension)
    assert features.phi_KD[0, 0] == 1.0
    named = dict(zip(ARMS.names, features.phi_KD[0], strict=True))
    assert named["x"] == pytest.approx((0.5 - x_N.mean()) / x_N.std(), rel=1e-9)
    assert named["shape=flat"] == 1.0
    np.testing.assert_array_equal(features.phi_KD[0, 1:], features.context_X)


def test_auto_takes_arms_at_ten_rows_per_parameter() -> None:
    """Three plain features and the intercept, three items: 120 rows make arms, 119 do not."""
    rng = np.random.default_rng(0)
    rows = [{"x": float(a), "y": float(b), "z": float(c)} for a, b, c in rng.normal(size=(120, 3))]
    items = table(ITEMS, 3, item_id=["a", "b", "c"])
    data = Dataset("table", events_of(rows, ["a"] * 120, [0.0] * 120, [None] * 120), items, TABLE.users)
    assert FeatureMap.fit(data, np.arange(120), FeatureSettings(), 0).kind == "arms"
    assert FeatureMap.fit(data, np.arange(119), FeatureSettings(), 0).kind == "joint"
    many = table(ITEMS, 65, item_id=[f"i{i}" for i in range(65)])
    assert (
        FeatureMap.fit(Dataset("table", data.events, many, TABLE.users), np.arange(120), FeatureSettings(), 0).kind
        == "joint"
    )


@pytest.mark.parametrize("most", [1, 2, 3, 9, 20, 40, 70, 200])
def test_no_more_features_than_asked(most: int) -> None:
    for data, kind in ((SHOP, "joint"), (TABLE, "arms"), (TABLE, "joint")):
        made = FeatureMap.fit(data, np.arange(500), FeatureSettings(kind=kind, max_dimension=most), 0)
        assert made.dimension == len(made.names) <= most
        batch = made.batch(data.events.slice(0, 20))
        assert batch.phi_BKD.shape[2] == made.dimension


def same(one: FeatureMap, batch: FeatureBatch, b: int, event: dict[str, Any]) -> None:
    ids = event["candidates"] if event["candidates"] is not None else one.item_ids
    features, row = one.features(decode(event["context"]), ids, event["user_id"]), batch.row(b)
    np.testing.assert_allclose(features.phi_KD, row.phi_KD, rtol=0, atol=1e-12)
    np.testing.assert_allclose(features.context_X, row.context_X, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(features.arm_K, row.arm_K)
    np.testing.assert_array_equal(features.item_K, row.item_K)
    np.testing.assert_array_equal(features.key_K, row.key_K)


@pytest.mark.parametrize(("feature_map", "data"), [(JOINT, SHOP), (ARMS, TABLE)])
def test_a_decision_and_a_batch_agree(feature_map: FeatureMap, data: Dataset) -> None:
    events = data.events.slice(450, 120)
    batch = feature_map.batch(events)
    for b, event in enumerate(events.to_pylist()):
        same(feature_map, batch, b, event)
    assert np.isfinite(batch.phi_BKD).all()
    assert (batch.phi_BKD[..., 0] == 1.0)[batch.mask_BK].all()


@given(
    context=contexts,
    user=st.sampled_from(["u1", "u2", "nobody", "", None]),
    ids=st.lists(st.text(max_size=3), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_no_context_raises_and_all_is_finite(context: dict[str, Any], user: str | None, ids: list[str]) -> None:
    for feature_map, known in ((JOINT, "i1"), (ARMS, "a")):
        features = feature_map.features(context, [known, *ids], user)
        assert features.phi_KD.shape == (1 + len(ids), feature_map.dimension)
        assert len(features.context_X) == len(feature_map.context_names)
        assert np.isfinite(features.phi_KD).all()
        assert np.isfinite(features.context_X).all()
        assert features.arm_K[0] >= 0


@given(context=contexts)
@settings(max_examples=60, deadline=None)
def test_odd_contexts_read_the_same_from_a_table(context: dict[str, Any]) -> None:
    events = events_of([context, {}], ["i1", "i2"], [0.0, 1.0], [["i1", "what"], None], ["u3", None])
    try:
        batch = JOINT.batch(events)
    except pa.ArrowException:  # a lone surrogate is no UTF-8 and cannot be in an Arrow table
        return
    for b, event in enumerate(events.to_pylist()):
        same(JOINT, batch, b, event)


def test_fallbacks_are_what_is_said() -> None:
    """Missing, null, wrong type and not finite are one; an unseen level is zeros; so is an unknown item's own part."""
    names = ARMS.context_names
    plain = ARMS.features({"shape": "flat"}, ["a"], None).context_X
    assert plain[names.index("x")] == 0.0
    for wrong in (None, "text", float("nan"), float("inf"), [1.0], 10**400, {"a": 1}):
        np.testing.assert_array_equal(ARMS.features({"x": wrong, "shape": "flat"}, ["a"], None).context_X, plain)  # type: ignore[dict-item]
    assert ARMS.features({"x": "0.5", "shape": "flat"}, ["a"], None).context_X[names.index("x")] != 0.0
    unseen = ARMS.features({"shape": "oval"}, ["a"], None).context_X
    assert unseen[[n.startswith("shape=") for n in names]].tolist() == [0.0] * sum(
        n.startswith("shape=") for n in names
    )
    features = JOINT.features({}, ["stranger"], "nobody")
    static = [i for i, name in enumerate(JOINT.names) if name.startswith(("text[", "embedding[", "behaviour[", "pop"))]
    assert features.arm_K.tolist() == [0]
    assert features.item_K.tolist() == [-1]
    assert features.phi_KD[0, static].tolist() == [0.0] * len(static)


@pytest.mark.parametrize("feature_map", [JOINT, ARMS])
def test_rows_that_are_known_need_no_names(feature_map: FeatureMap) -> None:
    context, rows = {"recent": ["i3", "i7"], "x": 0.5}, np.array([2, 0, 1])
    named = feature_map.features(context, [feature_map.item_ids[row] for row in rows], "u3")
    found = feature_map.features(context, [], "u3", rows)
    for field in ("phi_KD", "arm_K", "item_K", "key_K", "context_X"):
        np.testing.assert_array_equal(getattr(found, field), getattr(named, field))


def test_rows_taken_from_one_context_stay_a_view() -> None:
    features = ARMS.features({"x": 0.5}, ["a", "b", "c"], None)
    taken = features.take(np.array([2, 0]))
    assert taken.phi_KD.strides[0] == 0
    np.testing.assert_array_equal(taken.phi_KD, features.phi_KD[[2, 0]])
    np.testing.assert_array_equal(taken.key_K, features.key_K[[2, 0]])


def test_empty_requests() -> None:
    assert len(JOINT.features({}, [], None)) == 0
    assert len(JOINT.batch(SHOP.events.slice(0, 0))) == 0
    assert len(ARMS.batch(TABLE.events.slice(0, 0))) == 0


@pytest.mark.parametrize(("feature_map", "data"), [(JOINT, SHOP), (ARMS, TABLE)])
def test_a_saved_map_is_the_same_map(feature_map: FeatureMap, data: Dataset, tmp_path: Path) -> None:
    save_file(feature_map.arrays(), tmp_path / "arrays.safetensors")
    (tmp_path / "facts.json").write_text(json.dumps(feature_map.facts()))
    loaded = FeatureMap.load(
        load_file(tmp_path / "arrays.safetensors"), json.loads((tmp_path / "facts.json").read_text())
    )
    assert loaded.fingerprint == feature_map.fingerprint
    assert loaded.names == feature_map.names
    assert loaded.facts() == feature_map.facts()
    for name, array in feature_map.arrays().items():
        np.testing.assert_array_equal(array, loaded.arrays()[name])
    events = data.events.slice(0, 100)
    ours, theirs = feature_map.batch(events), loaded.batch(events)
    np.testing.assert_array_equal(ours.phi_BKD, theirs.phi_BKD)
    np.testing.assert_array_equal(ours.context_BX, theirs.context_BX)


def test_a_map_that_lacks_a_part_says_which() -> None:
    arrays = ARMS.arrays()
    del arrays["context.basis.center_N"]
    with pytest.raises(ModelError, match=r"context\.basis\.center_N"):
        FeatureMap.load(arrays, ARMS.facts())
    with pytest.raises(ModelError, match="0 rows"):
        FeatureMap.fit(SHOP, np.arange(0), FeatureSettings(), 0)


def test_the_fingerprint_names_the_parameters() -> None:
    again = FeatureMap.fit(SHOP, np.arange(500), FeatureSettings(kind="joint"), 0)
    assert again.fingerprint == JOINT.fingerprint
    for name, array in JOINT.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
    assert FeatureMap.fit(SHOP, np.arange(499), FeatureSettings(kind="joint"), 0).fingerprint != JOINT.fingerprint
    assert FeatureMap.fit(TABLE, np.arange(699), FeatureSettings(), 0).fingerprint != ARMS.fingerprint


@pytest.mark.parametrize("kind", ["joint", "arms"])
def test_only_the_fit_rows_are_seen(kind: Any) -> None:
    """Planted leak: other contents in all the other rows, before and after, change no bit of the map."""
    data, rows = shop(400), np.arange(100, 300)
    other = shop(400, seed=9)
    planted = events_of(
        [{"device": "planted", "brand new": 1e9, "recent": ["i0"] * 9}] * 400, ["i0"] * 400, [1.0] * 400,
        [["i0"]] * 400, ["planted"] * 400,
    )  # fmt: skip
    fitted = FeatureMap.fit(data, rows, FeatureSettings(kind=kind), 0)
    for source in (other.events, planted):
        events = pa.concat_tables([source.slice(0, 100), data.events.slice(100, 200), source.slice(300, 100)])
        changed = FeatureMap.fit(
            Dataset(data.format, events, data.items, data.users), rows, FeatureSettings(kind=kind), 0
        )
        assert changed.fingerprint == fitted.fingerprint
        assert changed.facts() == fitted.facts()
        for name, array in fitted.arrays().items():
            np.testing.assert_array_equal(array, changed.arrays()[name], err_msg=name)
    mask = np.isin(np.arange(400), rows)
    assert FeatureMap.fit(data, mask, FeatureSettings(kind=kind), 0).fingerprint == fitted.fingerprint


def test_a_catalogue_that_changes_keeps_its_parameters() -> None:
    items = SHOP.items.to_pylist()
    new = {**items[0], "item_id": "i0 again"}
    changed = JOINT.with_items(pa.Table.from_pylist([*items[2:], new], schema=ITEMS))
    assert changed.fingerprint == JOINT.fingerprint
    assert changed.dimension == JOINT.dimension
    assert changed.item_ids == (*JOINT.item_ids[2:], "i0 again")
    context, user = {"recent": ["i7", "i9"], "device": "mobile"}, "u5"
    before = JOINT.features(context, ["i0", "i7", "i29"], user)
    after = changed.features(context, ["i0 again", "i7", "i29", "i0"], user)
    np.testing.assert_allclose(before.phi_KD[1:], after.phi_KD[1:3], rtol=0, atol=1e-12)
    assert after.item_K.tolist() == [-1, 7, 29, -1]
    own = [i for i, name in enumerate(JOINT.names) if name.startswith(("text[", "log price", "brand=", "embedding["))]
    np.testing.assert_allclose(before.phi_KD[0, own], after.phi_KD[0, own], atol=1e-12)
    assert changed.with_items(SHOP.items).features(context, ["i0"], user).item_K.tolist() == [0]
    assert (changed.batch(SHOP.events.slice(7, 1)).mask_BK.sum()) == 29


def test_arms_of_a_catalogue_that_changes() -> None:
    changed = ARMS.with_items(table(ITEMS, 2, item_id=["z", "b"]))
    assert changed.features({}, ["z", "b", "a"], None).arm_K.tolist() == [-1, 1, -1]
    assert changed.arms == 4
    assert changed.fingerprint == ARMS.fingerprint


def test_serving_loads_nothing_heavy(tmp_path: Path) -> None:
    """Load and forward, without SciPy, scikit-learn, Torch or Ray."""
    save_file(JOINT.arrays(), tmp_path / "arrays.safetensors")
    (tmp_path / "facts.json").write_text(json.dumps(JOINT.facts()))
    code = (
        "import json, sys; from safetensors.numpy import load_file; from actors.features.feature_map import FeatureMap;"
        f"m = FeatureMap.load(load_file({str(tmp_path / 'arrays.safetensors')!r}),"
        f" json.load(open({str(tmp_path / 'facts.json')!r})));"
        "m.features({'recent': ['i1']}, ['i1', 'i2'], 'u1');"
        "print([n for n in ('scipy', 'sklearn', 'torch', 'ray') if n in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
