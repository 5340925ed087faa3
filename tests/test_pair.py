"""Two items by what they have in common and how they differ: by hand, and what one's rewards say of the other."""

import numpy as np
import pytest

from actors.bandits import pooled
from actors.features import pair
from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from cluster.config import FeatureSettings
from cluster.records import ITEMS, USERS, Dataset
from tests.features_samples import events_of, table


def log(rows: int, common: bool, seed: int = 0) -> tuple[Dataset, Floats]:
    """Two items, uniform actions and three numbers. `common`: both earn by the first; else one of them is right."""
    rng = np.random.default_rng(seed)
    x_N3, done_N = rng.normal(size=(rows, 3)), rng.integers(0, 2, rows)
    mean_N2 = np.tile(0.5 + 0.2 * x_N3[:, :1].clip(-2, 2), 2)
    if not common:
        mean_N2[:, 1] = 1 - mean_N2[:, 0]
    reward_N = mean_N2[np.arange(rows), done_N] + 0.3 * rng.normal(size=rows)
    contexts = [{f"x{j}": float(v) for j, v in enumerate(x)} for x in x_N3]
    events = events_of(contexts, ["ab"[a] for a in done_N], reward_N.tolist(), [["a", "b"]] * rows)
    return Dataset("table", events, table(ITEMS, 2, item_id=["a", "b"]), table(USERS, 0)), mean_N2


def test_rows_by_hand() -> None:
    found = pair.paired(np.array([[1.0, 2.0, 3.0]]), np.array([[0, 1, -1]]), 2)
    assert found[0].tolist() == [[1, 2, 1, 2, 3], [1, 2, -1, -2, -3], [1, 2, 0, 0, 0]]
    assert pair.groups(2, 1).tolist() == [0, 0, 1, 1, 2]
    assert pair.names(["1", "x"], ["wave"], ["yes", "no"]) == (
        "1", "x", "1 (yes, not no)", "x (yes, not no)", "wave (yes, not no)",
    )  # fmt: skip


def test_two_items_have_one_row_of_parameters() -> None:
    """A decision and a batch agree to the bit, whatever the order of the items; an unknown item has the common part."""
    data, _ = log(200, common=False)
    made = FeatureMap.fit(data, np.arange(150), FeatureSettings(kind="arms", map="kernel", map_width=10), 0)
    assert (made.kind, made.arms, made.base, made.dimension) == ("pair", 1, 8, 18)
    context = {"x0": 0.3, "x1": -1.0, "x2": 2.0}
    batch = made.batch(events_of([context], ["a"], [0.0], [["b", "new", "a"]]))
    one = made.features(context, ["b", "new", "a"], None)
    np.testing.assert_array_equal(batch.row(0).phi_KD, one.phi_KD)
    assert one.arm_K.tolist() == [0, 0, 0]
    assert one.item_K.tolist() == [1, -1, 0]
    np.testing.assert_array_equal(one.phi_KD[0, 4:], -one.phi_KD[2, 4:])
    np.testing.assert_array_equal(one.phi_KD[:, :4], np.tile(one.phi_KD[0, :4], (3, 1)))
    assert not one.phi_KD[1, 4:].any()
    again = FeatureMap.load(made.arrays(), made.facts())
    np.testing.assert_array_equal(again.features(context, ["a"], None).phi_KD[0], one.phi_KD[2])


@pytest.mark.parametrize("common", [True, False])
def test_what_one_item_earns_tells_of_the_other(common: bool) -> None:
    """The evidence finds on 100 rows whether items are alike or opposite. 400 more of the first item alone then say
    of the second what its own 50 rows did not: the error of its predictions falls below 0.7 of those 50 rows' own."""
    data, mean_N2 = log(1_000, common)
    made = FeatureMap.fit(data, np.arange(100), FeatureSettings(kind="arms", map="linear"), 0)
    acted = actions(made, data.events)
    reward_N = data.events["reward"].to_numpy()
    done_N = np.array([made.item_ids.index(item) for item in data.events["item_id"].to_pylist()])
    fitted = pooled.fit(acted.phi_ND[:100], acted.arm_N[:100], reward_N[:100], 1, made.groups)
    more = np.append(np.arange(100), 100 + np.flatnonzero(done_N[100:900] == 0)[:400])
    told = fitted.again(acted.phi_ND[more], acted.arm_N[more], reward_N[more])
    theta_D = np.linalg.solve(told.precision_ADD[0], told.shift_AD[0])
    second = np.flatnonzero(done_N[:100] == 1)
    x_NC = made.batch(data.events).phi_BKD[:, 0, : made.base // 2]
    own_C = np.linalg.solve(x_NC[second].T @ x_NC[second] + 0.1 * np.eye(4), x_NC[second].T @ reward_N[second])
    of_second_ND = made.batch(data.events).phi_BKD[900:, 1]
    error = np.sqrt(np.mean((of_second_ND @ theta_D - mean_N2[900:, 1]) ** 2))
    assert error < 0.7 * np.sqrt(np.mean((x_NC[900:] @ own_C - mean_N2[900:, 1]) ** 2))
