"""Who answers, and what is learned of it: live, shadow, apprentice and off."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.bandits import law, learn
from cluster import config
from cluster.config import ClientMode
from cluster.database import Database, url_of
from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord, Reader
from cluster.keys import Keys
from cluster.registry import DEFAULT_NAME, Registry
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.current import Loaded, load
from serve.ids import seed_of
from serve.messages import DecisionRequest, Mode
from serve.releases import Releases
from serve.replay import replay
from tests import serving
from tests.learner_cases import WAIT_S, World, all_of
from tests.serving import Running

REQUEST = {"user_id": "u1", "context": {"device": "mobile", "hour": 21}, "items": ["i4", "i1", "i9", "i3"], "slots": 2}


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(3, serving.version())


def decided(loaded: Loaded, mode: Mode, decision_id: str = "D1", **fields: Any) -> DecisionRecord:
    engine = Engine(seed=5)
    engine.install(loaded)
    return engine.decide("shop", DecisionRequest.model_validate(REQUEST | fields), decision_id, mode=mode)


def test_off_is_the_callers_choice_alone(loaded: Loaded) -> None:
    record = decided(loaded, "off", baseline_item="i9", exclude=["i1"])
    answer = json.loads(record.answer)
    assert (answer["mode"], answer["version"], record.mode, record.version) == ("off", None, "off", 3)
    slots = [(s["item_id"], s["propensity"], s["score"], s["models"]) for s in answer["slots"]]
    assert slots == [("i9", 1.0, None, {}), ("i4", 1.0, None, {})]
    assert json.loads(record.shadow or "") == {"revision": 0}
    assert (record.evidence, record.agreement) == (None, None)


def test_without_candidates_the_whole_catalogue_is_the_callers(loaded: Loaded) -> None:
    answer = json.loads(decided(loaded, "off", items=None, exclude=["i0"], slots=3).answer)
    assert [slot["item_id"] for slot in answer["slots"]] == ["i1", "i2", "i3"]


@pytest.mark.parametrize("mode", ["shadow", "apprentice"])
def test_beside_the_callers_choice_is_what_the_engine_would_have_answered(loaded: Loaded, mode: Mode) -> None:
    record, live = decided(loaded, mode), json.loads(decided(loaded, "live").answer)
    answer = json.loads(record.answer)
    assert [slot["item_id"] for slot in answer["slots"]] == ["i4", "i1"]
    assert (answer["mode"], answer["version"], record.version, record.epoch) == (mode, None, 3, 1)
    assert json.loads(record.shadow or "")["slots"] == live["slots"]
    assert (record.evidence is None) == (record.agreement is None) == (mode == "shadow")


def test_an_apprentice_learns_the_callers_choice_as_certain(loaded: Loaded) -> None:
    record = decided(loaded, "apprentice", baseline_item="i3")
    known = evidence.unpack(record.evidence or b"")
    assert known.item_ids == ("i3", "i4")
    features = loaded.version.feature_map.features(REQUEST["context"], known.item_ids, "u1")
    for slot in range(2):
        np.testing.assert_allclose(known.phi(slot), features.phi_KD[slot], rtol=1e-12)
        assert (known.item(slot), known.propensity(slot)) == (features.item_K[slot], 1.0)
        assert known.members(slot).tolist() == [0.0] * 4


def test_agreement_is_of_the_first_slot_and_by_the_law(loaded: Loaded) -> None:
    """Over decisions: as often as the law's own first choice is the baseline, and its mean probability."""
    features = loaded.version.feature_map.features(REQUEST["context"], REQUEST["items"], "u1")
    found, expected = [], []
    for n in range(40):
        agreement = decided(loaded, "apprentice", f"A{n}", baseline_item="i9").agreement
        assert agreement is not None
        found.append((agreement.compared, agreement.agreed, agreement.propensity))
        seed = seed_of(f"A{n}", 5)
        pi = law.probabilities(loaded.published, features, None, seed).pi_K[2]
        chosen = law.decide(loaded.published, features, None, seed).slots[0].index
        expected.append((1, int(chosen == 2), pytest.approx(pi, rel=1e-12)))
    assert found == expected
    assert 0 < sum(agreed for _, agreed, _ in found) < 40


