"""A log and policies in, answers out: values by hand, the truth of a simulation, and nothing that depends on blocks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.config import Settings
from cluster.errors import EvidenceError, MedleyError, RequestError
from cluster.records import ITEMS, USERS, Dataset, conform
from cluster.registry import Registry
from tests.compose_cases import LAMPS, changed, two_kinds
from tests.features_samples import events_of
from tests.test_version import dataset, version
from tune.whatif.answers import Answer, Bounds, model_alone
from tune.whatif.counterfactual import Answers, Question, ask
from tune.whatif.judged import Judged

FEW = Bounds(resamples=100)


def asked(data: Dataset, home: Path, *policies: str, slices: int | None = None, **changes: Any) -> Answers:
    """The answers; with `slices`, from tables of so many events."""
    settings = Settings.model_validate({"home": home, "features": {"kind": "arms"}} | changes.pop("settings", {}))
    judged = Judged.of(data, changes.pop("part", "all"), settings.seed)

    if slices is not None:
        tables = [data.events.slice(start, slices) for start in range(0, len(data.events), slices)]
        judged = replace(judged, tables=lambda: iter(tables))
    return ask(judged, Question(policies, **({"bounds": FEW} | changes)), settings)


def row(found: Answers, policy: str, estimator: str, group: str = "") -> Answer:
    (one,) = [r for r in found.rows if (r.policy, r.estimator, r.group) == (policy, estimator, group)]
    return one


def small(propensities: Any = (0.5, 0.25, 0.5, 0.25)) -> Dataset:
    """Rewards from 0 to 4 on two items."""
    events = events_of([{"device": d} for d in "mdmm"], list("abab"), [4.0, 2.0, 0.0, 4.0], [["a", "b"]] * 4)
    users: Any = pa.array(["u", "u", "v", "w"])
    for name, column in (("propensity", pa.array(propensities, pa.float64())), ("user_id", users)):
        events = events.set_column(events.schema.get_field_index(name), name, column)
    items = conform(pa.table({"item_id": ["a", "b"]}), ITEMS, "items")
    return Dataset("feedback", events, items, USERS.empty_table(), None, {})


RANGE = {"rewards": {"reward": {"low": 0, "high": 4}}}


def test_values_worked_by_hand(home: Path) -> None:
    """item:b: ρ = 0, 4, 0, 4, so ips (8 + 16)/4 and snips 24/8; the log earned 10/4."""
    found = asked(small(), home, "item:b", "uniform", methods=("ips", "snips"), settings=RANGE)
    assert (found.events, found.missing) == (4, 0)
    (logged,) = found.logged
    assert (logged.value, logged.events, logged.users) == (2.5, 4, 3)
    assert row(found, "item:b", "ips").value == pytest.approx(6.0)
    assert row(found, "item:b", "snips").value == pytest.approx(3.0)
    assert row(found, "item:b", "snips").difference == pytest.approx(0.5)
    # uniform: ρ = 1, 2, 1, 2: (4 + 4 + 0 + 8)/4
    assert row(found, "uniform", "ips").value == pytest.approx(4.0)
    assert row(found, "uniform", "ips").effective_events == pytest.approx(36 / 10)


def test_answers_by_a_key_of_the_context_are_those_of_its_events(home: Path) -> None:
    found = asked(small(), home, "item:b", methods=("snips",), group="device", settings=RANGE)
    assert [one.group for one in found.logged] == ["device=d", "device=m"]
    assert [one.value for one in found.logged] == pytest.approx([2.0, 8 / 3])
    assert [one.users for one in found.logged] == [1, 3]
    assert row(found, "item:b", "snips", "device=d").value == pytest.approx(2.0)
    assert row(found, "item:b", "snips", "device=m").value == pytest.approx(4.0)


def test_answers_by_client_are_those_of_the_client_alone(home: Path) -> None:
    data = two_kinds(users=40, rows=5)
    clients = ["north" if int(user[1:]) < 25 else "south" for user in data.events["user_id"].to_pylist()]
    data = changed(data, client_id=clients)
    grouped = asked(data, home, "uniform", "item:red1", methods=("ips",), group="client_id")
    for name in ("north", "south"):
        rows = np.flatnonzero(np.array(clients) == name)
        alone = asked(replace(data, events=data.events.take(rows)), home, "item:red1", methods=("ips",))
        one, two = row(grouped, "item:red1", "ips", f"client_id={name}"), row(alone, "item:red1", "ips")
        assert replace(one, group="") == two


def test_groups_without_end_are_refused(home: Path) -> None:
    with pytest.raises(EvidenceError, match="--group-by event_id: more than 50 values; group by what has fewer"):
        asked(two_kinds(users=20, rows=5), home, "uniform", methods=("ips",), group="event_id")
    with pytest.raises(EvidenceError, match="--group-by hout: no column of events, and no context has such a key"):
        asked(two_kinds(users=20, rows=5), home, "uniform", methods=("ips",), group="hout")


ALL = ("ips", "clipped_ips", "snips", "dm", "dr", "switch_dr", "dros")


def test_blocks_make_no_difference(home: Path) -> None:
    data = two_kinds(users=40, rows=5)
    policies = ("uniform", "popularity", "item:blue1", "tests.policy_samples:Counts")
    whole = asked(data, home, *policies, methods=ALL, learn=True)
    pieces = asked(data, home, *policies, methods=ALL, learn=True, slices=17)
    assert len(whole.rows) == len(policies) * len(ALL)
    for one, two in zip(whole.rows, pieces.rows, strict=True):
        numbers = [[getattr(r, name) for name in ("value", "low", "high", "difference", "tail")] for r in (one, two)]
        np.testing.assert_allclose(*numbers, rtol=0, atol=1e-9)
        assert (one.policy, one.estimator, one.parameter, one.note) == (
            two.policy,
            two.estimator,
            two.parameter,
            two.note,
        )


def test_the_truth_of_a_simulation(home: Path) -> None:
    """Half the users like red: any fixed lamp earns (0.75 + 0.15)/2. One run with a fixed seed: the 99.9 % interval of
    each unbiased estimate holds the truth, and item and log differ by nothing that is sure."""
    found = asked(
        two_kinds(users=300, rows=8), home, "item:red2", methods=("ips", "snips", "dr"), bounds=Bounds(alpha=0.001)
    )
    data = two_kinds(users=300, rows=8)
    share = np.mean([pairs[0][1] == '"ember"' for pairs in data.users["attributes"].to_pylist()])
    truth = share * 0.75 + (1 - share) * 0.15
    for estimator in ("ips", "snips", "dr"):
        one = row(found, "item:red2", estimator)
        assert one.low < truth < one.high
        assert one.high - one.low < 0.3
        assert one.difference_low < 0 < one.difference_high


def test_popularity_beats_uniform_where_items_differ(home: Path) -> None:
    data = two_kinds(users=200, rows=6)
    rewards = [float(item == "red1") for item in data.events["item_id"].to_pylist()]
    found = asked(changed(data, reward=rewards), home, "popularity", "item:red1", methods=("snips",))
    assert row(found, "popularity", "snips").value == row(found, "item:red1", "snips").value == 1.0
    assert row(found, "popularity", "snips").difference_low > 0.7


def test_without_propensities_the_estimate_is_the_model_s(home: Path) -> None:
    data = changed(two_kinds(users=60, rows=5), propensity=[None, *[1 / 6] * 299])
    found = asked(data, home, "uniform")
    told = (
        "1 of 300 events have no propensity, hence the reward model's own error is not in this interval; leave those "
        "events out, or map the column that holds them"
    )
    assert [(one.estimator, one.note) for one in found.rows] == [("dm", told)]
    assert found.missing == 1
    assert model_alone(300, 300) == "no propensities: the reward model's own error is not in this interval"
    fault = (
        "dr needs the propensity of every logged action, and 1 of 300 events have none, e0 the first; map the column"
    )
    with pytest.raises(EvidenceError, match=fault):
        asked(data, home, "uniform", methods=("dm", "dr"))


def test_with_propensities_the_default_is_doubly_robust_and_self_normalised(home: Path) -> None:
    found = asked(two_kinds(users=40, rows=5), home, "uniform", "uniform")
    assert [one.estimator for one in found.rows] == ["dr", "snips"]


def test_a_version_is_asked_for_by_number_and_told_when_it_knows_the_rows(home: Path) -> None:
    data = replace(dataset(events=60), facts={"fingerprint": "these"})
    data = changed(data, reward_kind=["reward"] * 60)
    made = replace(version(), facts={"data": "these", "seed": 0})
    Registry(str(home / "registry")).publish("medley", made.save)
    found = asked(data, home, "version:1", "greedy:latest", methods=("snips",), learn=True)
    assert [one.policy for one in found.rows] == ["version:1", "greedy:1"]
    assert all(one.learns for one in found.rows)
    assert all("of these rows, which flatters it" in one.note for one in found.rows)
    held_out = asked(data, home, "version:1", methods=("snips",), part="world")
    assert held_out.events == 12
    assert "flatters" not in held_out.rows[0].note


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        ("version:7", r"policy\.version:7: no such version of 'medley'; published: none"),
        ("tests.policy_samples:Nan", r"event 3 \(e3\): a probability is nan"),
        ("tests.policy_samples:Heavy", r"event 3 \(e3\): probabilities sum to 3, not to 1"),
    ],
)
def test_what_cannot_be_answered(home: Path, policy: str, fault: str) -> None:
    with pytest.raises(MedleyError, match=fault):
        asked(two_kinds(users=10, rows=5), home, "uniform", policy, methods=("ips",))
    with pytest.raises(RequestError):
        asked(two_kinds(users=10, rows=5), home, "item:green1")


def test_rewards_that_a_metric_cannot_scale(home: Path) -> None:
    with pytest.raises(EvidenceError, match=r"rewards of the log go from 0 to 4, outside \[0, 1\]"):
        asked(small(), home, "uniform")


def test_rewards_of_several_kinds_are_refused_whichever_table_they_are_in(home: Path) -> None:
    data = changed(two_kinds(users=10, rows=5), reward_kind=["click"] * 40 + ["purchase"] * 10)
    for slices in (None, 20):
        with pytest.raises(EvidenceError, match=r"rewards of 2 kinds \(click, purchase\), and models learn from one"):
            asked(data, home, "uniform", slices=slices, methods=("ips",))


def test_a_value_where_no_mean_can_be_is_marked(home: Path) -> None:
    """Of rewards in [0, 4], ips says 6 of item:b, and snips 3."""
    found = asked(small(), home, "item:b", methods=("ips", "snips"), settings=RANGE)
    ips = row(found, "item:b", "ips")
    assert 0 <= ips.low <= ips.high <= 4 < ips.value
    assert not ips.supported
    assert "its value lies outside the range of rewards: read the bounds" in ips.note
    assert "outside" not in row(found, "item:b", "snips").note


def test_a_logged_item_outside_its_candidates_names_the_event(home: Path) -> None:
    data = two_kinds(users=10, rows=5)
    lists = [list(LAMPS)] * 40 + [["red0"]] * 10
    wrong = changed(data, candidates=lists, item_id=["blue2"] * 50)
    with pytest.raises(
        EvidenceError, match=r"of the events from 40 on, event 0: action -1 is not among the event's cand"
    ):
        asked(wrong, home, "uniform", slices=20, methods=("ips",))
