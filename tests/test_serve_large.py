"""Decisions over a large catalogue: a part is scored, and what is promised holds for all of it."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits import law
from actors.bandits.members import Shared
from actors.bandits.version import Version
from benchmarks._catalogues import synthetic_items
from cluster.config import ClientMode
from cluster.journal.journal import DecisionRecord
from serve.decide import Engine
from serve.decisions import catalogue as catalogues
from serve.decisions import evidence
from serve.decisions.catalogue import Large
from serve.decisions.current import Loaded, load
from serve.decisions.shelf import Shelf
from serve.ids import seed_of
from serve.messages import DecisionRequest
from tests import serving

ITEMS, LARGE = 3_000, Large(1_000, 24)
BODY = json.dumps({"title": "a red thing", "category": "red", "price": 1.5})


def of_size(items: int, seed: int = 0) -> Version:
    made = serving.version(seed=seed)
    table = synthetic_items(items, 0)
    return Version(made.feature_map.with_items(table), made.ensemble, table, made.facts)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(1, of_size(ITEMS), LARGE)


def engine_of(loaded: Loaded) -> Engine:
    engine = Engine(seed=5)
    engine.install(loaded)
    return engine


def decide(engine: Engine, decision_id: str = "D1", mode: ClientMode = "live", **fields: Any) -> DecisionRecord:
    request = DecisionRequest.model_validate({"context": {"device": "mobile", "hour": 3}, "user_id": "u1"} | fields)
    return engine.decide("shop", request, decision_id, mode=mode)


def part_of(record: DecisionRecord) -> list[int]:
    assert record.evidence is not None
    text = evidence.unpack(record.evidence).part
    assert text is not None
    return evidence.unpack_part(text).tolist()


def test_propensities_are_of_the_law_on_the_part_that_is_kept(loaded: Loaded) -> None:
    """From the journal's part alone: π by `law.probabilities` on it, half of its ε moved to all that is eligible."""
    engine, feature_map = engine_of(loaded), loaded.version.feature_map
    eligible, half, inside = ITEMS - 2, loaded.published.law.epsilon / 2, 0
    for n in range(40):
        record = decide(engine, f"D{n}", exclude=["big-7", "big-8", "never"])
        rows, context = part_of(record), {"device": "mobile", "hour": 3}
        assert 24 <= len(rows) < 400
        assert not {7, 8} & set(rows)
        slot = json.loads(record.answer)["slots"][0]
        row = int(slot["item_id"].removeprefix("big-"))
        expected = half / eligible
        if row in rows:
            features = feature_map.features(context, [feature_map.item_ids[r] for r in rows], "u1")
            pi_K = law.probabilities(loaded.published, features, None, seed_of(f"D{n}", 5)).pi_K
            expected, inside = pi_K[rows.index(row)] - half / len(rows) + half / eligible, inside + 1
        assert slot["propensity"] == pytest.approx(expected, abs=1e-12)
    assert inside > 30


def test_items_beyond_the_part_are_shown_as_often_as_promised() -> None:
    """ε = 0.9 over 60 items of which a few are scored, 800 decisions: the others' count has the mean and variance
    of its propensities; a z-test at 0.001."""
    made = of_size(60)
    ensemble = replace(made.ensemble, law=made.ensemble.law.model_copy(update={"epsilon": 0.9}))
    loaded = load(1, replace(made, ensemble=ensemble), Large(10, 4))
    engine = engine_of(loaded)
    excess = variance = 0.0
    shown: Counter[str] = Counter()
    for n in range(800):
        record = decide(engine, f"B{n}", exclude=["big-3"])
        rows, slot = part_of(record), json.loads(record.answer)["slots"][0]
        beyond = int(slot["item_id"].removeprefix("big-")) not in rows
        chance = 0.45 * (59 - len(rows)) / 59
        assert not beyond or slot["propensity"] == pytest.approx(0.45 / 59)
        shown[slot["item_id"]] += 1
        excess, variance = excess + beyond - chance, variance + chance * (1 - chance)
    assert abs(excess) < 3.29 * variance**0.5
    assert len(shown) > 54  # each is shown six times or more on average
    assert "big-3" not in shown


def test_a_catalogue_that_is_not_large_is_scored_whole(loaded: Loaded) -> None:
    few = decide(engine_of(load(1, of_size(1_000), LARGE)))
    assert few.evidence is not None
    assert evidence.unpack(few.evidence).part is None
    engine = engine_of(loaded)
    given = decide(engine, items=["big-1", "big-5"])
    assert given.evidence is not None
    assert evidence.unpack(given.evidence).part is None
    most = decide(engine, exclude=[f"big-{n}" for n in range(2_001)])
    assert most.evidence is not None
    assert evidence.unpack(most.evidence).part is None
    assert json.loads(most.answer)["slots"][0]["item_id"] >= "big-2001"


