"""From a log to a member: variants are chosen by their walks, shifts move with the pooled posterior."""

import io
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from actors.bandits import pooled
from actors.bandits.posterior import gaussian
from cluster.config import changed
from tests.compose_cases import Proposed, proposed, quick, two_kinds
from tune.evaluate import select
from tune.groundwork import Groundwork
from tune.proposal import TEMPERATURES, best, forget, ground_of, train, tuned
from tune.stages import Stages
from tune.walk import walk


@pytest.fixture(scope="module")
def case() -> Proposed:
    return proposed()


def worth(case: Proposed, variant: object) -> float:
    """A variant's value per event along the select part, walked by itself."""
    walked = walk(case.work.ensemble(variant), case.trail, case.work.settings.seed)  # type: ignore[arg-type]
    return float(walked.value_NM.mean())


def test_the_member_is_the_best_candidates_of_the_sweep(case: Proposed) -> None:
    proposal = case.proposal
    assert proposal.member is not None
    assert proposal.member.names_C == tuple(proposal.chosen)
    assert len(proposal.chosen) > 1
    assert [row.candidate for row in proposal.rows] == ["p0z0", "p0z1", "p1z0", "p1z1", "p2z0", "p2z1"]
    whole = replace(proposal.member, name="candidates")
    rows = [row for row in proposal.rows if row.candidate in proposal.chosen]
    order = [whole.names_C.index(row.candidate) for row in rows]
    whole = replace(
        whole,
        means_CAD=whole.means_CAD[order],
        ranks_CADR=whole.ranks_CADR[order],
        prototypes_CH=whole.prototypes_CH[order],
        names_C=tuple(row.candidate for row in rows),
    )
    ground = ground_of(case.trail, case.base, 64)
    settings = case.work.settings.sweep
    assert select(rows, whole, ground, settings.top_k, settings.max_agreement) == proposal.chosen


def test_tuned_takes_the_temperature_of_greatest_value(case: Proposed) -> None:
    member = case.proposal.member
    assert member is not None
    with Stages(None).stage("sweep", 600) as stage:
        found = tuned(member, case.work, case.trail, stage)
    cold = [replace(member, temperature=t, exploration=0.0) for t in TEMPERATURES]
    values = [worth(case, variant) for variant in cold]
    assert found.temperature == TEMPERATURES[int(np.argmax(values))]
    assert found.exploration == case.work.settings.generator.exploration
    assert (member.temperature, member.exploration) == (found.temperature, found.exploration)


def test_best_tells_a_prior_from_its_opposite(case: Proposed) -> None:
    """Users of one kind wrongly taken for the other: the truth must win wherever it stands."""
    member = case.proposal.member
    assert member is not None
    base = case.proposal.generator.mean_AD
    opposite = replace(member, means_CAD=base - (member.means_CAD - base))
    with Stages(None).stage("sweep", 600) as stage:
        assert best([opposite, member], case.work, case.trail, stage) is member
        assert best([member, opposite], case.work, case.trail, stage) is member
        assert best([member, replace(member)], case.work, case.trail, stage) is member


def test_rebased_means_move_by_the_pooled_posteriors_own_move(case: Proposed) -> None:
    proposal, work = case.proposal, case.work
    assert proposal.member is not None
    same = proposal.rebased(work.predefined.linear)
    np.testing.assert_allclose(same.means_CAD, proposal.member.means_CAD, atol=1e-12)
    newer = work.fitted(np.concatenate([work.split.fit, work.split.stop, work.split.select])).linear
    moved = proposal.rebased(newer)
    scale = proposal.generator.head.mean_scale.item()
    old, new = (np.linalg.solve(p.precision_ADD[0], p.shift_AD[0]) for p in (work.predefined.linear, newer))
    assert np.abs(new - old).max() > 1e-3
    expected = proposal.member.means_CAD + scale * (new - old)
    np.testing.assert_allclose(moved.means_CAD, expected, atol=1e-9)
    np.testing.assert_array_equal(moved.ranks_CADR, proposal.member.ranks_CADR)
    np.testing.assert_array_equal(moved.factor_ADD, proposal.member.factor_ADD)


def test_the_generators_base_is_the_scaled_pooled_posterior_of_fit(case: Proposed) -> None:
    work, generator = case.work, case.proposal.generator
    d = work.predefined.design
    again = pooled.fit(d.phi_ND, d.arm_N, d.reward_N, work.feature_map.arms)
    mean_AD = gaussian(again.precision_ADD, again.shift_AD).mean_AD
    np.testing.assert_allclose(generator.mean_AD, generator.head.mean_scale.item() * mean_AD, atol=1e-9)


def test_a_run_that_was_killed_goes_on_with_its_language_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = changed(quick(tmp_path), {"generator.tokens": 2})
    work, said = Groundwork.of(two_kinds(users=80), own), io.StringIO()
    stages = Stages(tmp_path / "run" / "compose.json", Console(file=said, width=200))
    one = train(work, stages, None, None)
    assert (tmp_path / "run" / "training" / "language_model").exists()
    with caplog.at_level(logging.WARNING):
        two = train(work, stages, None, None)
    assert "going on from step 4 of" in caplog.text
    assert one.backbone is not None
    assert two.backbone is not None
    texts = ["badge=ember hour=3", "badge=frost"]
    np.testing.assert_array_equal(one.backbone.embed(texts), two.backbone.embed(texts))
    for name, value in one.head.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), two.head.state_dict()[name].numpy(), err_msg=name)
    assert re.search(r"language model: 4 steps at [\d,]+ tokens/s; held-out loss \d\.\d+ -> ", said.getvalue())
    assert re.search(r"\d+% of contexts are longer than generator.tokens = 2: their ends are cut off", said.getvalue())
    assert re.search(r"head: \d+ steps; held-out loss ", said.getvalue())
    forget(stages)
    assert not (tmp_path / "run" / "training").exists()
