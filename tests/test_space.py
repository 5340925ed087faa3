from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import Settings, changed
from cluster.errors import ConfigError
from tune.sweeps.space import Range, Space, default, read


def space(**texts: Any) -> Space:
    return Space.of({name.replace("__", "."): text for name, text in texts.items()}, Settings())


def test_a_file_and_assignments_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "law: {delta: [0.05, 0.1], particles: 'int(16, 64)'}\n"
        "bandits.prior_strength: log(0.1, 3)\n"
        "features.kind: [joint, arms]\n"
        "bandits.predefined: [[uniform, linear], [uniform, popularity]]\n"
    )
    words = ["law.delta=0.05,0.1", "law.particles=int(16, 64)", "bandits.prior_strength = log(0.1, 3)"]
    words += ["features.kind=joint,arms", "bandits.predefined=[uniform, linear],[uniform, popularity]"]
    one, other = (Space.of(texts, Settings()) for texts in (read(path, []), read(None, words)))
    assert one == other
    assert list(one.dimensions) == sorted(one.dimensions)
    assert one.facts()["law.particles"] == "int(16, 64)"
    assert read(path, ["law.delta=0.2"])["law.delta"] == "0.2"
    again = Space.of(one.facts() | {"bandits.predefined": read(path, [])["bandits.predefined"]}, Settings())
    assert again == one


def test_a_grid_is_every_combination() -> None:
    found = space(law__delta="0.1,0.2", weights__eta="1,2,3", law__floor="0.3").grid(6)
    assert [point["law.delta"] for point in found] == [0.1] * 3 + [0.2] * 3
    assert [point["weights.eta"] for point in found] == [1, 2, 3] * 2
    assert {point["law.floor"] for point in found} == {0.3}


def test_random_points_repeat_by_seed_and_differ() -> None:
    ranges = space(law__delta="uniform(0, 0.3)", weights__eta="log(0.1, 10)", law__particles="int(1, 4)")
    one, again, other = (ranges.random(200, seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert len({tuple(point.values()) for point in one}) == 200
    assert {point["law.particles"] for point in one} == {1, 2, 3, 4}
    share = np.mean([point["weights.eta"] < 1 for point in one])
    assert 0.36 < share < 0.64  # a half on the logarithm; 200 fair coins leave this once in 15,000 seeds
    for point in one:
        changed(Settings(), point)


def test_a_small_space_gives_every_point_once() -> None:
    found = space(law__delta="0.1,0.2", weights__eta="1,2").random(50, 0)
    assert sorted(tuple(point.values()) for point in found) == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2)]


@given(
    kind=st.sampled_from(["log", "uniform", "int"]),
    bounds=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).filter(lambda pair: pair[0] < pair[1]),
    share=st.floats(0, 1),
)
def test_a_range_stays_within_its_bounds(kind: Any, bounds: tuple[int, int], share: float) -> None:
    low, high = bounds
    value = Range(kind, low, high).at(share)
    assert low <= value <= high
    if kind == "int":
        assert isinstance(value, int)


def test_the_default_space_fits_the_settings() -> None:
    whole, replayed = (Space.of(default(exploring, exploring), Settings()) for exploring in (True, False))
    assert "law.exploration_scale" in whole.dimensions
    assert not any(path.startswith("law.") for path in replayed.dimensions)
    assert {"features.map", "bandits.prior_strength", "weights.half_life_decisions"} <= set(replayed.dimensions)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("law.dleta", "0.1", "law.dleta: unknown setting; did you mean 'delta'"),
        ("law.delta", "0.1,1.5", "law.delta = 1.5"),
        ("law.delta", "uniform(0.5, 1.5)", "law.delta = 1.5"),
        ("features.levels", "uniform(3, 9)", "features.levels = .*integer"),
        ("features.map", "auto,cubic", "features.map = 'cubic'"),
        ("law.delta", "log(0, 1)", "must begin above 0"),
        ("law.delta", "uniform(1, 0)", "lower bound to a higher"),
        ("law.delta", "uniform(1)", "needs two numbers"),
        ("law.exploration_scale", "uniform(0.1, inf)", r"uniform\(0.1, inf\) has no end"),
        ("law.exploration_scale", "log(1, .inf)", "needs two numbers"),
        ("law.particles", "int(1, inf)", "has no end"),
        ("law.delta", "uniform(nan, 1)", "has no end"),
        ("law.particles", "int(16, 1e12)", "law.particles = 1,000,000,000,000: too large"),
        ("law.particles", "16,1000000000000", "too large to try; 100,000 at most"),
        ("law.particles", "int(1.5, 3)", "needs whole numbers"),
        ("law.delta", "0.1,0.1", "expected values that differ"),
        ("law.delta", "", "expected values that differ"),
        ("law.delta", "]", "are no values"),
        ("seed", "1,2", "seed: not to be varied by a sweep.*law"),
        ("world.churn", "0.1,0.2", "world.churn: not to be varied"),
    ],
)
def test_a_space_that_cannot_be_is_named(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.of({path: text}, Settings())


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="search space is empty"):
        Space.of({}, Settings())
    with pytest.raises(ConfigError, match=r"law.delta: a grid needs listed values.*--search random"):
        space(law__delta="uniform(0, 1)").grid(10)
    with pytest.raises(ConfigError, match="grid has 4 points, more than 3 trials; say --trials 4"):
        space(law__delta="0.1,0.2", weights__eta="1,2").grid(3)
    with pytest.raises(ConfigError, match=r"--set law\.delta: expected path=values"):
        read(None, ["law.delta"])
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read"):
        read(tmp_path / "none.yaml", [])
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(ConfigError, match=r"list\.yaml: expected settings and their values, found list"):
        read(tmp_path / "list.yaml", [])
