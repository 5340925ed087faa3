from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import changed
from tests.compose_cases import PLAIN, quick, two_kinds
from tune.split import parts, task_codes
from tune.sweeps import generated
from tune.sweeps.trials import Score, Trials, features_key, situations

DATA = two_kinds()
SETTINGS = quick(Path("/nowhere"), features=PLAIN, tune={"events": 400}, budgets={"head_s": 1e-3, "backbone_s": 1e-3})


def test_candidates_are_ranked_on_other_users_than_trials_are_scored_on() -> None:
    ranked, scored = generated.halves(DATA, SETTINGS)
    assert sorted([*ranked, *scored]) == sorted(parts(DATA, SETTINGS.seed).select)
    user_N = task_codes(DATA.events)
    assert set(user_N[ranked]).isdisjoint(user_N[scored])
    assert 0.25 < len(ranked) / (len(ranked) + len(scored)) < 0.75
    assert set(situations(DATA, SETTINGS, generates=True)) <= set(scored)


def test_features_have_one_key() -> None:
    assert features_key(SETTINGS) == features_key(changed(SETTINGS, {"law.delta": 0.3}))
    assert features_key(SETTINGS) != features_key(changed(SETTINGS, {"features.levels": 3}))


def test_a_member_by_steps_repeats_and_its_best_candidates_are_the_first() -> None:
    """Budgets of a millisecond end nothing: what is not given in steps would."""
    one, again = (generated.member(DATA, SETTINGS, 4) for _ in range(2))
    np.testing.assert_array_equal(one.means_CAD, again.means_CAD)
    assert one.names_C == again.names_C
    assert 2 <= len(one.names_C) <= 4
    fewer = generated.member(DATA, SETTINGS, 2)
    kept = generated.best(one, changed(SETTINGS, {"sweep.top_k": 2, "generator.exploration": 0.7}))
    assert kept.names_C == fewer.names_C == one.names_C[:2]
    np.testing.assert_array_equal(kept.means_CAD, one.means_CAD[:2])
    assert (kept.exploration, one.exploration) == (0.7, 0.0)
    assert generated.best(one, changed(SETTINGS, {"sweep.top_k": 99})).names_C == one.names_C

    def score(point: dict[str, Any], **members: Any) -> Score:
        made = Trials(DATA, SETTINGS, "replay", situations(DATA, SETTINGS, generates=True), members)
        return next(made.score(point))

    with_member = {features_key(SETTINGS): one}
    plain, joined = score({}), score({}, **with_member)
    assert joined.value > plain.value + 0.02, "features are without the product that tells the kinds apart"
    alone = score({"sweep.top_k": 1}, **with_member)
    assert not np.array_equal(alone.sums_U, joined.sums_U)
    np.testing.assert_array_equal(score({"sweep.top_k": len(one.names_C)}, **with_member).sums_U, joined.sums_U)
