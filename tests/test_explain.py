"""What the generator changed, against moves worked out one by one; and as a user asks for it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits.ensemble import Admission, Ensemble, Prior
from actors.bandits.mixture import Follow, Mixture
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster.config import FeatureSettings, LawSettings, WeightSettings
from cluster.errors import ModelError
from cluster.records import decode
from cluster.registry import Registry
from tests.bandit_cases import mixture, precision
from tests.compose_cases import LAMPS, Proposed, proposed
from tests.features_samples import labelled, shop
from tests.programs import Done, ended
from tune.composer import Composition
from tune.confirm import untested
from tune.explained import show, show_all
from tune.explanation import Explainer
from tune.glossary import words
from tune.spending import Spending
from tune.stages import Stages
from tune.telling import told


def version_of(case: Proposed) -> Version:
    admitted = replace(untested("", Spending()), admission=Admission(True), value=0.5)
    made = Composition(case.work, case.base, "linear", case.proposal, admitted)
    return made.version(Stages(None), {"told": told(case.work, case.proposal)})


@pytest.fixture(scope="module")
def version() -> Version:
    return version_of(proposed())


def parts(version: Version) -> tuple[Mixture, np.ndarray]:
    """The generated member, and the mean of the pooled linear one by a plain solve."""
    members = {member.name: member for member in version.ensemble.members}
    member, linear = members["generated"], members["linear"]
    assert isinstance(member, Mixture)
    assert isinstance(linear, Prior)
    return member, np.linalg.solve(linear.precision_ADD[0], linear.shift_AD[0])


def test_it_tells_whom_a_candidate_was_made_for(version: Version) -> None:
    """Users' badges tell their kind, and the text, the context and the features of the example are one user's."""
    explainer, people = Explainer.of(version), {}
    for person in proposed().work.dataset.users.to_pylist():
        people[person["user_id"]] = decode(person["attributes"])["badge"]
    assert explainer.names == tuple(proposed().proposal.chosen)
    select = {event["user_id"] for event in proposed().work.events(proposed().work.split.select).to_pylist()}
    prototypes = {}
    for name in explainer.names:
        found = explainer.explain(name, 3)
        assert found.about["user"] in select
        assert f"badge={people[found.about['user']]}" in found.about["text"]
        assert found.users == len(select)
        prototypes[name.partition("z")[0]] = found.about["users"]
    assert len(prototypes) == 3
    assert sum(prototypes.values()) == len(select)


def test_items_move_toward_what_such_users_like(version: Version) -> None:
    explainer, moved = Explainer.of(version), 0
    for name in explainer.names:
        found = explainer.explain(name, 6)
        liked = "red" if "badge=ember" in found.about["text"] else "blue"
        assert {row.name for row in found.items} == {f"{lamp[:-1]} lamp ({lamp})" for lamp in LAMPS}
        up = [row.name.startswith(liked) for row in found.items if row.effect > 0]
        down = [row.name.startswith(liked) for row in found.items if row.effect < 0]
        moved += len(up) >= 3 and all(up[:3]) and not any(down[:3])
    assert moved >= len(explainer.names) - 1


def test_moves_are_those_of_each_feature_and_item(version: Version) -> None:
    """By one decision at a time: φ of each logged item, φ of each lamp, the dense covariance."""
    case, explainer = proposed(), Explainer.of(version)
    member, pooled_D = parts(version)
    pooled_D *= proposed().proposal.generator.head.mean_scale.item()
    events = case.work.events(case.work.split.select).to_pylist()
    feature_map = version.feature_map
    shown_ND = [
        feature_map.features(decode(event["context"]), [event["item_id"]], event["user_id"]).phi_KD[0]
        for event in events
    ]
    for c, name in enumerate(explainer.names):
        found, shift_D = explainer.explain(name, 99), member.means_CAD[c, 0] - pooled_D
        expected_D = shift_D * np.std(shown_ND, axis=0)
        effects = [row.effect for row in found.features]
        np.testing.assert_allclose(
            effects, sorted(expected_D[abs(expected_D) > 1e-9], key=lambda effect: -abs(effect)), rtol=2e-3, atol=1e-9
        )
        told_D = {row.name: row.after - row.before for row in found.features}
        for d, feature in enumerate(words(feature_map, explainer.titles)):
            if abs(expected_D[d]) > 1e-9:
                assert told_D[feature] == pytest.approx(shift_D[d], rel=1e-9)
        phi_KD = feature_map.features(found.about["context"], LAMPS, found.about["user"]).phi_KD
        moves = {f"{lamp[:-1]} lamp ({lamp})": phi_D @ shift_D for lamp, phi_D in zip(LAMPS, phi_KD, strict=True)}
        assert {row.name: row.effect for row in found.items} == pytest.approx(moves, rel=1e-9)
        factor_DD, ranks_DR = member.factor_ADD[0], member.ranks_CADR[c, 0]
        sigma_DD = factor_DD @ factor_DD.T + ranks_DR @ ranks_DR.T
        assert found.spread == pytest.approx(np.sqrt(np.mean([phi @ sigma_DD @ phi for phi in phi_KD])))
        assert found.pooled_spread < found.spread
        assert found.scale == proposed().proposal.generator.head.mean_scale.item()


def test_with_parameters_per_item_each_items_own_weights_move() -> None:
    """Three items of four features: of item b the intercept moved by 0.3 and one column by twice its sd's inverse."""
    dataset, rng = labelled(), np.random.default_rng(0)
    feature_map = FeatureMap.fit(dataset, np.arange(900), FeatureSettings(), 0)
    assert feature_map.kind == "arms"
    a, d = feature_map.arms, feature_map.dimension
    linear = Prior("linear", precision(rng, a, d), rng.normal(size=(a, d)), 0.2, "features")
    mean_AD = np.stack([np.linalg.solve(p, b) for p, b in zip(linear.precision_ADD, linear.shift_AD, strict=True)])
    spread_D = np.linspace(0.0, 0.5, d)
    means_CAD = np.stack([mean_AD, mean_AD])
    means_CAD[1, 1, 0] += 0.3
    means_CAD[1, 1, 2] -= 2 / spread_D[2]
    member = mixture(rng, 2, a, d)
    member = replace(
        member,
        means_CAD=means_CAD,
        encoder_HX=rng.normal(size=(2, feature_map.context.size)),
        follow=Follow("linear", mean_AD, 1.0),
    )
    ensemble = Ensemble(
        (linear, member), np.full(2, 0.5), LawSettings(), WeightSettings(), d, feature_map.fingerprint, -1.0, 3.0
    )
    about: dict[str, Any] = {"context": {"x": 0.5, "shape": "flat"}, "user": None, "users": 1, "text": "x=0.5"}
    facts = {"told": {"users": 2, "spread": spread_D.tolist(), "candidates": dict.fromkeys(member.names_C, about)}}
    explainer = Explainer.of(Version(feature_map, ensemble, dataset.items, facts))
    still, moved = (explainer.explain(name, 5) for name in member.names_C)
    assert not still.features
    assert not still.items
    names = feature_map.names
    (first, second), rest = moved.features[:2], moved.features[2:]
    assert (first.name, second.name) == (f"b: {names[2]}", f"b: {names[0]}")
    assert (first.effect, second.effect) == pytest.approx((-2.0, 0.3))
    assert max((abs(row.effect) for row in rest), default=0.0) < 1e-12
    phi_D = feature_map.features(about["context"], ["b"], None).phi_KD[0]
    assert moved.items[0].name == "b"
    assert moved.items[0].effect == pytest.approx(0.3 * phi_D[0] - 2 / spread_D[2] * phi_D[2])
    assert moved.range == (-1.0, 3.0)


