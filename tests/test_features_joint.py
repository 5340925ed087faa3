"""Similarity to recent items, behaviour across folds, and crosses, by hand and by brute force."""

from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from actors.features.behaviour import FOLDS, Behaviour, fold, folds, parted, whole
from actors.features.behaviour_fitting import fit_behaviour
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from actors.features.joint import Recent, Tables, similarities
from actors.features.keys import item_keys, key
from actors.features.recent import recent_padded
from cluster.config import FeatureSettings
from tests.features_samples import events_of, shop

DATA = shop()
MADE = FeatureMap.fit(DATA, np.arange(500), FeatureSettings(kind="joint"), 0)


def small() -> Tables:
    """Three items and the unknown one: unit texts, one category and two brands, log prices 1, 2, none."""
    similar = np.zeros((FOLDS + 1, 4, 1))
    similar[:, :3, 0] = [0.5, 1.0, -1.0]
    similar[0] = 0.0
    return Tables(
        static_IS=np.zeros((4, 0)),
        text_IR=np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 0.0]]),
        codes_3I=np.array([[0, 1, 2, -1], [0, 0, -1, -1], [0, 1, 1, -1]]),
        price_I2=np.array([[1.0, 1.0], [2.0, 1.0], [0.0, 0.0], [0.0, 0.0]]),
        fitted_I=np.array([0, 1, 2, -1]),
        behaviour=Behaviour((), np.zeros((FOLDS + 1, 4, 0)), similar),
    )


def near_of(tables: Tables, rows: list[int], recent: list[int], f: int) -> Floats:
    """near_ZK of one decision."""
    return similarities(tables, np.array([rows]), Recent.of(np.array([recent], np.int64)), whole(f))[0]


def test_similarities_by_hand() -> None:
    """Items 0, 2 and an unknown one; recent 1, 2 and padding."""
    near = near_of(small(), [0, 2, -1], [1, 2, -1], 1)
    expected = {
        0: [0.3, 0.9, 0.0],  # text mean: (.6 + 0)/2, (.8 + 1)/2
        1: [0.6, 1.0, 0.0],
        2: [0.0, 0.0, 0.0],  # behaviour mean: .5·(1 − 1)/2, −1·(1 − 1)/2
        3: [0.5, 1.0, 0.0],
        4: [0.0, 0.5, 0.0],  # itself among the two
        5: [0.5, 0.0, 0.0],  # category: item 2 has none
        6: [0.0, 1.0, 0.0],  # brand: items 1 and 2 share one
        7: [1.0, 0.0, 0.0],  # |1 − 2|; item 2 has no price
    }
    for z, values in expected.items():
        np.testing.assert_allclose(near[z], values, atol=1e-15, err_msg=str(z))
    assert not near_of(small(), [0, 1], [-1, -1, -1], 1).any()
    assert not near_of(small(), [0, 1], [], 1).any()
    assert not near_of(small(), [0, 1], [1], 0)[2:4].any()


def test_similarities_of_several_decisions_by_hand() -> None:
    """Items 0 and 1 for users of folds 1, 0 and 1, the second with nothing recent: as each has them alone."""
    recent, folds_B = np.array([[1, 2], [-1, -1], [2, -1]]), [1, 0, 1]
    near = similarities(small(), np.array([[0, 1]]), Recent.of(recent), parted(folds_B))
    for one, recent_R, f in zip(near, recent.tolist(), folds_B, strict=True):
        np.testing.assert_array_equal(one, near_of(small(), [0, 1], recent_R, f))
    np.testing.assert_allclose(near[2, 2], [-0.5, -1.0])  # 0.5 and 1 times -1
    assert not near[1].any()


