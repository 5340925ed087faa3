"""Contexts read for serving have the codes that training gave them."""

import numpy as np
import pytest

from actors.generator.generator import Generator
from actors.generator.reading import KEPT, ContextReader
from actors.generator.tasks import Logged, build
from actors.generator.train import train
from cluster.config import Settings
from cluster.errors import ModelError, RegistryError
from cluster.records import USERS, Dataset, decode, encode
from cluster.registry import Registry
from tests.features_samples import table
from tests.generator_worlds import OneHots, halves, planted

STEPS = {"hidden": 16, "layers": 1, "tokens": 48, "backbone_steps": 3, "head_steps": 70}


def world() -> Dataset:
    """Users with attributes beside the columns of their contexts."""
    dataset, kinds = planted(users=60, rows=4, seed=0)
    users = [f"u{u}" for u in range(60)]
    about = [f"collects lamps of kind {kind}" if kind else None for kind in kinds]
    badges = [encode({"badge": "ember" if kind % 2 else "frost", "since": 2000 + int(kind)}) for kind in kinds]
    people = table(USERS, 60, user_id=users, client_id=["c"] * 60, attributes=badges, description=about)
    return Dataset("feedback", dataset.events, dataset.items, people)


def settings(reader: str) -> Settings:
    return Settings.model_validate({"generator": STEPS | {"reader": reader}})


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """With a generator that reads texts, and one that reads none."""
    made, data = Registry(str(tmp_path_factory.mktemp("registry"))), world()
    for reader in ("language", "numeric"):
        generator = train(data, OneHots(), *halves(data), settings(reader), progress=False)
        made.publish(f"{reader}-generator", generator.save)
    return made


def test_a_context_has_the_code_that_training_gave_it(registry: Registry) -> None:
    """With the context as a request has it, and of the user the id alone."""
    data, rows = world(), halves(world())[1]
    trained = Generator.load(registry.fetch("language-generator"))
    tasks = build(data, Logged.of(data, rows, OneHots(), 0.0, 1.0), trained.serialiser, limit=9, most=9, seed=0)
    assert any("badge=" in text and "about=" in text for text in tasks.texts)
    events = zip(data.events["user_id"].to_pylist(), data.events["context"].to_pylist(), strict=True)
    first = {f"u:c/{user}": (decode(context), user) for user, context in reversed(list(events))}
    reader = ContextReader(registry.uri, 1)
    found = reader.codes(("language-generator", 1), [first[key] for key in tasks.keys])
    np.testing.assert_allclose(found, trained.codes(tasks), atol=1e-5)
    context = first[tasks.keys[0]][0]
    stranger, nobody = reader.codes(("language-generator", 1), [(context, "nobody"), (context, None)])
    assert np.array_equal(stranger, nobody)
    assert not np.allclose(stranger, found[0], atol=1e-3)


def test_a_reader_that_was_asked_for_many_holds_few(registry: Registry) -> None:
    trained = Generator.load(registry.fetch("language-generator"))
    for _ in range(KEPT):
        registry.publish("language-generator", trained.save)
    reader, told = ContextReader(registry.uri, 1), [({"colour": "red", "age": 20}, None)]
    codes = [reader.codes(("language-generator", number), told) for number in range(1, KEPT + 2)]
    assert all(np.array_equal(code, codes[0]) for code in codes)
    assert list(reader._kept) == [("language-generator", 2), ("language-generator", 3)]


def test_what_reads_no_text_or_is_not_there_is_named(registry: Registry) -> None:
    reader = ContextReader(registry.uri, 1)
    with pytest.raises(ModelError, match="reads no text"):
        reader.codes(("numeric-generator", 1), [({"colour": "red"}, None)])
    assert not (registry.fetch("numeric-generator") / "users.parquet").exists()
    with pytest.raises(RegistryError, match="shop-generator"):
        reader.codes(("shop-generator", 7), [({}, None)])
