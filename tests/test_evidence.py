"""What the journal keeps of a decision: its bytes without kin as ever, and to the bit what was known with it."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.bandits.law import Slot
from actors.bandits.learn import Outcome
from actors.features.features import Features
from cluster.errors import JournalError
from serve.decisions import evidence
from tests import bandit_cases as cases


def test_without_kin_the_bytes_are_those_of_older_journals() -> None:
    """Digests of what Medley wrote before items had kin; no number here depends on a machine's rounding."""
    phi_KD = (np.arange(12.0).reshape(4, 3) - 5) / 8
    arm_K, item_K, key_K = np.array([0, 2, -1, 1]), np.array([3, 2, -1, 1]), np.arange(4).astype(np.uint64)
    features = Features(phi_KD, arm_K, item_K, key_K, np.array([0.5]))
    slots = [
        Slot(index, 0.25, share, False, np.array([share, 0.5, 0.125]), np.array([0.0, 0.75, 0.25]), {})
        for index, share in ((2, 0.5), (0, 0.0625))
    ]
    plain = evidence.pack(features, slots, ["c", "ä"], 7)
    read = replace(features, code_H=np.array([0.5, -2.0]))
    whole = evidence.pack(read, slots, ["c", "ä"], 7, "part", {"y", "x"}, True)
    digests = [hashlib.sha256(data).hexdigest() for data in (plain, whole)]
    assert digests == [
        "c8d63781517a0d8bcacbfe21069ad9e3e1dd8be501906c1d266a50354f747d52",
        "390d63cd3c367a64608f0d7d886a366adb907d8f0bcfbfc393ece076ba6bff75",
    ]
    assert evidence.unpack(plain).kin is None
    outcome = evidence.unpack(plain).outcome(1, "u", 1.0, asked=True)
    assert (outcome.provider, outcome.cluster, outcome.member_means_M) == (-1, -1, None)


def slots_of(rng: np.random.Generator, indices: list[int], members: int) -> list[Slot]:
    return [
        Slot(index, 0.5, float(rng.uniform(0.1, 1)), False, rng.random(members), rng.normal(size=members), {})
        for index in indices
    ]


@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 5), st.booleans())
def test_what_is_learned_from_the_journal_is_what_was_decided(
    seed: int, indices: list[int], members: int, asked: bool
) -> None:
    """To the bit, with and beside all else that may be kept."""
    rng = np.random.default_rng(seed)
    features = replace(cases.features(rng, 7, 4), kin=cases.kin(rng, 7))
    slots = slots_of(rng, indices, members)
    more = {"part": "p" if seed % 2 else None, "seen": {"a"} if seed % 3 else (), "forgotten": seed % 5 == 0}
    known = evidence.unpack(evidence.pack(features, slots, [str(index) for index in indices], seed, **more))
    assert (known.revision, known.part, known.forgotten) == (seed, more["part"], more["forgotten"])
    for place, slot in enumerate(slots):
        found = known.outcome(place, "u", 0.25, asked)
        expected = Outcome.of(
            features,
            slot.index,
            user="u",
            reward=0.25,
            propensity=slot.propensity,
            member_propensities_M=slot.member_propensities_M if asked else None,
            member_means_M=slot.member_means_M,
        )
        for name, value in vars(expected).items():
            assert np.array_equal(vars(found)[name], value), name
            assert type(vars(found)[name]) is type(value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda kin: {**kin, "provider": kin["provider"][:1]},
        lambda kin: {**kin, "cluster": None},
        lambda kin: {**kin, "means": kin["means"][:-5]},
        lambda kin: {**kin, "means": "\x7f"},
        lambda kin: {"provider": kin["provider"]},
        lambda kin: [],
    ],
)
def test_damaged_kin_is_refused(damage: object) -> None:
    rng = np.random.default_rng(0)
    features = replace(cases.features(rng, 3, 4), kin=cases.kin(rng, 3))
    data = evidence.pack(features, slots_of(rng, [0, 2], 3), ["a", "b"], 1)
    start = data.index(b'{"ids"')
    names = json.loads(data[start:])
    names["kin"] = damage(names["kin"])  # type: ignore[operator]
    with pytest.raises(JournalError, match="not readable"):
        evidence.unpack(data[:start] + json.dumps(names).encode())
