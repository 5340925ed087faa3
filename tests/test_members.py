import numpy as np
import pytest
from scipy import stats

from actors.bandits import members
from actors.bandits.history import History
from actors.bandits.members import Model, Shared, Uniform, custom
from actors.bandits.noise import Noise
from actors.features.features import Floats, Ints
from cluster.errors import ModelError
from tests import bandit_cases as cases

HERE = "tests.test_members"
SHAPE = (1, 3, 2)


class Counts:
    """A user's own model: mean reward per item with a Beta(1, 1)."""

    def __init__(self, arms: int, dimension: int, items: int) -> None:
        self.hits_I, self.tries_I = np.zeros(items + 1), np.zeros(items + 1)

    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        belief = stats.beta(1 + self.hits_I[item_K], 1 + self.tries_I[item_K] - self.hits_I[item_K])
        return belief.mean(), belief.std()

    def learn(self, phi_D: Floats, arm: int, item: int, reward: float) -> None:
        self.hits_I[item] += reward
        self.tries_I[item] += 1

    def arrays(self) -> dict[str, Floats]:
        return {"hits": self.hits_I, "tries": self.tries_I}

    def load(self, arrays: dict[str, Floats]) -> None:
        self.hits_I, self.tries_I = arrays["hits"].copy(), arrays["tries"].copy()


class Nothing:
    def __init__(self, arms: int, dimension: int, items: int) -> None:
        pass


class Raises(Nothing):
    def __init__(self, arms: int, dimension: int, items: int) -> None:
        raise KeyError("no licence")


class Narrow(Counts):
    def __init__(self, arms: int) -> None:
        pass


class Wrong(Counts):
    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        return np.zeros(len(arm_K) + 1), np.zeros(len(arm_K) + 1)


class Negative(Counts):
    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        return np.zeros(len(arm_K)), -np.ones(len(arm_K))


def test_uniform_has_no_scores() -> None:
    with pytest.raises(ModelError, match="uniform has no scores"):
        members.scores(Uniform(), cases.features(np.random.default_rng(0), 2, 3), History.empty(3), Noise(1, 4), 1.0)


def test_popularity_sees_items_and_nothing_else() -> None:
    """Two items of known mean; the third is unknown and gets the last row."""
    rng = np.random.default_rng(0)
    belief = cases.posterior(rng, 3, 1)
    decision = cases.features(rng, 3, 4)
    decision.item_K[2] = -1
    found = members.scores(Shared("popularity", belief, "items"), decision, History.empty(4), Noise(1, 4), 0.0)
    np.testing.assert_allclose(found.mean_K, belief.mean_AD[[0, 1, -1], 0])
    assert not found.deviation_PK.any()


def test_an_own_model_scores_learns_and_is_loaded() -> None:
    own = custom(f"{HERE}:Counts", SHAPE)
    assert own.name == "counts"
    assert own.predefined
    assert isinstance(own.model, Model)
    for reward in (1.0, 1.0, 0.0):
        own.model.learn(np.ones(3), 0, 1, reward)
    decision = cases.features(np.random.default_rng(0), 2, 3)
    again = custom(f"{HERE}:Counts", SHAPE, own.model.arrays(), name="mine", predefined=False)
    assert (again.name, again.predefined) == ("mine", False)
    found = members.scores(again, decision, History.empty(3), Noise(1, 50_000), 2.0)
    # Beta(1, 1) and Beta(3, 2): means 1/2 and 3/5, variances 1/12 and 1/25; twice the deviation.
    np.testing.assert_allclose(found.mean_K, [0.5, 0.6])
    np.testing.assert_allclose(found.deviation_PK.std(0), [2 / 12**0.5, 0.4], rtol=0.02)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:Model", "No module named"),
        (f"{HERE}:Absent", "Absent"),
        (HERE, "expected an importable module:Class"),
        ("", "expected an importable module:Class"),
        (":Counts", "expected an importable module:Class"),
        (f"{HERE}:Nothing", r"lacks \['scores', 'learn', 'arrays', 'load'\]"),
        (f"{HERE}:Narrow", "TypeError"),
        (f"{HERE}:Raises", "KeyError: 'no licence'"),
        (f"{HERE}:SHAPE", "not callable"),
    ],
)
def test_a_bad_own_model_is_named(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        custom(source, SHAPE)


@pytest.mark.parametrize("name", ["Wrong", "Negative"])
def test_scores_that_break_the_protocol_are_refused(name: str) -> None:
    decision = cases.features(np.random.default_rng(0), 2, 3)
    with pytest.raises(ModelError, match="expected 2 means and as many standard deviations"):
        members.scores(custom(f"{HERE}:{name}", SHAPE), decision, History.empty(3), Noise(1, 4), 1.0)
