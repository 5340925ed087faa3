import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.config import SweepSettings
from cluster.errors import JobError
from cluster.session import Session
from tests import bandit_cases
from tests.test_evaluate import ground, mixture
from tune import candidate_sweep, evaluate
from tune.progressive import Draws

SETTINGS = SweepSettings(batch=3, particles=4)


def test_rows_do_not_depend_on_the_batches() -> None:
    rng = np.random.default_rng(0)
    found, prior = ground(rng, list(rng.integers(0, 9, 70))), mixture(rng, 8)
    done: list[tuple[int, int]] = []
    swept = candidate_sweep.sweep(prior, found, SETTINGS, seed=5, progress=lambda *step: done.append(step))
    assert done == [(1, 3), (2, 3), (3, 3)]
    whole = evaluate.assess(prior, found, evaluate.domains(prior, found), Draws(4, 1.0, 5))
    assert [row.candidate for row in swept.rows] == sorted(prior.names_C)
    for row, expected in zip(swept.rows, sorted(whole, key=lambda r: r.candidate), strict=True):
        assert (row.candidate, row.users, row.baseline) == (expected.candidate, expected.users, expected.baseline)
        assert (row.value, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high))
    shuffled = replace(
        prior,
        names_C=prior.names_C[::-1],
        means_CAD=prior.means_CAD[::-1],
        ranks_CADR=prior.ranks_CADR[::-1],
        prototypes_CH=prior.prototypes_CH[::-1],
    )
    again = candidate_sweep.sweep(shuffled, found, SETTINGS.model_copy(update={"batch": 8}), seed=5)
    assert [row.candidate for row in again.rows] == [row.candidate for row in swept.rows]
    for one, two in zip(again.rows, swept.rows, strict=True):
        assert (one.value, one.low) == pytest.approx((two.value, two.low))


def test_time_that_runs_out_is_told() -> None:
    rng = np.random.default_rng(1)
    found, prior = ground(rng, [0, 1, 2, 0]), mixture(rng, 8)
    left = iter([1.0, 0.0])
    swept = candidate_sweep.sweep(prior, found, SETTINGS, left_s=lambda: next(left))
    assert [row.candidate for row in swept.rows] == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert swept.left_out == ("c6", "c7")
    assert swept.note == "2 of 8 candidates left out"
    assert len(candidate_sweep.sweep(prior, found, SETTINGS, left_s=lambda: 0.0).rows) == 3


def test_a_ground_too_large_loses_whole_users() -> None:
    rng = np.random.default_rng(2)
    found, prior = ground(rng, [0, 0, 1, 1, 2, 2, 2, 3], items=4), mixture(rng, 2)
    five_events = SETTINGS.model_copy(update={"ground_bytes": 8 * 4 * 4 * 5})
    swept = candidate_sweep.sweep(prior, found, five_events)
    assert swept.events_left_out == 4
    assert swept.note == "4 events left out of the sweep"
    small = found.within(8 * 4 * 4 * 5)
    np.testing.assert_array_equal(small.log.user_N, [0, 0, 1, 1])
    np.testing.assert_array_equal(small.batch.phi_BKD, found.batch.phi_BKD[:4])
    assert found.within(10**9) is found


def test_repeated_features_travel_once() -> None:
    rng = np.random.default_rng(3)
    found = ground(rng, [0] * 50, items=30, arms=30)
    row_BD = found.batch.phi_BKD[:, 0]
    repeated = replace(found.batch, phi_BKD=np.broadcast_to(row_BD[:, None], (50, 30, 4)))
    light = replace(found, batch=repeated)
    assert len(pickle.dumps(light)) < len(pickle.dumps(found)) - 8 * 50 * 29 * 4 + 1_000
    back = pickle.loads(pickle.dumps(light))
    np.testing.assert_array_equal(back.batch.phi_BKD, repeated.phi_BKD)
    assert back.batch.phi_BKD.strides[1] == 0
    part = light.take(np.array([3, 7]))
    assert part.batch.phi_BKD.strides[1] == 0
    np.testing.assert_array_equal(part.batch.phi_BKD, repeated.phi_BKD[[3, 7]])
    assert light.within(8 * 4 * 50) is light
    prior = mixture(rng, 2, arms=30)
    np.testing.assert_allclose(evaluate.values(prior, light, Draws()), evaluate.values(prior, back, Draws()))


def test_the_table_is_parquet_and_empty_is_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    found, prior = ground(rng, [0, 1, 2]), mixture(rng, 2)
    swept = candidate_sweep.sweep(prior, found, SETTINGS)
    swept.save(tmp_path / "sweep.parquet")
    table = pq.read_table(tmp_path / "sweep.parquet")
    assert table["candidate"].to_pylist() == ["c0", "c1"]
    assert table["difference"].to_pylist() == [row.difference for row in swept.rows]
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep.parquet"]
    none = bandit_cases.mixture(rng, 0, 1, 4)
    assert candidate_sweep.sweep(none, found, SETTINGS).rows == ()


@pytest.mark.ray
def test_ray_tune_gives_the_same_rows(ray_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(5)
    found, prior = ground(rng, list(rng.integers(0, 9, 70))), mixture(rng, 7)
    done: list[tuple[int, int]] = []
    swept = candidate_sweep.sweep(
        prior, found, SETTINGS, folder=tmp_path / "a", progress=lambda *step: done.append(step)
    )
    here = candidate_sweep.sweep(prior, found, SETTINGS)
    assert done[-1] == (3, 3)
    assert swept.left_out == ()
    for one, two in zip(swept.rows, here.rows, strict=True):
        assert (one.candidate, one.baseline, one.users) == (two.candidate, two.baseline, two.users)
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))
    hurried = candidate_sweep.sweep(prior, found, SETTINGS, folder=tmp_path / "b", left_s=lambda: 0.01)
    assert len(hurried.rows) >= 3
    assert len(hurried.rows) + len(hurried.left_out) == 7
    assert capsys.readouterr().out == "", "the answer of a job is the last line of its output"
    broken = replace(found)
    object.__setattr__(broken, "base_names", ())
    with pytest.raises(JobError, match="a trial of the sweep failed"):
        candidate_sweep.sweep(prior, broken, SETTINGS, folder=tmp_path / "c")
