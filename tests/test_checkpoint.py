"""A learner's checkpoint: what items have taught goes on from it with the same bits."""

from dataclasses import replace

import numpy as np
import safetensors.numpy

from actors.bandits import learn
from actors.bandits.learn import Outcome
from actors.bandits.shares import ItemWeights
from serve.learning import checkpoint
from tests import bandit_cases as cases


def taught(rng: np.random.Generator, count: int) -> list[Outcome]:
    """Outcomes whose decisions logged what the members thought, but for one in four."""
    found = cases.outcomes(rng, count)
    return [o if n % 4 == 3 else replace(o, member_means_M=rng.random(5)) for n, o in enumerate(found)]


def same(one: learn.State, other: learn.State) -> bool:
    arrays, others = one.items.arrays(), other.items.arrays()
    return all(np.array_equal(array, others[name]) for name, array in arrays.items())


def test_items_go_on_from_a_checkpoint() -> None:
    rng = np.random.default_rng(0)
    ensemble = replace(cases.ensemble(rng), items=ItemWeights(np.array([2]), rng.dirichlet(np.ones(5), 1)))
    outcomes = taught(rng, 120)
    whole, part = learn.start(ensemble), learn.start(ensemble)
    for n, outcome in enumerate(outcomes):
        if n == 70:
            part = checkpoint.load(ensemble, checkpoint.dump(part))
        whole, part = learn.step(whole, outcome), learn.step(part, outcome)
    assert same(whole, part)
    assert checkpoint.dump(whole) == checkpoint.dump(part)
    assert sum(whole.items.sums(item)[0] for item in range(5)) == sum(
        o.item >= 0 and o.member_means_M is not None for o in outcomes
    )


def test_a_checkpoint_of_before_items_taught_loads() -> None:
    """Its arrays have none of them: the version's own are where it goes on."""
    rng = np.random.default_rng(1)
    ensemble = replace(cases.ensemble(rng), items=ItemWeights(np.array([2]), rng.dirichlet(np.ones(5), 1)))
    state = learn.start(ensemble)
    for outcome in cases.outcomes(rng, 30):
        state = learn.step(state, outcome)
    arrays = safetensors.numpy.load(checkpoint.dump(state))
    old = safetensors.numpy.save({name: a for name, a in arrays.items() if not name.startswith("items/")})
    found = checkpoint.load(ensemble, old)
    assert found.count == 30
    assert same(found, learn.start(ensemble))


def test_without_what_members_thought_nothing_of_items_is_kept() -> None:
    rng = np.random.default_rng(2)
    state = learn.start(cases.ensemble(rng))
    for outcome in cases.outcomes(rng, 30):
        state = learn.step(state, outcome)
    assert not any(name.startswith("items/") for name in safetensors.numpy.load(checkpoint.dump(state)))
