"""The error rate that compositions on the same data may use together."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import MetricSettings
from cluster.registry import Registry
from tests import bandit_cases as cases
from tune.spending import Spending, key_of


def written(tests: dict[str, list[str]] | None):  # type: ignore[no-untyped-def]
    def fill(folder: Path) -> None:
        facts = {} if tests is None else {"tests": tests}
        (folder / "version.json").write_text(json.dumps({"facts": facts}))

    return fill


def test_shares_by_hand() -> None:
    spending, shares = Spending(), []
    for key in ("a", "b", "a", "c", "b"):
        shares.append(spending.share("data", key))
        spending = spending.spent("data", key)
    assert shares == pytest.approx([1 / 2, 1 / 6, 1 / 2, 1 / 12, 1 / 6])
    assert spending.share("other data", "c") == 1 / 2
    assert spending.spent(None, "a").share(None, "b") == pytest.approx(1 / 6), "unknown data is one data set"


@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 30)), max_size=60))
def test_all_tests_on_one_data_set_spend_less_than_the_whole(asked: list[tuple[str, int]]) -> None:
    spending, used = Spending(), {"x": {}, "y": {}}
    for data, number in asked:
        used[data][number] = spending.share(data, str(number))
        spending = spending.spent(data, str(number))
    assert all(sum(shares.values()) < 1 for shares in used.values())


def test_what_was_tested_travels_from_version_to_version(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    assert Spending.read(registry, "medley") == Spending()
    registry.publish("medley", written(None))
    assert Spending.read(registry, "medley") == Spending()
    registry.publish("medley", written({"data": ["a"]}))
    last = registry.publish("medley", written({"data": ["a", "b"]}))
    assert Spending.read(registry, "medley").tests == {"data": ["a", "b"]}
    (tmp_path / "medley" / "versions" / str(last) / "version.json").write_text("{")
    assert Spending.read(registry, "medley").tests == {"data": ["a"]}
    assert Spending.read(registry, "another") == Spending()


def test_a_test_is_known_by_its_member_rival_and_metric() -> None:
    ensemble, metric = cases.ensemble(np.random.default_rng(0)), MetricSettings()
    again = cases.ensemble(np.random.default_rng(0))
    other = replace(ensemble, values_M=ensemble.values_M + np.eye(len(ensemble.names))[0] * 1e-12)
    clicks = MetricSettings(kind="click_through")
    assert key_of(ensemble, "linear", metric) == key_of(again, "linear", metric)
    keys = {
        key_of(*tested)
        for tested in (
            (ensemble, "linear", metric),
            (ensemble, "uniform", metric),
            (ensemble, "linear", clicks),
            (other, "linear", metric),
        )
    }
    assert len(keys) == 4
