"""A composition from end to end in this process: what is published is what was walked, judged and said."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from rich.console import Console

from actors.bandits import law, learn
from actors.bandits.ensemble import Admission
from actors.bandits.mixture import Mixture
from actors.bandits.version import Version
from cluster.config import Settings
from cluster.errors import EvidenceError, RegistryError
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.records import ITEMS, Dataset
from cluster.registry import Registry
from tests.compose_cases import LAMPS, PLAIN, Proposed, changed, proposed, quick, two_kinds
from tests.features_samples import labelled, shop
from tune.codes import told
from tune.composer import compose, final, refitted
from tune.confirm import confirm, untested
from tune.gate import judge
from tune.groundwork import Groundwork
from tune.spending import Spending
from tune.split import parts
from tune.stages import Stages
from tune.walk import Trail, walk


@dataclass(frozen=True)
class Composed:
    """A composition's answer, what it wrote, what it said, and the version as it was fetched."""

    settings: Settings
    result: dict[str, Any]
    written: dict[str, Any]
    said: str
    folder: Path
    version: Version


def composed(dataset: Dataset, home: Path, **changes: Any) -> Composed:
    settings, said = quick(home, **changes), io.StringIO()
    stages = Stages(home / "run" / "compose.json", Console(file=said, width=400))
    result = compose(dataset, settings, stages, "medley")
    written = json.loads((home / "run" / "compose.json").read_text())
    folder = Registry(settings.registry_uri).fetch("medley")
    return Composed(settings, result, written, said.getvalue(), folder, Version.load(folder))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Composed, Composed]:
    """The same composition twice, in homes of their own."""
    one, two = (composed(two_kinds(), tmp_path_factory.mktemp("home"), features=PLAIN) for _ in range(2))
    return one, two


def test_a_prior_for_kinds_that_the_linear_model_cannot_see_is_admitted(kinds: tuple[Composed, Composed]) -> None:
    """The planted gain: 0.75 for the right colour against 0.45 for any choice that does not know the kind."""
    made, dataset = kinds[0], two_kinds()
    assert not any("×" in name for name in made.version.feature_map.names)
    gate = made.result["gate"]
    assert made.result["admitted"]
    assert gate["low"] > 0
    assert gate["difference"] == pytest.approx(0.3, abs=0.15)
    assert made.version.ensemble.names == ("uniform", "popularity", "linear", "forgetting", "generated")
    published = learn.publish(learn.start(made.version.ensemble))
    people = dataset.users.slice(0, 60).to_pylist()
    for user in people:
        colour = "red" if ("badge", '"ember"') in user["attributes"] else "blue"
        features = made.version.feature_map.features({"hour": 3}, LAMPS, user["user_id"])
        found = law.probabilities(published, features, None, 1)
        liked = [found.member_MK[4, k] for k, lamp in enumerate(LAMPS) if lamp.startswith(colour)]
        assert sum(liked) > 0.9
        assert LAMPS[int(np.argmax(found.pi_K))].startswith(colour)


def test_context_features_tell_the_kinds_without_a_language_model(
    tmp_path: Path, kinds: tuple[Composed, Composed]
) -> None:
    own = {"reader": "numeric", "prototypes": 3, "codes": 2, "rank": 2, "head_steps": 90}
    made = composed(two_kinds(), tmp_path, features=PLAIN, generator=own)
    assert made.result["admitted"]
    assert made.result["gate"]["difference"] == pytest.approx(0.3, abs=0.15)
    assert "language model: 4 steps" in kinds[0].said
    assert "language model" not in made.said
    for done in (made, *kinds):
        assert "head: " in done.said
        assert not (done.settings.home / "run" / "training").exists(), "nothing to go on from: it is finished"


def test_equal_steps_and_seed_give_equal_bits(kinds: tuple[Composed, Composed]) -> None:
    one, two = (safetensors.numpy.load_file(made.folder / "arrays.safetensors") for made in kinds)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array.view(np.uint8), two[name].view(np.uint8), err_msg=name)
    assert kinds[0].result == kinds[1].result
    assert kinds[0].written["candidates"] == kinds[1].written["candidates"]
    assert kinds[0].version.feature_map.fingerprint == kinds[1].version.feature_map.fingerprint