def test_axes_are_told_by_the_items_at_their_ends() -> None:
    dataset = shop()
    feature_map = FeatureMap.fit(dataset, np.arange(600), FeatureSettings(max_dimension=60), 0)
    titles = [f"thing {i}" for i in range(len(feature_map.item_ids))]
    told_D, names = words(feature_map, titles), feature_map.names
    phi_KD = feature_map.features({}, feature_map.item_ids, None).phi_KD
    axes = [d for d, name in enumerate(names) if name.startswith("text[")]
    assert axes
    for d in axes:
        high, low = titles[int(phi_KD[:, d].argmax())], titles[int(phi_KD[:, d].argmin())]
        assert told_D[d] == f"{names[d]} (more “{high}” than “{low}”)"
    plain = [d for d, name in enumerate(names) if "[" not in name]
    assert [told_D[d] for d in plain] == [names[d] for d in plain]
    crosses = [told for told, name in zip(told_D, names, strict=True) if "×" in name]
    assert crosses
    assert all("more “" in told and ("(+" in told or "(−" in told) for told in crosses)


def asked(home: Path, module: str, *words: str) -> Done:
    return ended(module, *words, MEDLEY_HOME=str(home))


def test_a_user_asks_for_it(home: Path, version: Version) -> None:
    registry = Registry(str(home / "registry"))
    registry.publish("medley", version.save)
    registry.publish("medley", replace(version, ensemble=version.ensemble.only("uniform", "linear")).save)
    name = Explainer.of(version).names[0]
    one = asked(home, "cluster.cli", "explain", name, "--version", "1", "--top", "2", "--json")
    assert json.loads(one.stdout) == json.loads(json.dumps(Explainer.of(version).explain(name, 2).facts()))
    for given, said in ((("",), "no candidate ''"), ((name, "--top", "-1"), "--top must be at least 1")):
        wrong = asked(home, "tune.explain", "--version", "1", *given)
        assert wrong.returncode != 0
        assert said in wrong.stderr
    newest = asked(home, "tune.explain")
    assert newest.returncode == 1
    assert "no generated member that could be explained among uniform, linear" in newest.stderr


