"""The games of benchmarks.regret, their floor, and both players, at sizes where the right answer is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import _floors, _games, _linear_ts, _ours
from benchmarks._games import Game
from cluster import config
from cluster.config import Settings

CONFIGURATION = Path(_ours.__file__).with_name("regret.yaml")


@pytest.fixture(scope="module")
def simple(tmp_path_factory: pytest.TempPathFactory) -> Game:
    """Three classes, told by a column of words; a number that tells nothing."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 3, 400)
    words = np.array(["red", "green blue", "a:b|c"])[label_N]
    folder = tmp_path_factory.mktemp("tables")
    table = pa.table({"word": words, "x": rng.normal(size=400), "label": label_N.astype(str)})
    pq.write_table(table, folder / "simple.parquet")
    return _games.game("simple", _games.read("simple", folder), 300, 1)


def test_a_game_knows_the_right_arm_and_its_log_does_not_tell(simple: Game) -> None:
    word = {"red": "0", "green blue": "1", "a:b|c": "2"}
    events = simple.dataset.events
    for pairs, right in zip(events["context"].to_pylist(), simple.right_N.tolist(), strict=True):
        assert word[dict(pairs)["word"].strip('"')] == simple.arms[right]
    played = simple.played(np.array([2, 0]), np.array([1.0, 0.0])).events
    assert played["item_id"].to_pylist() == ["2", "0"]
    assert played["reward"].to_pylist() == [1.0, 0.0]
    assert simple.share(200) == pytest.approx(100.0)  # two thirds of 300


def test_ends_double() -> None:
    assert list(_games.ends(100, 8, 2.0)) == [8, 16, 32, 64]
    assert list(_games.ends(64, 10, 1.5)) == [10, 15, 23, 35, 53]


def test_one_factorisation_gives_the_errors_of_a_ridge_refitted_before_every_row() -> None:
    rng = np.random.default_rng(1)
    x_NF, right_N = rng.normal(size=(60, 3)), rng.integers(0, 3, 60)
    right_N[x_NF[:, 0] > 0] = 1
    features_NF, errors = np.concatenate([np.ones((60, 1)), x_NF], axis=1), 0
    target_NK = (right_N[:, None] == np.arange(3)) - 1 / 3
    for t in range(60):
        past_TF = features_NF[:t]
        theta_FK = np.linalg.solve(past_TF.T @ past_TF + 0.7 * np.eye(4), past_TF.T @ target_NK[:t])
        errors += int((features_NF[t] @ theta_FK).argmax() != right_N[t])
    found = _floors.errors(_floors.gram(x_NF, ("linear", 0.0, 0.7)), right_N, 3, 0.7)
    assert found == errors
    assert 10 < errors < 50


def test_plain_lin_ts_learns_what_is_linear(simple: Game) -> None:
    """Chance makes 200 errors of 300, with a standard deviation of 8."""
    assert _linear_ts.lin_ts(simple, 0) < 60


def settings() -> Settings:
    found = config.load(CONFIGURATION)
    narrow = found.features.model_copy(update={"map_width": 20})
    return found.model_copy(update={"features": narrow})


def test_ours_learns_from_nothing_and_repeats_itself(simple: Game) -> None:
    stops = list(_games.ends(len(simple), _ours.FIRST, _ours.GROWTH))
    first, again = (_ours.Player(simple, settings(), 3) for _ in range(2))
    assert first.play(stops) == again.play(stops) < 60
    assert first.arms_T == again.arms_T
    right = (np.array(first.arms_T) == simple.right_N).astype(float)
    np.testing.assert_array_equal(first.rewards_T, right)


@pytest.mark.parametrize("features", ["raw", "products", "ours"])
def test_vowpal_reads_every_column_and_learns(simple: Game, features: str) -> None:
    vowpal = pytest.importorskip("benchmarks._vowpal", reason="python -m pip install -r requirements-bench.txt")
    texts = vowpal.every_text(simple, settings().features, 2.0, 0)
    line = texts["raw"].lines[0][int(np.flatnonzero(simple.right_N == 2)[0])]
    assert line.startswith("shared |c ")
    assert "word=a_b_c" in line.split(" ")
    setting = vowpal.Setting("softmax", 0.5, features)
    assert vowpal.play(simple, texts[features], setting, 0) < 60


def test_the_share_of_the_gap_by_hand() -> None:
    regret = pytest.importorskip("benchmarks.regret", reason="python -m pip install -r requirements-bench.txt")
    assert regret.gap(ours=4.0, peer=10.0, floor=2.0) == 0.75
    assert regret.gap(ours=1.0, peer=10.0, floor=2.0) == 1.0
    assert regret.gap(ours=30.0, peer=10.0, floor=2.0) == -1.0
    assert regret.gap(ours=33.0, peer=33.5, floor=34.0) == 1.0
    assert regret.gap(ours=33.6, peer=33.5, floor=34.0) == -1.0
    low, high = regret.around([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))  # t of 2 degrees, s = 1


def test_the_figures_by_hand() -> None:
    regret = pytest.importorskip("benchmarks.regret", reason="python -m pip install -r requirements-bench.txt")
    setting = regret.Setting("bag", 0.5, "raw")
    best, own = (regret.Peer(setting, [error] * 2, 1.0) for error in (10.0, 12.0))
    near = regret.Figures("near", [3.0, 5.0], 2.0, best, own, [8.0, 8.0], [2.0, 2.0])
    best, own = (regret.Peer(setting, [error] * 2, 1.0) for error in (30.0, 46.0))
    far = regret.Figures("far", [33.0, 33.0], 2.0, best, own, [40.0, 40.0], [20.0, 20.0])
    found = {row["name"]: row for row in regret.measures([near, far], [(1.0, 2.0), (3.0, 4.0)])}
    assert found["gap_closed"]["ours"] == pytest.approx((6 / 8 - 3 / 10) / 2)
    assert found["gap_closed_own"]["ours"] == pytest.approx((8 / 10 + 13 / 26) / 2)
    low, high = found["gap_closed"]["interval"]  # by seed (7/8 − 3/10)/2 and (5/8 − 3/10)/2
    assert (high - low) / 2 == pytest.approx(12.7062 * 0.125 / 2, rel=1e-4)  # t of 1 degree; half their difference/√1
    assert (found["worst_table"]["table"], found["worst_table"]["ratio"]) == ("far", pytest.approx(1.1))
    assert found["errors_near"]["ratio"] == pytest.approx(0.4)
    assert found["errors_near"]["own"] == 12.0
    assert found["lin_ts"]["ratio"] == pytest.approx((4 + 33) / (8 + 40))
    assert found["joint_draws"]["ratio"] == pytest.approx(2 / 3)