def test_values_and_facts_are_as_walked(kinds: tuple[Composed, Composed]) -> None:
    made, case = kinds[0], proposed()
    select = made.written["select"]
    assert select == pytest.approx(case.base.mean())
    best = max(select, key=lambda name: select[name])
    assert made.result["best_predefined"] == made.written["best_predefined"] == best
    expected = [*select.values(), min(1.0, select[best] + made.result["gate"]["difference"])]
    np.testing.assert_allclose(made.version.ensemble.values_M, expected)
    errors_M = made.version.ensemble.errors_M
    assert errors_M is not None
    counts_U = np.bincount(case.base.log.user_N)
    ranked = sorted(range(4), key=lambda m: -case.base.value_NM[:, m].mean())
    for m in range(4):
        behind_N = case.base.value_NM[:, m] - case.base.value_NM[:, ranked[0] if m != ranked[0] else ranked[1]]
        sums_U = np.bincount(case.base.log.user_N, weights=behind_N - behind_N.mean())
        expected_error = np.sqrt(len(sums_U) / (len(sums_U) - 1) * (sums_U**2).sum()) / counts_U.sum()
        assert errors_M[m] == pytest.approx(expected_error)
    assert 0 < errors_M[4] < 0.1
    assert made.written["members"] == list(made.version.ensemble.names)
    facts = made.version.facts
    assert (facts["seed"], facts["data"], facts["parents"], facts["watermark"]) == (0, "planted", [], None)
    assert facts["metrics"]["select"] == select
    assert facts["metrics"]["gate"] == made.result["gate"] == made.written["gate"]
    assert facts["metrics"]["generator"]["head"]["steps"] == 90
    assert facts["metrics"]["generator"]["backbone"]["steps"] == 4
    assert facts["metrics"]["left_out"] == {}
    assert set(facts["libraries"]) == {"numpy", "ray", "torch", "transformers", "pyarrow"}
    stages = [row["stage"] for row in made.written["timings"]]
    assert stages == ["features", "select", "backbone", "head", "generate", "sweep", "confirm", "publish"]
    chosen = [row["candidate"] for row in made.written["candidates"] if row["chosen"]]
    assert sorted(chosen) == sorted(case.proposal.chosen)
    mixture = made.version.ensemble.members[4]
    assert isinstance(mixture, Mixture)
    assert list(mixture.names_C) == case.proposal.chosen


def test_what_is_published_was_refitted_on_all_parts_but_the_worlds(kinds: tuple[Composed, Composed]) -> None:
    made, work = kinds[0], proposed().work
    split = work.split
    rows = np.concatenate([split.fit, split.stop, split.select, split.confirm])
    design = work.fitted(rows).design
    linear = next(member for member in made.version.ensemble.members if member.name == "linear")
    phi = design.phi_ND
    gram = linear.precision_ADD[0] * linear.noise - phi.T @ phi  # type: ignore[union-attr]
    off = gram - np.diag(np.diag(gram))
    np.testing.assert_allclose(off, 0, atol=1e-6)
    outside = two_kinds()
    reward_N = outside.events["reward"].to_numpy().copy()
    reward_N[split.world] = 1 - reward_N[split.world]
    other = Groundwork.of(changed(outside, reward=reward_N), work.settings)
    base = proposed().base
    nobody = untested("", Spending())
    arrays, others = (final(case, refitted(case), None, nobody, base).arrays() for case in (work, other))
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)


