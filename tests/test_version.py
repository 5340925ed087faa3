import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy

from actors.bandits import law, learn
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster import records
from cluster.config import FeatureSettings
from cluster.errors import ModelError, RegistryError
from cluster.records import EVENTS, ITEMS, USERS, Dataset
from tests import bandit_cases as cases
from tests import kindred


def dataset(items: int = 5, events: int = 60) -> Dataset:
    rng = np.random.default_rng(0)
    ids = [f"i{k}" for k in range(items)]
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return Dataset(
        "feedback",
        records.conform(
            pa.table(
                {
                    "event_id": [f"e{n}" for n in range(events)],
                    "timestamp": [start + timedelta(minutes=n) for n in range(events)],
                    "client_id": ["shop"] * events,
                    "user_id": [f"u{n % 7}" for n in range(events)],
                    "context": pa.array(
                        [
                            records.encode({"device": ["mobile", "desk"][n % 2], "hour": float(rng.integers(24))})
                            for n in range(events)
                        ],
                        pa.map_(pa.string(), pa.string()),
                    ),
                    "candidates": [ids] * events,
                    "item_id": [ids[rng.integers(items)] for _ in range(events)],
                    "propensity": [1 / items] * events,
                    "reward": rng.integers(0, 2, events).astype(float),
                }
            ),
            EVENTS,
            "events",
        ),
        records.conform(
            pa.table({"item_id": ids, "title": [f"lamp {k}" for k in range(items)], "price": np.arange(items) + 1.0}),
            ITEMS,
            "items",
        ),
        records.conform(pa.table({"user_id": ["u0"]}), USERS, "users"),
    )


