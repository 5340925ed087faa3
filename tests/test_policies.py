"""Every form of policy against values worked out by hand, or one event at a time."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits import law, learn
from actors.bandits.ensemble import Admission
from actors.bandits.version import Version
from actors.features.features import Floats
from cluster.config import RewardKind
from cluster.errors import ModelError, RequestError
from cluster.records import ITEMS, Dataset, conform, decode
from cluster.registry import Registry
from tests.features_samples import events_of
from tests.test_version import dataset, version
from tune.log import read
from tune.offpolicy.cross_fit import FOLDS
from tune.whatif.block import Block, Policy
from tune.whatif.policies import Counts, Ground

KIND = RewardKind(low=0.0, high=2.0)
ABC = ("a", "b", "c")


def block(events: pa.Table, items: tuple[str, ...] = ABC, first: int = 0) -> Block:
    return Block(events, read(events, items, KIND), items, first, KIND)


def small(users: list[str | None] | None = None, rewards: list[float] | None = None) -> Block:
    """Four events: candidates given in two orders, without one item, and not given."""
    contexts: Any = [{"device": "mobile"}, {"device": "desk"}, {"device": "mobile"}, {"device": "desk"}]
    lists: Any = [["a", "b", "c"], ["c", "a"], None, ["b", "c", "a"]]
    actions, rewards = ["a", "c", "b", "a"], rewards or [2.0, 0.0, 1.0, 0.0]
    return block(events_of(contexts, actions, rewards, lists, users or [None] * 4))


@pytest.fixture(scope="module")
def made() -> Version:
    return version()


@pytest.fixture
def registry(tmp_path: Path, made: Version) -> Registry:
    registry = Registry(str(tmp_path / "registry"))
    for _ in range(2):
        registry.publish("shop", made.save)
    return registry


def ground(registry: Registry, *blocks: Block, learn: bool = False, overlap: str = "") -> Ground:
    items = conform(pa.table({"item_id": blocks[0].items}), ITEMS, "items")
    counts = Counts(len(items), seed=3)
    for each in blocks:
        counts.add(each)
    return Ground(items, registry, "shop", 5, learn, counts, None, lambda found: overlap)


def test_uniform_is_uniform_over_the_candidates_of_each_event(registry: Registry) -> None:
    found = ground(registry, small()).policy("uniform").probabilities(small())
    third = 1 / 3
    np.testing.assert_allclose(found, [[third] * 3, [0.5, 0.5, 0], [third] * 3, [third] * 3])


def test_an_item_is_taken_where_it_is_offered(registry: Registry) -> None:
    policy = ground(registry, small()).policy("item:b")
    np.testing.assert_allclose(policy.probabilities(small()), [[0, 1, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]])
    assert policy.remark() == "no candidate in 25.0% of all events, uniform there"
    everywhere = ground(registry, small()).policy("item:a")
    everywhere.probabilities(small())
    assert everywhere.remark() == ""


def many(rewards_of_first: float) -> Block:
    """Twenty users with three events each; a earns 2, b 1, c 0, but the first user's rewards are as given."""
    users = [f"u{n // 3}" for n in range(60)]
    rewards = [rewards_of_first if n < 3 else float(2 - n % 3) for n in range(60)]
    return block(events_of([{}] * 60, [ABC[n % 3] for n in range(60)], rewards, [list(ABC)] * 60, list(users)))


def test_popularity_takes_what_earned_most(registry: Registry) -> None:
    found = ground(registry, many(0.0)).policy("popularity").probabilities(many(0.0))
    np.testing.assert_array_equal(found, [[1, 0, 0]] * 60)


def test_a_user_never_decides_their_own_popularity(registry: Registry) -> None:
    """Whatever the first user's folk earn, what is chosen for that fold of users stays; the others see it."""
    counted = Counts(3, 3)
    first = counted.fold(many(0.0))[0]
    assert first in range(FOLDS)
    means = []
    for reward in (0.0, 2.0):
        counts = Counts(3, 3)
        counts.add(many(reward))
        means.append(counts.means())
    others = [fold for fold in range(FOLDS) if fold != first]
    assert (means[0][others] != means[1][others]).all()
    # the fold's own counts are as they were: only the prior's scale moves, which keeps the order
    np.testing.assert_array_equal(np.argsort(means[0][first]), np.argsort(means[1][first]))


def test_popularity_shrinks_to_the_mean_and_shares_ties(registry: Registry) -> None:
    """No reward at all: every item has the same mean, so the candidates share."""
    nothing = small(rewards=[0.0, 0.0, 0.0, 0.0])
    found = ground(registry, nothing).policy("popularity").probabilities(nothing)
    np.testing.assert_allclose(found.max(1), [1 / 3, 1 / 2, 1 / 3, 1 / 3])


def shop(data: Dataset, slices: tuple[int, ...]) -> Iterator[Block]:
    items = tuple(data.items["item_id"].to_pylist())
    for start, end in zip((0, *slices), (*slices, len(data.events)), strict=True):
        yield block(data.events.slice(start, end - start), items, start)