def test_the_verdict_is_the_gates() -> None:
    """At half of α, as the first that is tested on this data; at a sixth as the second."""
    case = proposed()
    work, member = case.work, case.proposal.member
    assert member is not None
    trail = Trail.of(work.feature_map, work.events(work.split.confirm), work.settings.reward, work.settings.seed)
    trail = told(trail, work, work.split.confirm, case.proposal.generator)
    walked = walk(work.ensemble(*work.predefined.members(), member), trail, work.settings.seed)
    spending = Spending()
    for number, against in enumerate(("popularity", "uniform"), start=1):
        found = confirm(work, case.proposal, against, case.base, Stages(None), spending)
        alpha = 0.05 / (number * (number + 1))
        gate = work.settings.gate.model_copy(update={"alpha": alpha})
        expected = judge({"generated": walked.paired("generated", against)}, gate, work.settings.seed)["generated"]
        about = {"tested": "generated", "against": against, "test": number, "alpha": pytest.approx(alpha)}
        assert found.facts == {**expected.facts(), **about, "pooled": expected.admitted, "clients": {}}
        assert found.value == pytest.approx(case.base.mean()[against] + expected.difference)
        spending = found.spending
    again = confirm(work, case.proposal, "popularity", case.base, Stages(None), spending)
    assert (again.facts["test"], again.spending) == (1, spending)


def test_a_member_that_is_no_better_stays_out() -> None:
    """The same member, whose shifts favour the wrong kind."""
    case = proposed()
    member, base = case.proposal.member, case.proposal.generator.mean_AD
    assert member is not None
    assert member.decoder is not None
    decoder = replace(member.decoder, shift_ADR=-2 * member.decoder.shift_ADR)
    means_CAD = base - 2 * (member.means_CAD - base)
    wrong = replace(case.proposal, member=replace(member, means_CAD=means_CAD, decoder=decoder))
    found = confirm(case.work, wrong, "popularity", case.base, Stages(None), Spending())
    assert not found.facts["admitted"]
    assert found.facts["difference"] < 0
    assert final(case.work, case.work.predefined, wrong, found, case.base).names == case.base.names
    nothing = replace(case.proposal, member=None)
    none = confirm(case.work, nothing, "popularity", case.base, Stages(None), found.spending)
    assert none.facts == {"admitted": False, "tested": None, "reason": "no candidate could be used"}
    assert none.spending is found.spending
    assert not none.admission.anywhere


def test_a_member_is_published_for_the_clients_that_admit_it() -> None:
    case = proposed()
    found = confirm(case.work, case.proposal, "popularity", case.base, Stages(None), Spending())
    some = replace(found, admission=Admission(False, {"shop": True}), value=0.7)
    ensemble = final(case.work, case.work.predefined, case.proposal, some, case.base)
    assert ensemble.of("shop").names == (*case.base.names, "generated")
    assert ensemble.of("c").names == case.base.names
    assert ensemble.values_M[-1] == 0.7
    assert final(case.work, case.work.predefined, case.proposal, found, case.base).admissions == {}


def test_another_member_on_the_same_data_is_tested_at_less(kinds: tuple[Composed, Composed]) -> None:
    """One step more of training after the composition of the fixture, in its home."""
    first, dataset = kinds[0], two_kinds()
    dataset = replace(dataset, facts=dataset.facts | {"watermark": 17})
    generator = first.settings.generator.model_dump() | {"head_steps": 91}
    again = composed(dataset, first.settings.home, features=PLAIN, generator=generator)
    tests = [made.version.facts["tests"]["planted"] for made in (first, again)]
    assert (len(tests[0]), len(tests[1]), tests[1][:1]) == (1, 2, tests[0])
    found = [(made.result["gate"]["test"], made.result["gate"]["alpha"]) for made in (first, again)]
    assert found == [(1, pytest.approx(0.025)), (2, pytest.approx(0.05 / 6))]
    assert "(test 2 on this data, at α = 0.0083)" in again.said
    assert (first.version.facts["watermark"], again.version.facts["watermark"]) == (None, 17)


def test_a_small_marketplace(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"data": {"marketplace_users": 150, "marketplace_items": 30, "marketplace_events": 1_500}}
    )
    dataset = read_marketplace([], Options(), settings.data, 0).dataset
    made = composed(dataset, tmp_path, generator={"hidden": 16, "layers": 1, "tokens": 32, "prototypes": 2, "rank": 2,
                                                  "backbone_steps": 2, "head_steps": 62})  # fmt: skip
    assert made.result["version"] == 1
    assert made.result["gate"]["tested"] == "generated"
    assert made.version.facts["data"] == dataset.facts["fingerprint"]
    assert made.version.items.equals(dataset.items)
    assert made.written["data"]["clients"] == len(set(dataset.events["client_id"].to_pylist())) > 1
    event = dataset.events.slice(0, 1).to_pylist()[0]
    features = made.version.feature_map.features({}, event["candidates"], event["user_id"])
    published = learn.publish(learn.start(made.version.ensemble))
    assert law.decide(published, features, None, 1).slots[0].propensity > 0


