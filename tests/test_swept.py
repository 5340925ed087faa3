import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats

from cluster.config import Settings
from tune.sweeps import coordinates
from tune.sweeps.search import Found
from tune.sweeps.space import Space
from tune.sweeps.swept import Swept
from tune.sweeps.trials import Score

SPACE = Space.of({"law.delta": "0.1,0.2,0.3", "features.kind": "joint,arms"}, Settings())
CONFIGURED = {"law.delta": 0.1, "features.kind": "auto"}
COUNTS = np.array([2.0, 1.0, 0.0, 3.0])


def score(*sums: float, counts: Any = COUNTS) -> Score:
    return Score(np.array(sums), np.asarray(counts))


def found(number: int, value: Score | None, error: str = "", stopped: bool = False) -> Found:
    return Found(number, {"law.delta": 0.1 * (number + 1), "features.kind": "joint"}, value, error, stopped)


def test_the_best_is_first_and_what_failed_last() -> None:
    half = score(1.0, 0.0, 0.0, 0.0, counts=[2, 1, 0, 0])
    base = [half, score(1.0, 0.0, 0.0, 1.0)]
    rows = [
        found(0, None, "cannot be"),
        found(1, score(1.0, 1.0, 0.0, 1.0)),
        found(2, score(2.0, 1.0, 0.0, 0.0, counts=[2, 1, 0, 0]), stopped=True),
        found(3, score(2.0, 1.0, 0.0, 1.0)),
    ]
    swept = Swept.of(SPACE, CONFIGURED, base, rows)
    assert [(row.trial, row.state) for row in swept.rows] == [(3, "done"), (1, "done"), (2, "stopped"), (0, "failed")]
    assert swept.best.trial == 3
    assert (swept.best.value, swept.configured.value) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert swept.best.difference == pytest.approx(2 / 6)
    assert swept.rows[2].difference == pytest.approx(2 / 3), "against the same events"
    assert (swept.best.events, swept.best.users) == (6, 3)
    assert (swept.rows[3].value, swept.rows[3].error) == (None, "cannot be")


def test_intervals_by_hand() -> None:
    """Two users with means 1 and 0 on 2 events each: value 1/2, error 1/2, Student with one degree of freedom."""
    counts = [2.0, 2.0]
    base, trial = score(0.0, 0.0, counts=counts), score(2.0, 0.0, counts=counts)
    swept = Swept.of(SPACE, CONFIGURED, [base], [found(0, trial), found(1, base), found(2, None, "no")])
    row = swept.rows[0]
    reach = math.tan(math.pi * 0.475) / 2  # one degree of freedom is Cauchy: its 0.975 quantile
    wide = math.tan(math.pi * 0.4875) / 2  # two trials compared: 0.9875
    assert (row.value, row.low, row.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach))
    assert (row.difference, row.difference_low, row.difference_high) == pytest.approx((0.5, 0.5 - wide, 0.5 + wide))
    assert (swept.rows[1].difference_low, swept.rows[1].difference_high) == (0, 0)


def test_the_best_of_many_worthless_trials_is_rarely_called_better() -> None:
    """60 sweeps of 40 trials that differ by luck alone: at most 5 % may have one whose interval is above zero.

    Of 60 at 5 % more than 10 come once in 3,000 seeds; each trial at its own 95 % instead calls most sweeps better.
    """
    rng = np.random.default_rng(0)
    counts, wrong, alone = np.full(60, 10.0), 0, 0
    for _ in range(60):
        base, luck_TU = rng.normal(3.0, 1.0, 60), rng.normal(0.0, 0.5, (40, 60))
        trials = [found(n, score(*(base + luck_U), counts=counts)) for n, luck_U in enumerate(luck_TU)]
        swept = Swept.of(SPACE, CONFIGURED, [score(*base, counts=counts)], trials)
        wrong += (swept.best.difference_low or 0.0) > 0
        alone += bool((stats.ttest_1samp(luck_TU, 0.0, axis=1, alternative="greater").pvalue < 0.025).any())
    assert wrong <= 10
    assert alone > 20


def test_settings_that_are_not_beaten_stay() -> None:
    base = score(1.0, 1.0, 0.0, 1.0)
    swept = Swept.of(SPACE, CONFIGURED, [base], [found(0, score(0.0, 0.0, 0.0, 1.0)), found(1, base)])
    assert swept.best is swept.configured
    assert swept.best.point == CONFIGURED
    nothing = Swept.of(SPACE, CONFIGURED, [base], [])
    assert nothing.best is nothing.configured


def test_the_table_and_the_plot(tmp_path: Path) -> None:
    base = [score(1.0, 0.0, 0.0, 1.0)]
    rows = [found(0, None, "cannot be"), *(found(n, score(1.0, 0.2 * n, 0.0, 1.0)) for n in (1, 2))]
    swept = Swept.of(SPACE, CONFIGURED, base, rows)
    swept.save(tmp_path / "trials.parquet")
    table = pq.read_table(tmp_path / "trials.parquet").to_pydict()
    assert table["trial"] == [2, 1, 0, None]
    assert table["state"] == ["done", "done", "failed", "configured"]
    assert table["law.delta"] == pytest.approx([0.3, 0.2, 0.1, 0.1])
    assert table["features.kind"] == ["joint", "joint", "joint", "auto"]
    coordinates.save(swept, tmp_path / "trials.png", "two trials")
    assert len(list(tmp_path.iterdir())) == 2
    with Image.open(tmp_path / "trials.png") as drawn:
        drawn.load()
        assert (drawn.format, drawn.width > 500, drawn.height > 400) == ("PNG", True, True)
        colours = {pixel for _, pixel in drawn.convert("RGB").getcolors(2**20) or []}
    assert (0xC2, 0x18, 0x5B) in colours, "the best trial's colour"


def test_where_values_stand_on_an_axis() -> None:
    ranged = Space.of({"weights.eta": "log(0.1, 10)", "law.delta": "uniform(0.2, 0.6)"}, Settings()).dimensions
    eta, delta = (coordinates.Scale.of(ranged[path]) for path in ("weights.eta", "law.delta"))
    assert [eta.at(value) for value in (0.1, 1, 10)] == pytest.approx([0, 0.5, 1])
    assert delta.at(0.3) == pytest.approx(0.25)
    assert math.isnan(delta.at(0.1))
    assert eta.ticks() == pytest.approx({"0.1": 0, "1": 0.5, "10": 1})
    listed = coordinates.Scale.of(SPACE.dimensions["features.kind"])
    assert [listed.at("joint"), listed.at("arms")] == [0, 1]
    assert math.isnan(listed.at("auto"))
    wide = Space.of({"weights.eta": "1,10,100"}, Settings()).dimensions["weights.eta"]
    assert coordinates.Scale.of(wide).at(10) == pytest.approx(0.5)