def one_by_one(made: Version, data: Dataset, learns: bool, greedy: bool) -> Floats:
    """The same by the map's function for one decision, with a learner for the one client of the log."""
    ids = data.items["item_id"].to_pylist()
    state = learn.start(made.ensemble)
    published = learn.publish(state)
    rows = []
    for n, event in enumerate(data.events.to_pylist()):
        features = made.feature_map.features(decode(event["context"]), ids, event["user_id"])
        found = law.probabilities(published, features, state.histories.get(event["user_id"]), (5 << 32) + n)
        rows.append(np.eye(5)[np.argmax(found.mean_K)] if greedy else found.pi_K)
        action = ids.index(event["item_id"])
        if learns:
            arm, item = int(features.arm_K[action]), int(features.item_K[action])
            seen = features.phi_KD[action], arm, item, event["reward"], event["propensity"]
            state = learn.step(state, learn.Outcome(event["user_id"], *seen, found.member_MK[:, action]))
            if (n + 1) % 32 == 0:
                published = learn.publish(state)
    return np.array(rows)


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("form", ["version", "greedy"])
@pytest.mark.parametrize("slices", [(), (7, 40)])
def test_a_version_is_its_law(
    registry: Registry, made: Version, learns: bool, form: str, slices: tuple[int, ...]
) -> None:
    data = dataset()
    blocks = list(shop(data, slices))
    policy = ground(registry, *blocks, learn=learns).policy(f"{form}:1")
    found = np.concatenate([policy.probabilities(each) for each in blocks])
    assert policy.learns is learns
    np.testing.assert_allclose(found, one_by_one(made, data, learns, form == "greedy"), atol=1e-12)


@pytest.mark.parametrize("learns", [False, True])
def test_a_member_decides_only_where_it_is_admitted(registry: Registry, made: Version, learns: bool) -> None:
    """The generated member is out at the log's client: its law is that of the version without the member."""
    data, name = dataset(), made.ensemble.names[-1]
    for others, clients in ((True, {"shop": False}), (False, {"mall": True})):
        admissions = {name: Admission(others, clients)}
        registry.publish("shop", replace(made, ensemble=replace(made.ensemble, admissions=admissions)).save)
    without = replace(made, ensemble=made.ensemble.only(*made.ensemble.names[:-1]))
    expected = one_by_one(without, data, learns, False)
    for number in (3, 4):
        (whole,) = shop(data, ())
        found = ground(registry, whole, learn=learns).policy(f"version:{number}").probabilities(whole)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_versions_by_number_and_the_latest(registry: Registry) -> None:
    asked = ground(registry, small(), overlap="fitted on all")
    assert asked.policy("version:1").name == "version:1"
    assert asked.policy("version:latest").name == "version:2"
    assert asked.policy("greedy:latest").remark() == "fitted on all"
    for wrong in ("version:3", "version:one", "greedy:0"):
        with pytest.raises(RequestError, match=rf"policy\.{wrong}: no such version of 'shop'; published: 1, 2"):
            asked.policy(wrong)


def test_items_that_a_version_does_not_know_can_be_chosen(registry: Registry) -> None:
    events = events_of([{}] * 3, ["new", "i0", "i1"], [1.0, 0.0, 1.0], [["new", "i0"], None, ["i1", "new"]])
    fresh = block(events, ("i0", "i1", "new"))
    found = ground(registry, fresh).policy("version:1").probabilities(fresh)
    np.testing.assert_allclose(found.sum(1), 1.0)
    assert (found > 0).sum(1).tolist() == [2, 3, 2]


def test_an_own_policy_sees_context_items_and_user(registry: Registry) -> None:
    events = small(["ann", None, None, "bob"])
    found = ground(registry, events).policy("tests.policy_samples:ByDevice").probabilities(events)
    np.testing.assert_allclose(found, [[1, 0, 0], [0.25, 0.75, 0], [0.75, 0.125, 0.125], [0, 0, 1]])


def test_an_own_policy_learns_only_where_that_is_asked_for(registry: Registry) -> None:
    """Rewards 2 for a, 0 for c, 1 for b: nothing is known at first, then a leads."""

    def asked(learns: bool) -> tuple[Policy, Any]:
        policy = ground(registry, small(), learn=learns).policy("tests.policy_samples:Counts")
        return policy, policy.probabilities(small()).tolist()

    learning, found = asked(True)
    assert learning.learns
    assert found == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    frozen, found = asked(False)
    assert not frozen.learns
    assert found == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Nan", "a probability is nan; divide by no zero"),
        ("Heavy", "probabilities sum to 1.5, not to 1; divide them by their sum"),
        ("Short", r"expected 3 probabilities, one per item, found shape \(1,\)"),
        ("Negative", "a probability is -0.5, below 0; clip before normalising"),
        ("Raises", "probabilities raised IndexError: list index out of range; mend the class"),
        ("Exits", "probabilities raised SystemExit: 3; mend the class"),
        ("Words", "probabilities raised ValueError: could not convert string to float"),
    ],
)
def test_a_wrong_answer_names_the_event(registry: Registry, name: str, fault: str) -> None:
    """The fourth call answers wrongly; the block begins with the hundredth event of the log."""
    events = small().events
    asked = ground(registry, small()).policy(f"tests.policy_samples:{name}")
    with pytest.raises(ModelError, match=rf"policy tests\.policy_samples:{name}, event 103 \(e3\): {fault}"):
        asked.probabilities(block(events, first=100))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("unifrom", "no such policy; give uniform, popularity, item:ID"),
        ("item:", "no such policy"),
        ("item:z", "the catalogue of 3 items has no 'z'; it has a, b, c"),
        ("uniform:2", "ModuleNotFoundError: No module named 'uniform'"),
        ("no_module:Class", "No module named 'no_module'; expected Class\\(\\) of a module that can be imported"),
        ("tests.policy_samples:Missing", "has no attribute 'Missing'"),
        ("tests.policy_samples:NoMethod", "the class lacks probabilities\\(context, items, user_id\\)"),
        ("tests.policy_samples:NeverMade", "SystemExit: no licence; expected Class"),
        ("tests.policy_samples:NeedsArguments", "missing 1 required positional argument: 'size'"),
    ],
)
def test_what_cannot_be_asked_for(registry: Registry, text: str, fault: str) -> None:
    with pytest.raises((RequestError, ModelError), match=fault):
        ground(registry, small()).policy(text)
