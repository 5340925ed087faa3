import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cluster.config import Settings
from tune.sweeps.search import WHOLE, Found, Plan, _found, _pack, _within, keep_state, resumable
from tune.sweeps.space import Space


def plan(kind: Any = "grid", asha: bool = False, **texts: Any) -> Plan:
    space = Space.of({name.replace("__", "."): text for name, text in texts.items()}, Settings())
    return Plan.of(space, kind, 12, asha, 3)


def test_only_points_drawn_up_front_repeat() -> None:
    space = {"law__delta": "0.1,0.2"}
    assert [
        plan(kind, asha, **space).repeats for kind, asha in (("grid", False), ("grid", True), ("optuna", False))
    ] == [
        True,
        False,
        False,
    ]
    assert plan("random", law__delta="uniform(0, 1)").points == plan("random", law__delta="uniform(0, 1)").points
    assert plan("grid", **space).trials == 2
    assert plan("optuna", **space).trials == 12


def test_trials_of_equal_features_follow_each_other() -> None:
    made = plan(law__delta="0.1,0.2,0.3", features__levels="3,9")
    order = made.parameters()["number"]["grid_search"]
    levels = [made.point({"number": number})["features.levels"] for number in order]
    assert sorted(order) == list(range(6))
    assert levels == [3, 3, 3, 9, 9, 9]


def test_optuna_draws_places_that_are_values() -> None:
    made = plan("optuna", weights__eta="log(0.1, 10)", bandits__predefined="[linear],[uniform, linear]")
    assert made.point({"weights.eta": 0.5, "bandits.predefined": 1}) == {
        "weights.eta": 1.0,
        "bandits.predefined": ("uniform", "linear"),
    }


def trial(status: str, result: dict[str, Any]) -> Any:
    return SimpleNamespace(
        config={"number": 1}, status=status, last_result=result, get_error=lambda: "lost:\nworker died"
    )


def test_what_became_of_a_trial() -> None:
    made, sums, counts = plan(law__delta="0.1,0.2"), np.array([0.1, 1 / 3]), np.array([2.0, 1.0])
    told = {"value": 0.1, "sums": _pack(sums), "counts": _pack(counts), "done": True}
    whole, cut = (_found(made, 7, trial("TERMINATED", told), events) for events in (3, 4))
    assert whole is not None
    assert cut is not None
    assert (whole.number, whole.point, whole.stopped, cut.stopped) == (1, {"law.delta": 0.2}, False, True)
    assert whole.score is not None
    np.testing.assert_array_equal(whole.score.sums_U, sums)
    assert (whole.score.events, whole.score.value) == (3, pytest.approx((0.1 + 1 / 3) / 3))
    assert _found(made, 7, trial("ERROR", {}), 3) == Found(1, {"law.delta": 0.2}, None, "worker died")
    refused = {"error": "cannot be", "value": 0.0, "done": True}
    assert _found(made, 7, trial("TERMINATED", refused), 3) == Found(1, {"law.delta": 0.2}, None, "cannot be")
    for unfinished in ({}, told | {"done": False}):
        assert _found(made, 7, trial("TERMINATED", unfinished), 3) is None


def test_a_budget_asks_until_somebody_hears() -> None:
    before, heard = signal.getsignal(signal.SIGUSR1), threading.Event()
    with _within(0.0):
        assert not heard.wait(0.1)  # the first request finds nobody
        signal.signal(signal.SIGUSR1, lambda *_: heard.set())
        assert heard.wait(5)
    assert signal.getsignal(signal.SIGUSR1) == before
    with _within(None):
        pass


def test_a_state_that_a_kill_cut_short_gives_way_to_the_last_whole_one(tmp_path: Path) -> None:
    (tmp_path / "tuner.pkl").write_bytes(b"")  # what Tune looks for
    state = tmp_path / "experiment_state-2026-01-02_00-00-00.json"
    (tmp_path / "experiment_state-2026-01-01_00-00-00.json").write_text("{}")
    state.write_text('{"trial_data": []}')
    keep_state(tmp_path)
    for cut in ("", '{"trial_da'):
        state.write_text(cut)
        keep_state(tmp_path)  # nothing to keep
        assert resumable(tmp_path)
        assert state.read_text() == '{"trial_data": []}'
    (tmp_path / WHOLE).unlink()
    state.write_text("")
    assert resumable(tmp_path)  # by the first start's
    assert not state.exists()
    assert not resumable(tmp_path / "none")