def test_what_items_say_of_one_another_goes_into_the_version(tmp_path: Path) -> None:
    """Red lamps are one provider's and like one another, blue ones another's: six items, each with two neighbours."""
    plain = two_kinds(users=120)
    names = plain.items["item_id"].to_pylist()
    angles = [0.1 * n + 1.5 * name.startswith("blue") for n, name in enumerate(names)]
    columns = {"provider_id": [name[:-1] for name in names], "embedding": [[np.cos(a), np.sin(a)] for a in angles]}
    items = plain.items
    for name, values in columns.items():
        place = items.schema.get_field_index(name)
        items = items.set_column(place, ITEMS.field(name), pa.array(values, ITEMS.field(name).type))
    dataset = replace(plain, items=items)
    made = composed(dataset, tmp_path, features=PLAIN)
    ensemble, relations = made.version.ensemble, made.version.feature_map.relations
    assert ensemble.names[:5] == ("uniform", "popularity", "linear", "forgetting", "provider")
    assert relations is not None
    assert relations.providers == ("blue", "red")
    assert [sorted(row[row >= 0].tolist()) for row in relations.kin.near_KJ[:6]] == [
        [m for m in range(6) if m != n] for n in range(6)
    ]
    found = {"providers": 2, "clusters": 1, "embedded": 6, "embeddings": "the items' own"}
    assert made.written["data"]["content"] == found | {"left_out": {"cluster": "the providers are one cluster"}}
    work = Groundwork.of(dataset, made.settings)
    state = learn.start(work.ensemble(*work.predefined.members()))
    trail = Trail.of(work.feature_map, work.events(work.split.select), made.settings.reward, made.settings.seed)
    base = walk(state.ensemble, trail, made.settings.seed, state=state)
    assert made.written["select"] == pytest.approx(base.mean())
    expected = state.items.published()
    assert expected is not None
    assert ensemble.items is not None
    assert ensemble.items.rows_N.tolist() == list(range(6))
    np.testing.assert_array_equal(ensemble.items.weights_NM, expected.among(len(ensemble.names)).weights_NM)
    assert np.abs(expected.weights_NM - 0.2).max() > 0.02


def test_without_propensities_the_evidence_is_model_based(tmp_path: Path) -> None:
    """As with coupons: personal columns, five items, all of them candidates, arms of their own."""
    dataset = two_kinds(users=200, rows=6)
    coupons = changed(dataset, propensity=[None] * len(dataset.events))
    made = composed(coupons, tmp_path, features={"kind": "arms"})
    assert "no propensity" not in made.said
    assert made.version.feature_map.kind == "arms"
    assert made.result["gate"]["model_based"]
    assert made.result["gate"]["tested"] == "generated"
    assert all(row["model_based"] for row in made.written["candidates"])


def test_a_log_that_lacks_some_propensities_says_so(tmp_path: Path) -> None:
    dataset = two_kinds()
    known = dataset.events["propensity"].to_pylist()
    made = composed(changed(dataset, propensity=[None, None, *known[2:]]), tmp_path, features=PLAIN)
    assert "! 2 of 3,000 events have no propensity" in made.said


def test_a_table_where_each_row_is_a_task_of_its_own(tmp_path: Path) -> None:
    dataset = labelled(900)
    made = composed(changed(dataset, propensity=[1 / 3] * 900), tmp_path)
    assert made.written["data"]["users"] == 900
    assert made.result["gate"]["users"] == made.result["gate"]["events"] == made.written["data"]["parts"]["confirm"]
    assert made.version.ensemble.histories == {}


