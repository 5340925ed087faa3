"""Codes of a trail are those that serving asks for: of each user's first context."""

from dataclasses import replace

import numpy as np

from actors.generator.tasks import contexts
from cluster.config import changed
from tests.compose_cases import proposed
from tune.codes import told
from tune.walk import Trail, walk


def test_each_users_first_context_has_the_code_that_the_model_reads() -> None:
    case = proposed()
    work, generator, rows = case.work, case.proposal.generator, np.sort(case.work.split.select)
    trail = Trail.of(work.feature_map, work.events(rows), work.settings.reward, 0)
    batch = told(trail, work, rows, generator).batch
    assert batch.code_BH is not None
    seen: set[str | None] = set()
    for n, user in enumerate(trail.users_N):
        code_H = batch.row(n).code_H
        if user in seen:
            assert code_H is None
        else:
            text = generator.serialiser.text(contexts(work.dataset, rows[n : n + 1])[0])
            assert "badge=" in text
            np.testing.assert_allclose(code_H, generator.text_codes([text])[0], atol=1e-4)
        seen.add(user)
    part = batch.take(np.array([4, 0]))
    assert part.code_BH is not None
    assert np.array_equal(part.code_BH, batch.code_BH[[4, 0]], equal_nan=True)


def test_a_walk_decides_for_unknown_users_by_these_codes() -> None:
    """And only for them: what differs from the encoder's walk are first events of users."""
    case = proposed()
    work, member = case.work, case.proposal.member
    assert member is not None
    assert member.decoder is not None
    trail = case.trail.first(300)
    heard = told(trail, work, work.split.select, case.proposal.generator)
    one, two = (walk(work.ensemble(member), each, 0).value_NM[:, 0] for each in (trail, heard))
    first = [n for n, user in enumerate(trail.users_N) if user not in trail.users_N[:n]]
    assert set(np.flatnonzero(one != two)) <= set(first)
    assert (one != two).any()


def test_some_users_are_read_and_none_without_a_language_model() -> None:
    case = proposed()
    work, generator = case.work, case.proposal.generator
    few = replace(work, settings=changed(work.settings, {"generator.tasks": 3}))
    trail = case.trail.first(40)
    found = told(trail, few, work.split.select, generator).batch.code_BH
    assert found is not None
    assert np.isfinite(found).all(1).sum() == 3
    assert told(trail, work, work.split.select, replace(generator, backbone=None)) is trail
    nobody = replace(trail, users_N=(None,) * len(trail.users_N))
    assert told(nobody, work, work.split.select, generator) is nobody
