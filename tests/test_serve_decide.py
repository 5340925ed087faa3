"""The decision engine against the law itself and against hand-made cases."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.bandits import law, learn
from actors.bandits.ensemble import Admission
from actors.bandits.history import History
from actors.features.feature_map import FeatureMap
from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord
from serve.decide import Engine, Load
from serve.decisions import evidence
from serve.decisions.asked import Asked
from serve.decisions.current import Loaded, Update, load
from serve.decisions.pace import Pace
from serve.ids import seed_of
from serve.messages import DecisionRequest
from tests import serving


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(3, serving.version())


@pytest.fixture
def engine(loaded: Loaded) -> Engine:
    made = Engine(seed=5)
    made.install(loaded)
    return made


def ask(
    engine: Engine, decision_id: str = "D1", client: str = "shop", **fields: Any
) -> tuple[dict[str, Any], DecisionRecord]:
    record = engine.decide(client, DecisionRequest.model_validate(fields), decision_id)
    return json.loads(record.answer), record


def refusal(engine: Engine, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        ask(engine, **fields)
    return caught.value


def test_the_answer_is_the_laws(engine: Engine, loaded: Loaded) -> None:
    context = {"device": "mobile", "hour": 21}
    items = ["i4", "i1", "i9", "i3"]
    answer, record = ask(engine, user_id="u1", context=context, items=items, slots=2)
    features = loaded.version.feature_map.features(context, items, "u1")
    expected = law.decide(loaded.published, features, None, seed_of("D1", 5), 2)
    assert answer["decision_id"] == "D1"
    assert (answer["version"], answer["mode"]) == (3, "live")
    for slot, wanted in zip(answer["slots"], expected.slots, strict=True):
        assert slot["item_id"] == items[wanted.index]
        assert slot["propensity"] == pytest.approx(wanted.propensity, rel=1e-12)
        assert slot["score"] == pytest.approx(wanted.score, rel=1e-12)
        assert slot["explored"] == wanted.explored
        assert sum(slot["models"].values()) == pytest.approx(1.0)
    assert (record.version, record.epoch, record.slots, record.user) == (3, 1, 2, "u1")


def test_the_evidence_is_what_the_learner_needs(engine: Engine, loaded: Loaded) -> None:
    answer, record = ask(engine, context={"device": "mobile"}, items=["i2", "i7"], slots=2)
    assert record.evidence is not None
    known = evidence.unpack(record.evidence)
    assert known.item_ids == tuple(slot["item_id"] for slot in answer["slots"])
    features = loaded.version.feature_map.features({"device": "mobile"}, ["i2", "i7"], None)
    for n, slot in enumerate(answer["slots"]):
        place = ["i2", "i7"].index(slot["item_id"])
        assert np.array_equal(known.phi(n), features.phi_KD[place])
        assert known.item(n) == features.item_K[place]
        assert known.arm(n) == 0
        assert known.propensity(n) == slot["propensity"]
        assert known.members(n).shape == (4,)


def test_the_same_id_gives_the_same_answer_and_another_another(engine: Engine) -> None:
    fields = {"context": {"device": "mobile"}, "slots": 3}
    assert ask(engine, "A", **fields)[1] == ask(engine, "A", **fields)[1]
    chosen = {tuple(s["item_id"] for s in ask(engine, f"A{n}", **fields)[0]["slots"]) for n in range(30)}
    assert len(chosen) > 3


def test_propensities_are_the_frequencies(engine: Engine) -> None:
    """Mean logged propensity of an item over seeds is the rate at which it is chosen (4 standard errors)."""
    fields = {"context": {"device": "mobile", "hour": 3}, "items": ["i0", "i1", "i3"]}
    chosen, given = [], []
    for n in range(1_500):
        answer, record = ask(engine, f"P{n}", **fields)
        assert record.evidence is not None
        slot = answer["slots"][0]
        chosen.append(slot["item_id"] == "i0")
        given.append(1.0 / slot["propensity"] if slot["item_id"] == "i0" else 0.0)
    assert np.mean(given) == pytest.approx(1.0, abs=4 * np.std(given) / np.sqrt(len(given)))
    assert 0.1 < np.mean(chosen) < 0.98


def test_exclude_and_the_whole_catalogue(engine: Engine) -> None:
    everything = [f"i{n}" for n in range(12)]
    answer, _ = ask(engine, exclude=everything[2:], slots=2)
    assert {slot["item_id"] for slot in answer["slots"]} == {"i0", "i1"}
    assert refusal(engine, exclude=everything).loc == ("body", "requests", 0, "slots")


def test_refusals_name_the_field(engine: Engine) -> None:
    unknown = refusal(engine, items=["i1", "nothing"])
    assert unknown.loc == ("body", "requests", 0, "items", 1)
    assert "'nothing'" in unknown.message
    assert refusal(engine, items=["i1", "i2", "i1"]).loc[-2:] == ("items", 2)
    assert refusal(engine, items=["i1"], slots=2).loc[-1] == "slots"
    small = Engine(max_items=2)
    assert refusal(small, items=["a", "b", "c"]).loc[-1] == "items"


def test_reasons_are_the_greatest_contributions(engine: Engine, loaded: Loaded) -> None:
    context = {"device": "desktop", "hour": 9}
    answer, _ = ask(engine, context=context, items=["i5"])
    published = loaded.published
    shares = dict(zip(published.names, published.weights_M, strict=True))
    scored = sum(share for name, share in shares.items() if name != "uniform")
    phi_D = loaded.version.feature_map.features(context, ["i5"], None).phi_KD[0]
    sums = np.zeros(len(phi_D))
    for member in published.members:
        if member.name in ("linear", "forgetting"):
            sums += shares[member.name] / scored * member.posterior.mean_AD[0] * phi_D  # type: ignore[union-attr]
    sums[0] = 0.0
    order = np.argsort(-np.abs(sums))[:3]
    reasons = answer["slots"][0]["reasons"]
    assert [r["feature"] for r in reasons] == [loaded.version.feature_map.names[d] for d in order]
    assert [r["contribution"] for r in reasons] == pytest.approx(sums[order].tolist())


def test_contributions_of_the_models_sum_to_the_score() -> None:
    """Rewards in [1, 5]: by hand, the weight of a model among those with scores times its own mean, scaled."""
    made = serving.version()
    loaded = load(3, replace(made, ensemble=replace(made.ensemble, low=1.0, high=5.0)))
    engine = Engine(seed=5)
    engine.install(loaded)
    context = {"device": "desktop", "hour": 9}
    published, features = loaded.published, loaded.version.feature_map.features(context, ["i5", "i2"], None)
    for slot in ask(engine, context=context, items=["i5", "i2"], slots=2)[0]["slots"]:
        place, found = ["i5", "i2"].index(slot["item_id"]), slot["contributions"]
        weights = {
            m.name: w for m, w in zip(published.members, published.weights_M, strict=True) if m.name != "uniform"
        }
        for member in published.members[2:]:
            mean = features.phi_KD[place] @ member.posterior.mean_AD[0]  # type: ignore[union-attr]
            share = weights[member.name] / sum(weights.values())
            assert found[member.name] == pytest.approx(4.0 * share * mean, rel=1e-6, abs=1e-9)
        assert found["uniform"] == 0.0
        assert 1.0 + sum(found.values()) == pytest.approx(slot["score"], rel=1e-6)


def test_without_a_version_the_callers_choice_is_answered() -> None:
    engine = Engine()
    answer, record = ask(engine, items=["b", "a", "c"], exclude=["b"], slots=2, baseline_item="c")
    assert (answer["mode"], answer["version"]) == ("baseline", None)
    assert [(s["item_id"], s["propensity"], s["score"]) for s in answer["slots"]] == [
        ("c", 1.0, None),
        ("a", 1.0, None),
    ]
    assert record.evidence is None
    assert ask(engine, items=["b", "a"])[0]["slots"][0]["item_id"] == "b"
    assert refusal(engine).loc[-1] == "items"
    assert refusal(engine, items=["a"], baseline_item="z").loc[-1] == "baseline_item"


def update(loaded: Loaded, client: str = "shop", number: int = 3, **histories: History) -> Update:
    """As a learner would publish after one outcome."""
    state = learn.start(loaded.version.ensemble)
    learn.publish(state)
    phi_D = loaded.version.feature_map.features({"device": "mobile"}, ["i0"], None).phi_KD[0]
    learn.step(state, learn.Outcome("u1", phi_D, 0, 0, 1.0, 0.5, np.full(4, 0.5)))
    made = learn.publish(state)
    members = {m.name: m for m in made.members if m.name != "uniform"}
    return Update(client, number, made.epoch, members, made.weights_M, made.alternatives_M, histories)


def test_a_publication_decides_for_its_client_alone(engine: Engine, loaded: Loaded) -> None:
    before, _ = ask(engine, items=["i0"], context={"device": "mobile"})
    engine.publish(update(loaded))
    after, record = ask(engine, items=["i0"], context={"device": "mobile"})
    other, _ = ask(engine, client="other", items=["i0"], context={"device": "mobile"})
    assert record.epoch == 2
    assert after["slots"][0]["score"] > before["slots"][0]["score"]
    assert other["slots"][0]["score"] == before["slots"][0]["score"]


def test_a_publication_of_a_version_to_come_waits_for_it(engine: Engine, loaded: Loaded) -> None:
    engine.publish(update(loaded, number=4))
    assert ask(engine, items=["i0"])[1].epoch == 1
    engine.install(load(4, loaded.version))
    assert ask(engine, items=["i0"])[1].epoch == 2
    assert ask(engine, client="other", items=["i0"])[1].epoch == 1


def test_items_put_and_deleted_are_one_clients(engine: Engine) -> None:
    engine.change("shop", "new", json.dumps({"title": "a red thing", "category": "red", "price": 2.0}), 1)
    engine.change("shop", "i0", None, 2)
    engine.rebuild("shop")
    assert "new" in engine.item_ids("shop")
    assert "i0" not in engine.item_ids("shop")
    assert engine.item("shop", "i0") is None
    assert engine.item("shop", "new") == {"title": "a red thing", "category": "red", "price": 2.0}
    assert engine.item("shop", "i1") == engine.item("other", "i1")
    assert ask(engine, items=["new"])[0]["slots"][0]["item_id"] == "new"
    assert refusal(engine, items=["i0"]).loc[-2:] == ("items", 0)
    assert ask(engine, client="other", items=["i0"])[0]["slots"][0]["item_id"] == "i0"
    engine.change("shop", "i0", "{}", 1)  # an older change that comes late
    engine.rebuild("shop")
    assert "i0" not in engine.item_ids("shop")


def test_changes_outlive_a_new_version(engine: Engine, loaded: Loaded) -> None:
    engine.change("shop", "new", "{}", 7)
    engine.rebuild("shop")
    engine.install(load(4, loaded.version))
    answer, record = ask(engine, items=["new"])
    assert (answer["version"], answer["slots"][0]["item_id"]) == (4, "new")
    assert record.evidence is not None
    assert evidence.unpack(record.evidence).revision == 7


def history(rows: int, dimension: int = 4) -> History:
    return History(np.ones((rows, dimension)), np.zeros(rows, np.int64), np.ones(rows))


def test_cut_evidence_is_refused(engine: Engine) -> None:
    _, record = ask(engine)
    assert record.evidence is not None
    for damaged in (b"", record.evidence[:10], record.evidence[:-1], b"XXXX" + record.evidence[4:]):
        with pytest.raises(Exception, match="not readable"):
            evidence.unpack(damaged)


def admitted_at_other(number: int) -> Loaded:
    """A version whose `forgetting` decides for the client `other` alone."""
    made = serving.version()
    admissions = {"forgetting": Admission(False, {"other": True})}
    return load(number, replace(made, ensemble=replace(made.ensemble, admissions=admissions)))


def test_a_member_that_a_client_did_not_admit_has_no_say_there(engine: Engine) -> None:
    plain = ask(engine, client="other", context={"device": "mobile"})[0]
    ask(engine, client="shop", context={"device": "mobile"})
    some = admitted_at_other(4)
    engine.install(some)
    names = ("uniform", "popularity", "linear", "forgetting")
    for client, members in (("shop", names[:3]), ("other", names), ("new", names[:3])):
        answer, record = ask(engine, client=client, context={"device": "mobile"})
        assert tuple(answer["slots"][0]["models"]) == members
        assert len(evidence.unpack(record.evidence).members(0)) == len(members)
    answer = ask(engine, client="other", context={"device": "mobile"})[0]
    assert answer["slots"] == plain["slots"]
    assert some.of("shop") is some.of("new")
    assert some.of("other") is some
    features = some.version.feature_map.features({"device": "mobile"}, engine.item_ids("shop"), None)
    alone = learn.publish(learn.start(some.version.ensemble.only(*names[:3])))
    expected = law.decide(alone, features, None, seed_of("D1", 5)).slots[0]
    found = ask(engine, client="shop", context={"device": "mobile"})[0]["slots"][0]
    assert (found["propensity"], found["score"]) == (expected.propensity, pytest.approx(expected.score))


@pytest.mark.parametrize("mode", ["live", "shadow"])
def test_a_decision_without_a_history_that_was_dropped_is_made_again_without_it(loaded: Loaded, mode: Any) -> None:
    small, roomy = Engine(seed=5, history_bytes=3_000), Engine(seed=5)
    dimension = loaded.version.feature_map.dimension
    for engine in (small, roomy):
        engine.install(loaded)
        assert not engine.histories.short
        engine.publish(update(loaded, u1=history(2, dimension), u2=history(2, dimension)))
    assert (small.histories.short, roomy.histories.short) == ({3}, set())
    request = DecisionRequest.model_validate({"user_id": "u1", "context": {"device": "mobile"}})
    record = small.decide("shop", request, "D1", mode=mode)
    kept = evidence.unpack(record.evidence).forgotten if record.evidence else json.loads(record.shadow)["forgotten"]
    assert kept
    assert roomy.decide("shop", request, "D1", mode=mode, forgotten=True) == record
    assert roomy.decide("shop", request, "D1", mode=mode) != record
    known = small.decide("shop", request.model_copy(update={"user_id": "u2"}), "D1")
    assert not evidence.unpack(known.evidence).forgotten


def test_what_a_call_of_few_slots_took_says_nothing_of_many(engine: Engine) -> None:
    def load_of(*slots: int) -> Load:
        found = engine.load("shop", [DecisionRequest(slots=number) for number in slots])
        assert found is not None
        return found

    pace, few = Pace(), load_of(1, 1)
    pace.took(few.who, few.items, 0.1)
    for slots, way in (((1, 1), "here"), ((1, 8), "beside"), ((8,), "beside")):
        assert pace.way(load_of(*slots).who, load_of(*slots).items, len(slots), 250) == way
    assert load_of(1, 8) == load_of(12) != load_of(16)


@pytest.mark.parametrize("mode", ["live", "shadow", "apprentice", "off"])
def test_requests_that_are_decided_together_are_decided_as_alone(engine: Engine, mode: Any) -> None:
    """Bit by bit, whatever the others ask; who is refused gets the error, and none of the others does."""
    requests: list[dict[str, Any]] = [
        {"user_id": "u1", "context": {"device": "mobile", "hour": 21}},
        {"items": ["i4", "i1", "i9", "i3"], "slots": 2},
        {"items": ["nothing"]},
        {"user_id": "u2", "context": {"hour": 3}, "slots": 3},
        {"exclude": ["i0", "i5"], "baseline_item": "i7"},
        {"slots": 99},
    ]
    asked = [
        Asked(client, DecisionRequest.model_validate(request), f"D{i}", i, mode, seen=("i2",) if i == 3 else ())
        for client in ("shop", "other")
        for i, request in enumerate(requests)
    ]
    found = engine.decide_all(asked)
    for one, together in zip(asked, found, strict=True):
        alone = engine.decide_all([one])[0]
        if isinstance(alone, RequestError):
            assert isinstance(together, RequestError)
            assert (together.loc, together.message) == (alone.loc, alone.message)
        else:
            assert together == alone
    assert [isinstance(one, RequestError) for one in found] == [False, False, True, False, False, True] * 2


class Touchy:
    """A feature map that has no features for user u1."""

    def __init__(self, whole: FeatureMap) -> None:
        self._whole = whole

    def features_many(self, situations: Any, items: Any, rows_K: Any = None) -> Any:
        if any(user == "u1" for _, user in situations):
            raise ZeroDivisionError
        return self._whole.features_many(situations, items, rows_K)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)


def test_where_one_breaks_the_others_are_decided(engine: Engine, loaded: Loaded) -> None:
    touchy: Any = Touchy(loaded.version.feature_map)
    breaks = Engine(seed=5)
    breaks.install(replace(loaded, catalogue=replace(loaded.catalogue, feature_map=touchy)))
    asked = [Asked("shop", DecisionRequest(user_id=f"u{i}"), f"D{i}", i) for i in range(4)]
    whole, found = engine.decide_all(asked), breaks.decide_all(asked)
    assert [one == two for one, two in zip(whole, found, strict=True)] == [True, False, True, True]
    broken = found[1]
    assert isinstance(broken, DecisionRecord)
    assert (broken.mode, broken.reason) == ("baseline", "broken")