def test_sessions_stand_in_for_absent_users(tmp_path: Path) -> None:
    dataset = shop(900)
    sessions = [f"s{n % 120}" for n in range(900)]
    made = composed(changed(dataset, user_id=[None] * 900, session_id=sessions), tmp_path)
    assert made.written["data"]["users"] == 120
    assert 0 < made.result["gate"]["users"] <= 120
    assert made.version.facts["metrics"]["generator"]["tasks"] <= 120


def test_a_log_whose_contexts_tell_nothing_is_told_by_histories_alone(tmp_path: Path) -> None:
    plain = two_kinds(users=120)
    bare = changed(plain, context=[[] for _ in range(len(plain.events))])
    made = composed(replace(bare, users=bare.users.slice(0, 0)), tmp_path, features=PLAIN)
    assert made.result["gate"]["tested"] == "generated"


def test_a_generator_that_fails_costs_its_member_and_not_the_version(tmp_path: Path) -> None:
    dataset = two_kinds()
    rewards = dataset.events["reward"].to_pylist()
    stop = proposed().work.split.stop
    for row in stop:
        rewards[row] = None
    made = composed(changed(dataset, reward=rewards), tmp_path, features=PLAIN)
    assert made.result["version"] == 1
    assert made.version.ensemble.names == ("uniform", "popularity", "linear", "forgetting")
    reason = made.result["gate"]["reason"]
    assert reason.startswith(f"no generated member: none of {len(stop)} events has a reward")
    assert made.written["gate"] == {"admitted": False, "tested": None, "reason": reason}
    assert made.written["candidates"] == []
    assert f"! {reason}; the version has predefined members only" in made.said
    assert made.version.facts["metrics"]["generator"] is None


def test_a_language_model_that_is_not_there_is_told_in_the_same_way(tmp_path: Path) -> None:
    made = composed(two_kinds(), tmp_path, features=PLAIN, generator={"model": str(tmp_path / "nowhere")})
    assert made.version.ensemble.names == ("uniform", "popularity", "linear", "forgetting")
    assert str(tmp_path / "nowhere") in made.result["gate"]["reason"]
    assert made.said.count("! ") == 1


def test_a_place_that_takes_no_version_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stages = Stages(None)
    with pytest.raises(RegistryError, match="check that it exists, has room and can be written"):
        compose(two_kinds(), quick(tmp_path, registry=str(tmp_path / "file" / "registry")), stages, "medley")
    with pytest.raises(RegistryError, match="is no name for versions"):
        compose(two_kinds(), quick(tmp_path), stages, "no/name")
    assert stages.facts["timings"] == []


def seed_with(dataset: Dataset, empty: str, *filled: str) -> int:
    """A seed whose split of a small data set leaves one part empty and others not."""
    for seed in range(1_000):
        sizes = parts(dataset, seed).sizes()
        if not sizes[empty] and all(sizes[name] for name in filled):
            return seed
    raise AssertionError(f"no split without {empty}")


def test_too_few_users_are_one_clear_error(tmp_path: Path) -> None:
    dataset = two_kinds(users=2, rows=5)
    settings = quick(tmp_path, features=PLAIN, seed=seed_with(dataset, "select", "fit"))
    with pytest.raises(EvidenceError, match="at least 2 users, found 0; use more data"):
        compose(dataset, settings, Stages(None), "medley")


def test_a_part_without_users_costs_the_generated_member_alone(tmp_path: Path) -> None:
    dataset = two_kinds(users=8, rows=5)
    seed = seed_with(dataset, "stop", "fit", "select", "confirm")
    made = composed(dataset, tmp_path, features=PLAIN, seed=seed)
    assert "none of 0 events has a reward" in made.result["gate"]["reason"]
    assert len(made.version.ensemble.names) == 4


def test_proposed_is_what_compose_proposes(kinds: tuple[Composed, Composed]) -> None:
    case: Proposed = proposed()
    rows = [row.candidate for row in case.proposal.rows]
    assert [row["candidate"] for row in kinds[0].written["candidates"]] == rows
    values = [row["value"] for row in kinds[0].written["candidates"]]
    assert values == [row.value for row in case.proposal.rows]