@given(
    st.lists(st.integers(0, 29), max_size=6),
    st.lists(st.integers(-1, 29), min_size=1, max_size=5),
    st.integers(0, FOLDS),
)
@settings(max_examples=80, deadline=None)
def test_similarities_by_brute_force(recent: list[int], rows: list[int], f: int) -> None:
    tables = MADE.tables
    assert tables is not None
    near = near_of(tables, rows, [*recent, -1], f)
    texts, behaviours = tables.text_IR, tables.behaviour.similar_FIR[f]
    for k, row in enumerate(rows):
        if not recent:
            assert not near[:, k].any()
            continue
        cosines = [float(texts[row] @ texts[r]) for r in recent]
        together = [float(behaviours[row] @ behaviours[r]) for r in recent]
        same = [
            np.mean([row >= 0 and code[row] >= 0 and code[row] == code[r] for r in recent]) for code in tables.codes_3I
        ]
        prices = [tables.price_I2[r, 0] for r in recent if tables.price_I2[r, 1]]
        away = abs(tables.price_I2[row, 0] - np.mean(prices)) if prices and tables.price_I2[row, 1] else 0.0
        expected = [
            np.mean(cosines), max(cosines), np.mean(together), max(together), *same, away,
        ]  # fmt: skip
        np.testing.assert_allclose(near[:, k], expected, atol=1e-12)


def test_phi_is_put_together_as_it_says() -> None:
    joint, tables = MADE.joint, MADE.tables
    assert joint is not None
    assert tables is not None
    context = {"recent": ["i2", "i8"], "device": "mobile", "hour": 20}
    features = MADE.features(context, ["i4", "i2"], "u7")
    named = {name: features.phi_KD[:, i] for i, name in enumerate(MADE.names)}
    f = fold("u7")
    items = np.concatenate([tables.static_IS[[4, 2]], tables.behaviour.facts_FIC[f, [4, 2]]], axis=1)
    np.testing.assert_array_equal(features.phi_KD[:, 1 : 1 + items.shape[1]], items)
    axes = (items - joint.item_mean_V) @ joint.item_VQ
    small_context = (features.context_X - joint.context_mean_X) @ joint.context_XP
    for p, q in ((0, 0), (1, 3), (4, 2)):
        np.testing.assert_allclose(named[f"context[{p}]"], small_context[p], atol=1e-12)
        np.testing.assert_allclose(named[f"context[{p}]×item[{q}]"], axes[:, q] * small_context[p], atol=1e-12)
    recent = np.concatenate([tables.static_IS[[2, 8]], tables.behaviour.facts_FIC[f, [2, 8]]], axis=1)
    taste = np.append(((recent - joint.item_mean_V) @ joint.item_VQ).mean(axis=0), np.log(3))
    expected = (taste - MADE.taste_mean_T) * MADE.taste_scale_T
    np.testing.assert_allclose(features.context_X[-len(taste) :], expected, atol=1e-12)


def user_of(f: int, start: int = 0) -> str:
    return next(f"u{n}" for n in range(start, 10_000) if fold(f"u{n}") == f)


def test_counts_and_mean_rewards_by_hand() -> None:
    """Three users of folds 0, 1, 2 and one row of nobody; a user reads what the others did."""
    one, two, three = user_of(0), user_of(1), user_of(2)
    rows = [
        (one, "a", 1.0, ["b"]), (one, "a", 0.0, ["b"]), (two, "a", 1.0, []), (two, "b", 0.0, ["c"]),
        (three, "b", 1.0, []), (three, "c", 0.0, []), (None, "c", 1.0, []), (None, "c", 0.0, ["a"]),
    ]  # fmt: skip
    events = events_of(
        [{"recent": r[3]} for r in rows], [r[1] for r in rows], [r[2] for r in rows], [None] * 8, [r[0] for r in rows]
    )
    made = fit_behaviour(events, ["a", "b", "c"], 2, 0)
    # Taken by whom (recent, or rewarded above the mean of 1/2): a: one, two, nobody; b: one, three; c: two, nobody.
    counts = {0: [2, 1, 2], 1: [2, 2, 1], 2: [3, 1, 2], 3: [3, 2, 2], FOLDS: [2, 2, 1]}
    whole = np.log1p(counts[FOLDS])
    popularity = made.facts_FIC[:, :3, made.names.index("popularity")]
    for f, count in counts.items():
        expected = (np.log1p(count) - np.log1p(count).mean()) / whole.std()
        np.testing.assert_allclose(popularity[f], expected, atol=1e-12)
    assert not made.facts_FIC[:, 3].any()


