"""The maps of `features.map`: what every one keeps, and each by brute force, by hand or by a theorem."""

import logging
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file

from actors.features.actions import actions
from actors.features.dense import times
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from actors.features.fourier import bandwidth, fit_fourier
from actors.features.neural_fitting import fit_neural
from actors.features.quadratic import fit_quadratic
from cluster.config import FeatureSettings
from cluster.records import ITEMS, USERS, Dataset, decode
from tests.features_samples import events_of, labelled, shop, table
from tests.test_features import contexts

MAPS = ("linear", "quadratic", "fourier", "kernel", "neural", "hashed")
WIDER = tuple(name for name in MAPS if name != "linear")
SHOP, TABLE = shop(), labelled()


def fitted(name: Any, kind: Any, data: Dataset, rows: Any = 500, **more: Any) -> FeatureMap:
    rows = np.arange(rows) if isinstance(rows, int) else rows
    return FeatureMap.fit(data, rows, FeatureSettings(map=name, kind=kind, **more), 0)


def sample(name: str, kind: str) -> Dataset:
    """The table has no levels left to hash."""
    return SHOP if kind == "joint" or name == "hashed" else TABLE


PAIRS = [(name, kind) for name in MAPS for kind in ("joint", "arms")]
MADE = {pair: fitted(*pair, sample(*pair)) for pair in PAIRS}
CASES = [pytest.param(MADE[pair], sample(*pair), id="-".join(pair)) for pair in PAIRS]


@pytest.mark.parametrize(("made", "data"), CASES)
def test_names_are_as_many_as_features_and_no_two_the_same(made: FeatureMap, data: Dataset) -> None:
    assert len(set(made.names)) == len(made.names) == made.dimension
    assert made.names[0] == "1"
    assert made.batch(data.events.slice(0, 3)).phi_BKD.shape[2] == made.dimension


@pytest.mark.parametrize(("made", "data"), CASES)
def test_a_decision_and_a_batch_agree(made: FeatureMap, data: Dataset) -> None:
    """With arms to the last bit: what a decision's row is must not turn on its neighbours."""
    events = data.events.slice(440, 130)
    batch = made.batch(events)
    for b, event in enumerate(events.to_pylist()):
        ids = event["candidates"] if event["candidates"] is not None else made.item_ids
        ours, row = made.features(decode(event["context"]), ids, event["user_id"]), batch.row(b)
        np.testing.assert_allclose(ours.phi_KD, row.phi_KD, rtol=0, atol=1e-12 if made.joint else 0.0)
        np.testing.assert_array_equal(ours.arm_K, row.arm_K)
    assert np.isfinite(batch.phi_BKD).all()
    if made.joint:
        assert not batch.phi_BKD[~batch.mask_BK].any()


@pytest.mark.parametrize(("made", "data"), CASES)
def test_decisions_over_the_same_items_have_the_bits_that_each_has_alone(made: FeatureMap, data: Dataset) -> None:
    """By whatever users, with whatever is recent, and an unknown item among the items."""
    events = data.events.slice(440, 40).to_pylist()
    situations = [(decode(event["context"]), event["user_id"]) for event in events] + [({}, None)]
    for ids, rows_K in (([*made.item_ids[:5], "new"], None), (made.item_ids, np.arange(len(made.item_ids)))):
        found = [made.features_many(situations[start : start + 8], ids, rows_K) for start in range(0, 41, 8)]
        for (context, user), one in zip(situations, [one for part in found for one in part], strict=True):
            alone = made.features(context, ids, user, rows_K)
            for name in ("phi_KD", "context_X", "arm_K", "item_K", "key_K"):
                np.testing.assert_array_equal(getattr(one, name), getattr(alone, name), err_msg=name)


