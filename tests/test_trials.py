import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.config import Settings, changed
from cluster.errors import ConfigError, EvidenceError
from cluster.records import TRUTH, Dataset, decode
from tests.compose_cases import LAMPS, quick, two_kinds
from tests.features_samples import labelled
from tune.split import parts, task_codes
from tune.sweeps.request import By
from tune.sweeps.trials import KEPT, Score, Trials, situations, way
from tune.worlds.build import on

EVERY_ONE = {"law.epsilon": 1 - 1e-9}
"""Choices that are uniform but for one in a billion."""


def trials(dataset: Dataset, by: By, **changes: Any) -> Trials:
    settings = quick(Path("/nowhere"), **changes)
    return Trials(dataset, settings, by, situations(dataset, settings))


def last(made: Trials, point: dict[str, Any], rungs: int = 1) -> Score:
    return list(made.score(point, rungs))[-1]


def test_uniform_choices_earn_the_mean_of_the_worlds_means() -> None:
    made = trials(two_kinds(), "world")
    world = on(made.dataset, made.rows, made.settings)
    means_NK = np.array([world.mean_rewards(row, LAMPS) for row in range(len(made.rows))])
    error = means_NK.std() / np.sqrt(len(means_NK))
    assert abs(last(made, EVERY_ONE).value - means_NK.mean()) < 4 * error  # once in 15,000 seeds
    learned = last(made, {}).value
    assert learned > means_NK.mean() + 10 * error
    assert learned < means_NK.max(1).mean()


def test_a_table_answers_by_its_label() -> None:
    """Uniform choices are right once in three; the label is linear in its columns, so learned ones are right often."""
    table = labelled()
    contexts = [decode(context) for context in table.events["context"].to_pylist()]
    labels = ["c" if one["shape"] == "flat" else "a" if one["x"] > 0 else "b" for one in contexts]  # type: ignore
    truth = pa.table([table.events["event_id"], labels], schema=TRUTH)
    made = trials(replace(table, truth=truth), "world")
    score = last(made, EVERY_ONE)
    assert way(table) == "world"
    assert score.events == len(made.rows)
    assert abs(score.value - 1 / 3) < 4 * np.sqrt(2 / 9 / score.events)  # once in 15,000 seeds
    assert last(made, {}).value > 0.7


def test_a_uniform_replay_earns_what_the_uniform_log_did() -> None:
    made = trials(two_kinds(), "replay")
    reward_N = made.dataset.events["reward"].to_numpy()[made.rows]
    score = last(made, {"bandits.predefined": ("uniform",)})
    assert way(made.dataset) == "replay"
    assert abs(score.value - reward_N.mean()) < 4 * reward_N.std() / np.sqrt(len(reward_N))
    assert last(made, {}).value > score.value + 0.1


@pytest.mark.parametrize("by", ["world", "replay"])
def test_a_score_depends_on_nothing_but_its_settings(by: By) -> None:
    dataset, points = two_kinds(users=80), [{"law.delta": 0.3}, {"features.levels": 3}, {"features.levels": 5}, {}]
    made = trials(dataset, by)
    forth = [last(made, point).sums_U for point in points]
    back = [last(made, point, rungs=3).sums_U for point in points[::-1]][::-1]
    assert len(made._grounds) == KEPT
    for one, other in zip(forth, back, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(forth[0], forth[3])


def test_rungs_are_the_beginnings_of_the_whole() -> None:
    made = trials(two_kinds(users=80), "world")
    scores = list(made.score({}, 4))
    total = len(made.rows)
    assert [score.events for score in scores] == [total // 4, total // 2, 3 * total // 4, total]
    for one, later in itertools.pairwise(scores):
        assert (later.counts_U >= one.counts_U).all()
        assert (later.sums_U >= one.sums_U - 1e-12).all()


def test_situations_are_whole_users_of_the_select_part() -> None:
    dataset, settings = two_kinds(), Settings.model_validate({"tune": {"events": 200}})
    select, rows = parts(dataset, 0).select, situations(dataset, settings)
    assert set(rows) <= set(select)
    assert 100 < len(rows) < 300
    user_N = task_codes(dataset.events)
    assert set(user_N[rows]).isdisjoint(user_N[np.setdiff1d(select, rows)])
    np.testing.assert_array_equal(situations(dataset, Settings()), select)
    with pytest.raises(EvidenceError, match=r"too few to compare settings on.*tune.events \(1\)"):
        situations(dataset, Settings.model_validate({"tune": {"events": 1}}))


def test_settings_that_cannot_be_are_refused() -> None:
    made = trials(two_kinds(users=80), "world")
    with pytest.raises(ConfigError, match=r"law\.delta = 2"):
        last(made, {"law.delta": 2})


def test_neighbours_speak_as_the_trial_says() -> None:
    """Six lamps in a plane, each compared with one other, or with all, at other temperatures."""
    dataset = two_kinds()
    place = dataset.items.schema.get_field_index("embedding")
    field = dataset.items.schema.field("embedding")
    angles = np.array([0.0, 0.1, 0.2, 3.0, 3.1, 3.2])
    vectors = pa.array(np.stack([np.cos(angles), np.sin(angles)], axis=1).tolist(), field.type)
    made = trials(replace(dataset, items=dataset.items.set_column(place, field, vectors)), "world")
    alone = made._ground(changed(made.settings, {"content.neighbours": 1, "content.temperature": 0.1}))
    whole = made._ground(changed(made.settings, {"content.neighbours": 5, "content.temperature": 0.2}))
    first, second = alone.work.feature_map.relations, whole.work.feature_map.relations
    assert first is not None
    assert second is not None
    assert first.kin.near_KJ[0].tolist() == [1]
    assert second.kin.near_KJ[0].tolist() == [1, 2, 3, 5, 4]
    cosine_J = np.cos(angles[[1, 2, 3, 5, 4]])
    np.testing.assert_allclose(second.kin.alpha_KJ[0], np.exp(cosine_J / 0.2) / np.exp(cosine_J / 0.2).sum(), rtol=1e-5)
    assert last(made, {"content.neighbours": 1}).events == len(made.rows)