def test_mean_rewards_are_shrunk_between_raw_and_overall() -> None:
    """Many rows: the order of the raw means, and within rounding of them up to the standardising."""
    rng = np.random.default_rng(0)
    items, rate = ["a", "b", "c", "d"], dict(zip("abcd", (0.1, 0.2, 0.4, 0.8), strict=True))
    actions = [str(rng.choice(items)) for _ in range(4_000)]
    users = [f"u{rng.integers(200)}" for _ in actions]
    rewards = [float(rng.random() < rate[a]) for a in actions]
    made = fit_behaviour(events_of([{}] * 4_000, actions, rewards, [None] * 4_000, users), items, 2, 0)
    sums, counts = Counter[str](), Counter(actions)
    for action, reward in zip(actions, rewards, strict=True):
        sums[action] += reward
    raw = np.array([sums[i] / counts[i] for i in items])
    found = made.facts_FIC[FOLDS, :4, made.names.index("mean reward")]
    np.testing.assert_allclose(found, (raw - raw.mean()) / raw.std(), atol=0.01)


def test_what_a_user_reads_does_not_turn_on_what_that_user_did() -> None:
    """Leave a fold's users out: their own table is the same up to one factor, and its similarities exactly."""
    ids = DATA.items["item_id"].to_pylist()
    made = fit_behaviour(DATA.events, ids, 4, 0)
    for f in range(FOLDS):
        others = np.flatnonzero(folds(DATA.events["user_id"]) != f)
        without = fit_behaviour(DATA.events.take(others), ids, 4, 0)
        for name in ("popularity", "mean reward"):
            ours, theirs = (m.facts_FIC[f, :, m.names.index(name)] for m in (made, without))
            np.testing.assert_allclose(ours * np.sqrt(theirs @ theirs), theirs * np.sqrt(ours @ ours), atol=1e-9)
        ours, theirs = (m.similar_FIR[f] @ m.similar_FIR[f].T for m in (made, without))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_without_users_there_is_nothing_to_read() -> None:
    rows = 50
    events = events_of([{"recent": ["a"]}] * rows, ["a", "b"] * 25, [1.0, 0.0] * 25, [None] * rows)
    made = fit_behaviour(events, ["a", "b"], 2, 0)
    assert made.names == ()
    assert made.facts_FIC.shape == (FOLDS + 1, 3, 0)


def test_recent_items_keep_the_last_ten_known_ones() -> None:
    index = {f"i{n}": n for n in range(20)}
    contexts = [{"recent": ["x", *(f"i{n}" for n in range(12))]}, {"recent": "i1"}, {}, {"recent": ["i5", 3, None]}]
    events = events_of(contexts, ["i0"] * 4, [0.0] * 4, [None] * 4)
    found = recent_padded(events, index)
    assert found[0].tolist() == list(range(2, 12))
    assert found[1:, 0].tolist() == [-1, -1, 5]


def test_folds_and_keys_are_stable() -> None:
    """Literal values: a change would turn every published version's randomness and folds."""
    assert (
        key("") == 0x9D9BDF19B2ABAEE4
        if False
        else key("") == int.from_bytes(bytes.fromhex("e4a6a0577479b2b4"), "little")
    )
    assert item_keys(["i1", "é"]).tolist() == [key("i1"), key("é")]
    assert fold(None) == fold("") == FOLDS
    assert {fold(f"u{n}") for n in range(50)} == set(range(FOLDS))
    counts = np.bincount([fold(f"u{n}") for n in range(4_000)])
    assert (np.abs(counts - 1_000) < 4 * np.sqrt(4_000 * 0.25 * 0.75)).all()


def test_taking_items_keeps_the_order() -> None:
    features = MADE.features({"hour": 3}, ["i1", "i2", "i3"], None)
    taken = features.take(np.array([2, 0]))
    np.testing.assert_array_equal(taken.phi_KD, features.phi_KD[[2, 0]])
    assert taken.item_K.tolist() == [3, 1]
    assert len(replace(features, phi_KD=features.phi_KD)) == 3