@given(context=contexts, user=st.sampled_from(["u1", "nobody", "", None]), item=st.text(max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_context_raises(context: dict[str, Any], user: str | None, item: str) -> None:
    for made in MADE.values():
        features = made.features(context, [made.item_ids[0], item], user)
        assert features.phi_KD.shape == (2, made.dimension)
        assert np.isfinite(features.phi_KD).all()


@pytest.mark.parametrize(("made", "data"), CASES)
def test_a_saved_map_is_the_same_map(made: FeatureMap, data: Dataset, tmp_path: Path) -> None:
    save_file(made.arrays(), tmp_path / "arrays.safetensors")
    loaded = FeatureMap.load(load_file(tmp_path / "arrays.safetensors"), made.facts())
    assert (loaded.fingerprint, loaded.names) == (made.fingerprint, made.names)
    assert type(loaded.lift) is type(made.lift)
    events = data.events.slice(0, 60)
    np.testing.assert_array_equal(made.batch(events).phi_BKD, loaded.batch(events).phi_BKD)


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("kind", ["joint", "arms"])
def test_only_the_fit_rows_are_seen(name: str, kind: str) -> None:
    """Planted leak: other contents in all the other rows change no bit; the same rows again give the same bits."""
    data, rows = shop(400), np.arange(100, 300)
    planted = events_of([{"device": "planted", "spent": 1e9}] * 400, ["i0"] * 400, [1.0] * 400, [["i0"]] * 400)
    events = pa.concat_tables([planted.slice(0, 100), data.events.slice(100, 200), planted.slice(300, 100)])
    one = fitted(name, kind, data, rows)
    other = fitted(name, kind, Dataset(data.format, events, data.items, data.users), rows)
    assert other.fingerprint == one.fingerprint
    for key, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[key], err_msg=key)


@pytest.mark.parametrize("name", WIDER)
@pytest.mark.parametrize("kind", ["joint", "arms"])
def test_the_posterior_stays_within_its_budget(name: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """8·A·D² bytes; one more feature would be too many. Without room there is no lift, and the log says so."""
    data, arms = sample(name, kind), MADE[name, kind].arms
    with caplog.at_level(logging.WARNING):
        none = fitted(name, kind, data, 150, map_bytes=1)
    assert (none.lift, none.hashed, none.dimension) == (None, None, none.base)
    assert "features.map_bytes" in caplog.text
    for more in (1, 5):
        budget = 8 * arms * (none.base + more) ** 2
        assert fitted(name, kind, data, 150, map_bytes=budget).dimension == none.base + more
    assert fitted(name, kind, data, 150, map_bytes=budget - 1).dimension == none.base + 4


def test_linear_has_neither_curves_nor_crosses() -> None:
    arms, joint = MADE["linear", "arms"], MADE["linear", "joint"]
    assert set(arms.names) == {"1", "x", "noise", "shape=flat", "shape=round", "shape=square"}
    assert not [name for name in joint.names if "×" in name]
    assert [name for name in joint.names if name.startswith("context[")]


def test_products_by_brute_force() -> None:
    """All pairs, squares of numbers among them, none of a level with itself, none that is constant."""
    made = MADE["quadratic", "arms"]
    numbers, shapes = ("noise", "x"), ("shape=flat", "shape=round", "shape=square")
    expected = {"noise²", "x²", "noise×x", *(f"{number}×{shape}" for number in numbers for shape in shapes)}
    assert set(made.names[made.base :]) == expected
    phi_ND = actions(made, TABLE.events.slice(0, 500)).phi_ND
    place = {name: d for d, name in enumerate(made.names)}
    for name in made.names[made.base :]:
        left, right = (name[:-1], name[:-1]) if name.endswith("²") else name.split("×")
        product_N = phi_ND[:, place[left]] * phi_ND[:, place[right]]
        expected_N = (product_N - product_N.mean()) / max(product_N.std(), 1.0)
        np.testing.assert_allclose(phi_ND[:, place[name]], expected_N, rtol=0, atol=1e-12)


def test_of_many_products_those_that_explain_the_reward_are_kept() -> None:
    rng = np.random.default_rng(0)
    base_ND = np.column_stack([np.ones(2_000), rng.normal(size=(2_000, 20))])
    arm_N = rng.integers(0, 3, 2_000)
    reward_N = np.where(arm_N == 1, base_ND[:, 3] * base_ND[:, 7], base_ND[:, 5] ** 2) + rng.normal(size=2_000)
    lift = fit_quadratic(base_ND, arm_N, reward_N, 2)
    assert sorted(zip(lift.left_Q.tolist(), lift.right_Q.tolist(), strict=True)) == [(3, 7), (5, 5)]


def test_waves_are_the_gaussian_kernel() -> None:
    """Rahimi & Recht, Claim 1: the mean of W cosines is within 4 standard errors of exp(−d²/2σ²) in each of 45
    pairs (error rate below 45·6e-5; orthogonal directions only lower it). Together they weigh R."""
    rng = np.random.default_rng(1)
    base_ND = np.column_stack([np.ones(400), rng.normal(size=(400, 6))])
    width = 4_000
    lift = fit_fourier(base_ND, np.arange(1, 7), width, 3)
    sigma = bandwidth(base_ND[:, 1:], np.random.default_rng(9))
    few = base_ND[:10]
    distance = np.linalg.norm(few[:, None] - few[None], axis=2)
    found = lift.rows(few) @ lift.rows(few).T / 6
    lengths = np.linalg.norm(lift.weights_RW, axis=0) * sigma
    assert np.mean(lengths**2) == pytest.approx(6, rel=0.1)
    np.testing.assert_allclose(found, np.exp(-(distance**2) / (2 * sigma**2)), atol=4 / np.sqrt(width) + 0.02)


def test_the_bandwidth_is_half_the_median_distance() -> None:
    """Two kinds of rows, 5 apart; pairs of the same kind count for nothing."""
    rows = np.repeat([[0.0, 0.0], [3.0, 4.0]], 50, axis=0)
    assert bandwidth(rows, np.random.default_rng(0)) == 2.5
    assert bandwidth(np.zeros((9, 2)), np.random.default_rng(0)) == 1.0


@given(st.integers(0, 40), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_row_has_the_same_bits_alone(n: int, d: int, w: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows_ND, weights_DW = rng.normal(size=(n, d)), rng.normal(size=(d, w))
    found = times(rows_ND, weights_DW)
    np.testing.assert_allclose(found, rows_ND @ weights_DW, rtol=1e-12, atol=1e-12)
    for i in range(n):
        np.testing.assert_array_equal(times(rows_ND[i : i + 1], weights_DW)[0], found[i])


def test_hidden_units_by_torch() -> None:
    """The NumPy forward is the layers of torch, centred and scaled on the rows that it was fitted on."""
    rng = np.random.default_rng(2)
    base_ND = np.column_stack([np.ones(300), rng.normal(size=(300, 4))])
    reward_N = base_ND[:, 1] * base_ND[:, 3]
    lift = fit_neural(base_ND, np.array([1, 3]), np.zeros(300, np.int64), reward_N, 2, 7, 0)
    first, last = torch.nn.Linear(2, len(lift.first_H)).double(), torch.nn.Linear(len(lift.first_H), 7).double()
    pairs = ((first, lift.first_RH, lift.first_H), (last, lift.last_HW, lift.last_W))
    with torch.no_grad():
        for layer, weights, offsets in pairs:
            layer.weight.copy_(torch.tensor(weights.T))
            layer.bias.copy_(torch.tensor(offsets))
        units_NW = torch.tanh(last(torch.tanh(first(torch.tensor(base_ND[:, [1, 3]]))))).numpy()
    expected_NW = (units_NW - units_NW.mean(axis=0)) / units_NW.std(axis=0)
    np.testing.assert_allclose(lift.rows(base_ND), expected_NW, rtol=0, atol=1e-9)


def test_the_network_takes_its_seed_alone() -> None:
    """Same bits whatever the state and the threads of torch, which stay as they are; other bits for another seed."""
    rng = np.random.default_rng(4)
    base_ND = np.column_stack([np.ones(400), rng.normal(size=(400, 6))])
    rest = (np.arange(1, 7), rng.integers(0, 2, 400), rng.normal(size=400), 2, 5)
    threads = torch.get_num_threads()
    one = fit_neural(base_ND, *rest, 0)
    torch.set_num_threads(2)
    torch.manual_seed(99)
    again = fit_neural(base_ND, *rest, 0)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(one.last_HW, again.last_HW)
    assert (fit_neural(base_ND, *rest, 1).last_HW != one.last_HW).all()


def test_rows_without_a_reward_teach_nothing() -> None:
    rng = np.random.default_rng(5)
    base_ND = np.column_stack([np.ones(60), rng.normal(size=(60, 3))])
    arm_N, reward_N = rng.integers(0, 2, 60), rng.normal(size=60)
    arm_N[50:55], reward_N[55:] = -1, np.nan
    one = fit_neural(base_ND, np.arange(1, 4), arm_N, reward_N, 3, 4, 0)
    other = fit_neural(base_ND[:50], np.arange(1, 4), arm_N[:50], reward_N[:50], 3, 4, 0)
    np.testing.assert_array_equal(one.last_HW, other.last_HW)
    none = fit_neural(base_ND, np.arange(1, 4), arm_N, np.full(60, np.nan), 3, 4, 0)
    assert np.isfinite(none.rows(base_ND)).all()


def planted(kind: str, rows: int = 2_400, seed: int = 3) -> tuple[Dataset, Floats]:
    """Two arms, uniform actions, five numbers; which is right turns on two of them: `xor` or inside a `ring`."""
    rng = np.random.default_rng(seed)
    x_N5 = rng.normal(size=(rows, 5))
    ring_N = (np.abs(np.hypot(x_N5[:, 0], x_N5[:, 1]) - 1.2) < 0.45).astype(int)
    right_N = (x_N5[:, 0] * x_N5[:, 1] > 0).astype(int) if kind == "xor" else ring_N
    done_N = rng.integers(0, 2, rows)
    contexts = [{f"x{j}": float(v) for j, v in enumerate(x)} for x in x_N5]
    events = events_of(contexts, ["ab"[a] for a in done_N], (done_N == right_N).astype(float), [["a", "b"]] * rows)
    return Dataset("table", events, table(ITEMS, 2, item_id=["a", "b"]), table(USERS, 0)), right_N


def right_share(made: FeatureMap, data: Dataset, right_N: Floats, fit: int) -> float:
    """How often ridge regression on the logged actions of the first rows picks the right arm on the rest."""
    phi_ND = made.batch(data.events).phi_BKD[:, 0]
    done_N = np.array([made.item_ids.index(item) for item in data.events["item_id"].to_pylist()])
    reward_N = data.events["reward"].to_numpy()
    scores = []
    for arm in (0, 1):
        rows = np.flatnonzero(done_N[:fit] == arm)
        gram_DD = phi_ND[rows].T @ phi_ND[rows] + 3.0 * np.eye(made.dimension)
        scores.append(phi_ND[fit:] @ np.linalg.solve(gram_DD, phi_ND[rows].T @ reward_N[rows]))
    return float((np.argmax(scores, axis=0) == right_N[fit:]).mean())


@pytest.mark.parametrize(
    ("world", "name", "least", "most"),
    [
        ("xor", "linear", 0.4, 0.6),
        ("xor", "quadratic", 0.88, 1.0),
        ("ring", "linear", 0.3, 0.65),
        ("ring", "fourier", 0.75, 1.0),
        ("ring", "kernel", 0.75, 1.0),
        ("ring", "neural", 0.75, 1.0),
    ],
)
def test_each_map_learns_what_it_is_for(world: str, name: str, least: float, most: float) -> None:
    """Linear features cannot tell XOR from chance (a share of 600 rows has an error of 0.02); the others can."""
    data, right_N = planted(world)
    made = fitted(name, "arms", data, 1_800)
    assert least <= right_share(made, data, right_N, 1_800) <= most