def version(kind: str = "joint") -> Version:
    data = dataset()
    settings = FeatureSettings.model_validate({"kind": kind})
    feature_map = FeatureMap.fit(data, np.arange(len(data.events)), settings, seed=1)
    rng = np.random.default_rng(1)
    context = np.zeros((2, len(feature_map.context_names)))
    shape = {"arms": feature_map.arms, "dimension": feature_map.dimension}
    ensemble = cases.ensemble(rng, items=5, fingerprint=feature_map.fingerprint, **shape)
    generated = replace(cases.mixture(rng, 3, **shape), encoder_HX=context + rng.normal(size=context.shape))
    past = {"u1": cases.history(rng, 4, feature_map.arms, feature_map.dimension)}
    ensemble = replace(ensemble, members=(*ensemble.members[:4], generated), histories=past)
    return Version(feature_map, ensemble, data.items, {"name": "shop", "seed": 7, "parents": [1, 2]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    version().save(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["joint", "arms"])
def test_what_is_loaded_decides_as_what_was_saved(tmp_path: Path, kind: str) -> None:
    made = version(kind)
    made.save(tmp_path)
    again = Version.load(tmp_path)
    assert again.facts == made.facts
    assert again.items.equals(made.items)
    assert again.ensemble.facts() == made.ensemble.facts()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arrays.safetensors", "items.parquet", "version.json"]
    context = {"device": "mobile", "hour": 9.0, "recent": ["i1", "i4"]}
    decisions = []
    for found in (made, again):
        features = found.feature_map.features(context, ["i0", "i3", "new", "i4"], "u1")
        published = learn.publish(learn.start(found.ensemble))
        decisions.append(law.probabilities(published, features, found.ensemble.histories["u1"], 3))
    assert decisions[0].pi_K.tobytes() == decisions[1].pi_K.tobytes()
    assert decisions[0].mean_K.tobytes() == decisions[1].mean_K.tobytes()


def test_two_saves_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        version().save(tmp_path / name)
    for file in ("arrays.safetensors", "items.parquet", "version.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("file", ["arrays.safetensors", "items.parquet", "version.json"])
@pytest.mark.parametrize("share", [None, 0.0, 0.3, 0.9])
def test_a_missing_or_cut_file_is_no_version(folder: Path, file: str, share: float | None) -> None:
    whole = (folder / file).read_bytes()
    if share is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RegistryError, match=r"not a readable version .*; publish it again"):
        Version.load(folder)


def change(folder: Path, alter: Callable[[dict], object]) -> None:
    facts = json.loads((folder / "version.json").read_text())
    alter(facts)
    (folder / "version.json").write_text(json.dumps(facts))


ALTERATIONS: dict[str, Callable[[dict], object]] = {
    "a section is gone": lambda facts: facts.pop("ensemble"),
    "a setting is unknown": lambda facts: facts["ensemble"]["law"].update(surprise=1),
    "a setting is out of range": lambda facts: facts["ensemble"]["law"].update(epsilon=2),
    "a type is wrong": lambda facts: facts["ensemble"].update(members=3),
    "a list is short": lambda facts: facts["ensemble"].update(users=[]),
    "a member is gone": lambda facts: facts["ensemble"]["members"].pop(),
    "a kind is unknown": lambda facts: facts["ensemble"]["members"][1].update(kind="quantum"),
    "the map is another": lambda facts: facts["ensemble"].update(fingerprint="0" * 64),
    "the dimension is another": lambda facts: facts["ensemble"].update(dimension=99),
    "the format is text": lambda facts: facts.update(format="one"),
}


@pytest.mark.parametrize("name", list(ALTERATIONS))
def test_altered_facts_are_no_version(folder: Path, name: str) -> None:
    change(folder, ALTERATIONS[name])
    with pytest.raises(RegistryError, match="not a readable version"):
        Version.load(folder)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", '"version"'])
def test_facts_of_another_form_are_no_version(folder: Path, text: str) -> None:
    (folder / "version.json").write_text(text)
    with pytest.raises(RegistryError, match="not a readable version"):
        Version.load(folder)


def test_an_array_that_is_gone_or_of_another_shape_is_no_version(folder: Path) -> None:
    arrays = safetensors.numpy.load_file(folder / "arrays.safetensors")
    name = "ensemble/member/4/means"
    for spoilt in ({name: arrays[name][:, :, 1:].copy()}, {name: np.full_like(arrays[name], np.nan)}, None):
        kept = {n: a for n, a in arrays.items() if n != name} | (spoilt or {})
        safetensors.numpy.save_file(kept, folder / "arrays.safetensors")
        with pytest.raises(RegistryError, match="not a readable version"):
            Version.load(folder)


def test_a_later_format_asks_for_a_later_release(folder: Path) -> None:
    change(folder, lambda facts: facts.update(format=2))
    with pytest.raises(RegistryError, match="format 2 is newer than 1; update Medley"):
        Version.load(folder)


def test_an_ensemble_of_another_map_is_refused() -> None:
    made = version()
    with pytest.raises(ModelError, match="does not fit feature map"):
        Version(made.feature_map, replace(made.ensemble, fingerprint="0" * 64), made.items)


@pytest.mark.parametrize("kind", ["joint", "arms"])
def test_models_of_providers_decide_alike_once_published(tmp_path: Path, kind: str) -> None:
    made = kindred.version(kind)
    made.save(tmp_path)
    loaded = Version.load(tmp_path)
    ids = [*made.feature_map.item_ids, "never seen"]
    found = []
    for one in (made, loaded):
        features = one.feature_map.features({"device": "mobile"}, ids, None)
        found.append(law.probabilities(learn.publish(learn.start(one.ensemble)), features, None, 3))
    assert np.array_equal(found[0].pi_K, found[1].pi_K)
    assert np.array_equal(found[0].member_means_MK, found[1].member_means_MK)
    assert len(set(found[0].member_means_MK[-1].tolist())) > 1


def test_models_of_providers_must_fit_the_items_relations() -> None:
    made = kindred.version()
    with pytest.raises(ModelError, match=r"member 'cluster' .* 3 rows does not fit items related by nothing"):
        replace(made, feature_map=replace(made.feature_map, relations=None))
    wide = cases.content(np.random.default_rng(0), made.ensemble.dimension, 5, 2)
    ensemble = replace(made.ensemble, members=(*made.ensemble.members[:-2], *wide))
    with pytest.raises(ModelError, match=r"'provider' .* 8 rows does not fit .*'provider': 7.*compose again"):
        replace(made, ensemble=ensemble)