@pytest.mark.parametrize("mode", ["live", "shadow", "apprentice", "off"])
def test_a_baseline_item_that_is_not_eligible_is_refused_in_every_mode(loaded: Loaded, mode: Mode) -> None:
    for fields in ({"baseline_item": "i2"}, {"baseline_item": "i9", "exclude": ["i9"]}):
        with pytest.raises(RequestError) as caught:
            decided(loaded, mode, **fields)
        assert caught.value.loc == ("body", "requests", 0, "baseline_item")


def test_an_apprentices_posteriors_learn_and_its_weights_stay(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        world.traffic(30, clients=("shop",))
        learner = world.learner()
        all_of(learner)
        state = learner.state("shop", 1)
        sums, count = state.performance.sums_5M.copy(), state.count
        before = state.statistics["linear"].data_precision_ADD.copy()
        own = decided(load(1, world.versions[1]), "apprentice", "OWN", baseline_item="i9")
        world.journal.decide([own]).result(WAIT_S)
        world.close_windows(len(world.outcomes()) + 2)
        all_of(learner)
        state = learner.state("shop", 1)
        assert state.count == count + 2
        assert np.array_equal(state.performance.sums_5M, sums)
        by_hand = learn.start(world.versions[1].ensemble)
        for row in world.outcomes():
            known = evidence.unpack(row.evidence)
            learn.step(by_hand, known.outcome(row.slot, row.user, row.reward, row.mode == "live"))
        for name, statistics in by_hand.statistics.items():
            assert np.array_equal(state.statistics[name].data_precision_ADD, statistics.data_precision_ADD)
        assert not np.array_equal(state.statistics["linear"].data_precision_ADD, before)
    finally:
        world.journal.close()


def test_a_mode_is_followed_and_agreement_is_shown(home: Path) -> None:
    settings = config.load(serve={"keys_refresh_s": 0.1})
    serving.publish(settings, serving.version())

    async def body() -> None:
        async with serving.running(settings) as r:
            keys, answered = Keys(Database(url_of(settings))), []
            modes: tuple[ClientMode, ...] = ("off", "shadow", "apprentice", "live")
            for mode in modes:
                keys.set_mode("shop", mode)
                await asyncio.sleep(0.15)
                found = await asked(r, 3)
                assert [decision["mode"] for decision in found] == [mode] * 3
                answered += [decision["decision_id"] for decision in found]
            assert (await r.decide(REQUEST, client="other")).json()["decisions"][0]["mode"] == "live"
            reader = Reader(str(settings.home / "journal.db"))
            total = reader.agreements()["shop"]
            assert total.compared == 3
            headers = {"Authorization": f"Bearer {r.operator}"}
            shop = (await r.http.get("/v1/clients/shop", headers=headers)).json()
            assert shop == {
                "client_id": "shop", "mode": "live", "version": None,
                "agreement": {
                    "compared": 3, "agreed": total.agreed / 3, "propensity": pytest.approx(total.propensity / 3)
                },
            }  # fmt: skip
            other = (await r.http.get("/v1/clients/other", headers=headers)).json()
            assert (other["mode"], other["agreement"]) == ("live", None)
            assert (await r.http.get("/v1/clients/nobody", headers=headers)).status_code == 404
            assert (await r.http.get("/v1/clients/shop", headers=r.headers())).status_code == 403
            put = await r.http.put("/v1/items/new", json={"category": "red"}, headers=r.headers())
            assert put.status_code == 200
            keys.set_mode("shop", "shadow")
            await asyncio.sleep(0.15)
            later = (await r.decide({**REQUEST, "items": None})).json()["decisions"][0]["decision_id"]
            load_version = Releases(Registry(settings.registry_uri), DEFAULT_NAME).load
            for decision_id in [*answered, later]:
                again = replay(settings, reader, load_version, decision_id)
                assert again.same, (again.stored, again.again)
            assert replay(settings, reader, load_version, later).again["shadow"]["revision"] == 1
            reader.close()

    asyncio.run(body())


async def asked(r: Running, calls: int) -> list[dict[str, Any]]:
    return [(await r.decide(REQUEST)).json()["decisions"][0] for _ in range(calls)]
