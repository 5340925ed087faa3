"""Hashed levels: by another implementation of the hash, by the theorem, and what they are for."""

from typing import Any

import numpy as np
import pytest

from actors.features.behaviour import fold
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from actors.features.hashed import on_axes, places
from actors.features.keys import key
from cluster.config import FeatureSettings
from cluster.records import ITEMS, USERS, Dataset
from tests.features_samples import events_of, shop, table

MASK = (1 << 64) - 1
SHOP = shop()
JOINT = FeatureMap.fit(SHOP, np.arange(500), FeatureSettings(map="hashed", kind="joint", map_width=64), 0)


def place(token: int, buckets: int) -> tuple[int, int]:
    """SplitMix64's finaliser in Python's integers; the last bit is the sign, the others the bucket."""
    z = ((token ^ (token >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    z ^= z >> 31
    return (z >> 1) % buckets, -1 if z & 1 else 1


def cities(rows: int = 3_000, towns: int = 60, seed: int = 0) -> tuple[Dataset, Any]:
    """Two arms; which is right turns on the city alone, and the cities are many."""
    rng = np.random.default_rng(seed)
    right_C = rng.integers(0, 2, towns)
    city_N, done_N = rng.integers(0, towns, rows), rng.integers(0, 2, rows)
    contexts = [{"city": f"c{c}", "x": float(x)} for c, x in zip(city_N, rng.normal(size=rows), strict=True)]
    rewards = (done_N == right_C[city_N]).astype(float)
    users = [f"u{n % 400}" for n in range(rows)]
    events = events_of(contexts, ["ab"[a] for a in done_N], rewards.tolist(), [["a", "b"]] * rows, users)
    return Dataset("table", events, table(ITEMS, 2, item_id=["a", "b"]), table(USERS, 0)), right_C[city_N]


CITIES, RIGHT_N = cities()


def of_cities(name: Any, **more: Any) -> FeatureMap:
    settings = FeatureSettings(map=name, kind="arms", levels=8, map_width=256, **more)
    return FeatureMap.fit(CITIES, np.arange(2_400), settings, 0)


ARMS = of_cities("hashed")


def buckets(made: FeatureMap, context: dict[str, Any], user: str | None = None) -> Floats:
    return np.asarray(made.features(context, ["a"], user).phi_KD[0, made.base :])


def test_a_level_is_one_signed_bucket() -> None:
    """A level that the base has is not hashed; others, the user's id among them, add up, unseen ones too."""
    kept = [name for name in ARMS.context.names if name.startswith("city=c")]
    rare = [f"city=c{c}" for c in range(60) if f"city=c{c}" not in kept]
    assert len(kept) <= 8
    for level in kept:
        assert not buckets(ARMS, {"city": level.removeprefix("city=")}).any()
    for level in [*rare[:9], "city=never seen"]:
        expected = np.zeros(256)
        for text in (level, "user=u7"):
            bucket, sign = place(key(text), 256)
            expected[bucket] += sign
        np.testing.assert_array_equal(buckets(ARMS, {"city": level.removeprefix("city=")}, "u7"), expected)
    assert not buckets(ARMS, {"city": None, "x": 3.0, "unheard of": "text"}, "").any()
    np.testing.assert_array_equal(buckets(ARMS, {"city": ["c1"]}), buckets(ARMS, {"city": "c1"}))


def test_signed_hashing_keeps_inner_products_on_average() -> None:
    """Weinberger et al. 2009, lemma 2: <h(x), h(y)> has mean <x, y> and, for two disjoint rows of 5 levels, variance
    25/W. Over 4,000 pairs the mean is within 4 standard errors of 0 (error rate 6e-5); buckets fill evenly (χ² of
    63 degrees within 4 deviations)."""
    tokens = np.random.default_rng(0).integers(1, 2**63, (8_000, 5)).astype(np.uint64)
    rows = ARMS.hashed.rows(tokens) if ARMS.hashed else np.zeros((0, 0))
    inner = (rows[:4_000] * rows[4_000:]).sum(axis=1)
    error = np.sqrt(25 / 256 / 4_000)
    assert abs(inner.mean()) < 4 * error
    assert inner.var() == pytest.approx(25 / 256, rel=0.15)
    bucket, sign = places(tokens.ravel(), 64)
    expected = tokens.size / 64
    chi2 = ((np.bincount(bucket, minlength=64) - expected) ** 2 / expected).sum()
    assert abs(chi2 - 63) < 4 * np.sqrt(2 * 63)
    assert abs(sign.mean()) < 4 / np.sqrt(tokens.size)


def test_rare_levels_do_not_collapse_into_one() -> None:
    """Linear: all rare cities are one row. Hashed: 52 cities in 256 buckets and two signs have 2.6 clashes expected."""
    linear = of_cities("linear")
    rare = [c for c in range(60) if f"city=c{c}" not in linear.names]
    for made, least, most in ((linear, 1, 1), (ARMS, len(rare) - 9, len(rare))):
        rows = {made.features({"city": f"c{c}"}, ["a"], None).phi_KD[0].tobytes() for c in rare}
        assert least <= len(rows) <= most


def test_what_a_rare_level_tells_is_learned() -> None:
    """Ridge regression on the logged actions of 2,400 rows; the right arm turns on the city alone."""
    done_N = np.array([0 if item == "a" else 1 for item in CITIES.events["item_id"].to_pylist()])
    reward_N, shares = CITIES.events["reward"].to_numpy(), []
    for made in (of_cities("linear"), ARMS):
        phi_ND = made.batch(CITIES.events).phi_BKD[:, 0]
        scores = []
        for arm in (0, 1):
            rows = np.flatnonzero(done_N[:2_400] == arm)
            gram_DD = phi_ND[rows].T @ phi_ND[rows] + 1.0 * np.eye(made.dimension)
            scores.append(phi_ND[2_400:] @ np.linalg.solve(gram_DD, phi_ND[rows].T @ reward_N[rows]))
        shares.append(float((np.argmax(scores, axis=0) == RIGHT_N[2_400:]).mean()))
    assert shares[0] < 0.7
    assert shares[1] > 0.9


def test_a_joint_row_by_brute_force() -> None:
    """Levels of context and user times the item's axes, and the item's own levels; no numbers, no recent items."""
    assert JOINT.hashed is not None
    assert JOINT.joint is not None
    assert JOINT.tables is not None
    context: dict[str, Any] = {"device": "mobile", "hour": 3, "recent": ["i1"]}
    features = JOINT.features(context, ["i2", "i8", "new"], "u5")
    axes_IQ = JOINT.joint.axes(JOINT.tables)[fold("u5")]
    for k, (item, row) in enumerate((("i2", 2), ("i8", 8), ("new", -1))):
        expected = np.zeros(64)
        for text in ("device=mobile", "user=u5", "user.region=north"):
            for q in range(axes_IQ.shape[1]):
                step = (key(text) ^ ((q + 1) * 0x9E3779B97F4A7C15)) & MASK
                bucket, sign = place(step, 64)
                expected[bucket] += sign * axes_IQ[row, q]
        facts = SHOP.items.to_pylist()[row] if row >= 0 else None
        own = []
        if facts:
            own = [f"item={item}", f"category={facts['category']}", f"brand={facts['brand']}"]
            own += [f"provider_id={facts['provider_id']}", f"style={dict(facts['attributes'])['style']}"]
        for text in own:
            if text not in JOINT.names:
                bucket, sign = place(key(text), 64)
                expected[bucket] += sign
        np.testing.assert_allclose(features.phi_KD[k, JOINT.base :], expected, atol=1e-12)


def test_labels_name_the_commonest_level() -> None:
    """Every hashed level of the fit rows is counted in the label of its own bucket."""
    assert ARMS.hashed is not None
    counts: dict[str, int] = {}
    for event in CITIES.events.slice(0, 2_400).to_pylist():
        for text in (f"city={dict(event['context'])['city'][1:-1]}", f"user={event['user_id']}"):
            if text not in ARMS.names[: ARMS.base]:
                counts[text] = counts.get(text, 0) + 1
    held: dict[int, list[str]] = {}
    for text in counts:
        held.setdefault(place(key(text), 256)[0], []).append(text)
    for bucket, label in enumerate(ARMS.hashed.labels):
        texts = sorted(held.get(bucket, []), key=lambda text: (-counts[text], text))
        more = f" +{len(texts) - 1}" if len(texts) > 1 else ""
        assert label == (texts[0] + more if texts else f"hash[{bucket}]")


def test_an_item_of_a_changed_catalogue_has_its_own_buckets() -> None:
    items = SHOP.items.to_pylist()
    changed = JOINT.with_items(
        type(SHOP.items).from_pylist([*items[2:], {**items[0], "item_id": "again"}], schema=ITEMS)
    )
    assert changed.fingerprint == JOINT.fingerprint
    before = JOINT.features({}, ["i0", "i9"], None).phi_KD
    after = changed.features({}, ["again", "i9", "i0"], None).phi_KD
    np.testing.assert_allclose(after[1], before[1], atol=1e-12)
    moved = after[0, JOINT.base :] - before[0, JOINT.base :]
    expected = np.zeros(64)
    for text, count in (("item=again", 1), ("item=i0", -1)):
        bucket, sign = place(key(text), 64)
        expected[bucket] += count * sign
    np.testing.assert_array_equal(moved, expected)


def test_without_levels_there_are_no_buckets() -> None:
    rng = np.random.default_rng(0)
    events = events_of([{"x": float(x)} for x in rng.normal(size=90)], ["a", "b"] * 45, [0.0, 1.0] * 45, [None] * 90)
    data = Dataset("table", events, table(ITEMS, 2, item_id=["a", "b"]), table(USERS, 0))
    made = FeatureMap.fit(data, np.arange(90), FeatureSettings(map="hashed", kind="arms"), 0)
    assert (made.hashed, made.dimension) == (None, made.base)


def test_padding_has_no_bucket() -> None:
    none = np.zeros((3, 2), np.uint64)
    assert not places(none, 5)[1].any()
    assert not on_axes(none, 4).any()
    assert ARMS.hashed is not None
    assert ARMS.hashed.rows(np.zeros((2, 0), np.uint64)).tolist() == np.zeros((2, 256)).tolist()