def test_a_member_that_was_not_admitted_is_explained_too(home: Path, version: Version) -> None:
    """The same candidates, of a version that nobody is served; the version itself has predefined members alone."""
    registry, case = Registry(str(home / "registry")), proposed()
    refused = Composition(case.work, case.base, "linear", case.proposal, untested("no gain", Spending()))
    plain = refused.version(Stages(None), refused.kept(registry, "medley"))
    registry.publish("medley", plain.save)
    assert "generated" not in plain.ensemble.names
    assert plain.facts["proposed"] == {"name": "medley-proposed", "version": 1}
    found = json.loads(asked(home, "tune.explain", "--json").stdout)["candidates"]
    expected = [Explainer.of(version).explain(name, 1) for name in Explainer.of(version).names]
    assert [each | {"refused": ""} for each in found] == json.loads(json.dumps([each.facts() for each in expected]))
    shown = asked(home, "tune.explain", found[0]["candidate"]).stdout
    assert "The gate did not admit this member, so nobody is served by it: no gain." in shown


def test_it_is_shown_as_tables(
    version: Version, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    explainer = Explainer.of(version)
    every = [explainer.explain(name, 2) for name in explainer.names]
    show_all(every)
    listed = capsys.readouterr().out
    for each in every:
        (line,) = (line for line in listed.splitlines() if f" {each.candidate} " in line)
        assert each.about["text"] in line
        assert f"{each.about['users']} of {each.users}" in line
    show(every[0])
    shown = capsys.readouterr().out
    for row in (*every[0].features, *every[0].items):
        numbers = [f"{row.after:.4f}".replace("-", "−"), f"{row.effect:+.4f}".replace("-", "−")]
        lines = [line for line in shown.splitlines() if line.startswith(f"│ {row.name} ")]  # an item and its feature
        assert any(all(number in line for number in numbers) for line in lines)


def test_an_unknown_candidate_is_told_which_there_are(version: Version) -> None:
    with pytest.raises(ModelError, match="no candidate 'p9z9' in this version; there are p"):
        Explainer.of(version).explain("p9z9", 3)


def test_brackets_of_titles_and_texts_are_shown_as_they_are(
    version: Version, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are markup to the library that draws the tables: a closing one without its opening is an error there."""
    monkeypatch.setenv("COLUMNS", "400")
    items, place = version.items, version.items.schema.get_field_index("title")
    titles = pa.array([f"[/{item}] of [red]" for item in items["item_id"].to_pylist()], pa.string())
    explainer = Explainer.of(replace(version, items=items.set_column(place, items.schema.field(place), titles)))
    found = explainer.explain(explainer.names[0], 2)
    show(found)
    assert f"│ {found.items[0].name} " in capsys.readouterr().out
    show_all([replace(found, about=found.about | {"text": "badge=[/b] [bold]x"})])
    listed = capsys.readouterr().out
    assert "badge=[/b] [bold]x" in listed
    assert found.features[0].name in listed