def test_changes_are_followed_without_a_new_index(loaded: Loaded) -> None:
    engine = engine_of(loaded)
    first = [slot["item_id"] for slot in json.loads(decide(engine, "C1", slots=5).answer)["slots"]]
    for revision, item in enumerate(first, 1):
        engine.change("shop", item, None, revision)
    engine.change("shop", "new", BODY, 6)
    engine.rebuild("shop")
    engine.change("shop", "newer", BODY, 7)
    engine.rebuild("shop")
    for n in range(20):
        record = decide(engine, f"C{n}", slots=5)
        assert not set(first) & {slot["item_id"] for slot in json.loads(record.answer)["slots"]}
        known = evidence.unpack(record.evidence or b"")
        assert known.revision == 7
        assert max(part_of(record)) < ITEMS - 5 + 2
    ids = engine.item_ids("shop")
    assert (len(ids), ids[-2:]) == (ITEMS - 5 + 2, ("new", "newer"))
    assert loaded.catalogue.ids == loaded.version.feature_map.item_ids
    current = engine.current("shop")
    assert current is not None
    assert current.catalogue.retrieval is not None
    assert loaded.catalogue.retrieval is not None
    assert current.catalogue.retrieval.index.file is loaded.catalogue.retrieval.index.file  # type: ignore[union-attr]


def test_a_client_s_own_items_can_make_a_catalogue_large() -> None:
    engine = engine_of(load(1, of_size(30), Large(40, 4)))
    for n in range(20):
        engine.change("shop", f"own-{n}", BODY, n + 1)
    engine.rebuild("shop")
    assert len(part_of(decide(engine))) < 50


def test_with_parameters_per_item_the_best_by_mean_and_by_bound_are_scored() -> None:
    """60 arms, by brute force over them all: the two best by every model's mean and by mean + 2 deviations."""
    made = serving.version(kind="arms", items=60)
    loaded = load(1, made, Large(20, 8))
    rows = part_of(decide(engine_of(loaded), context={"device": "mobile", "hour": 3}))
    assert len(rows) < 40
    features = made.feature_map.features({"device": "mobile", "hour": 3}, made.feature_map.item_ids, "u1")
    for member in loaded.published.members:
        if isinstance(member, Shared):
            phi_KD = np.ones((60, 1)) if member.view == "items" else features.phi_KD
            means = [phi_KD[k] @ member.posterior.mean_AD[k] for k in range(60)]
            spreads = [np.linalg.norm(member.posterior.factor_ADD[k].T @ phi_KD[k]) for k in range(60)]
            for score in (means, np.array(means) + 2 * np.array(spreads)):
                assert set(np.argsort(score)[-2:].tolist()) <= set(rows)


@pytest.mark.parametrize("mode", ["shadow", "apprentice"])
def test_beside_a_baseline_the_part_is_kept_too(loaded: Loaded, mode: ClientMode) -> None:
    record = decide(engine_of(loaded), "S1", mode, baseline_item="big-2999", slots=2)
    assert [slot["item_id"] for slot in json.loads(record.answer)["slots"]] == ["big-2999", "big-0"]
    beside = json.loads(record.shadow or "")
    live = decide(engine_of(loaded), "S1", slots=2)
    assert evidence.unpack_part(beside["part"]).tolist() == part_of(live)
    assert [slot["item_id"] for slot in beside["slots"]] == [
        slot["item_id"] for slot in json.loads(live.answer)["slots"]
    ]
    if mode == "apprentice":
        assert record.agreement is not None
        if 2_999 not in part_of(live):
            assert record.agreement.propensity == pytest.approx(0.005 / ITEMS)
        assert evidence.unpack(record.evidence or b"").item_ids == ("big-2999", "big-0")


@settings(deadline=None, max_examples=60)
@given(
    st.sets(st.integers(0, 19)),
    st.sets(st.integers(0, 19), max_size=6),
    st.none() | st.sets(st.integers(0, 19)),
    st.data(),
)
def test_a_shelf_is_its_names(closed: set[int], gone: set[int], passed: set[int] | None, data: st.DataObject) -> None:
    """Against a plain list."""
    base = catalogues.of_version(SMALL.feature_map, SMALL.items)
    catalogue = catalogues.changed(base, {f"big-{n}": None for n in gone}, 1) if gone else base
    passed_I = None if passed is None else np.isin(np.arange(20), list(passed))
    shelf = Shelf(catalogue, [f"big-{n}" for n in closed] + ["never"], passed_I)
    kept = set(range(20)) if passed is None else passed
    names = [f"big-{n}" for n in sorted(kept - closed - gone)]
    assert list(shelf) == shelf[:] == names
    assert len(shelf) == len(names)
    assert [f"big-{n}" in shelf for n in range(21)] == [f"big-{n}" in names for n in range(21)]
    inside = sorted(data.draw(st.sets(st.sampled_from(shelf.rows.tolist())))) if names else []
    rest = [row for row in shelf.rows.tolist() if row not in inside]
    assert shelf.beyond(np.array(inside, np.int64), range(len(rest))).tolist() == rest


SMALL = of_size(20)


@given(st.sets(st.integers(0, 2**31 - 1)))
def test_a_part_is_kept_exactly(ranks: set[int]) -> None:
    assert evidence.unpack_part(evidence.pack_part(np.array(sorted(ranks), np.int64))).tolist() == sorted(ranks)
