"""Versions in memory: who is decided for by which, and what leaves."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits.history import History
from cluster import config
from cluster.database import Database, url_of
from cluster.keys import Keys
from serve.decide import Engine
from serve.decisions.current import Loaded, Update, load
from serve.decisions.versions import Versions
from serve.messages import DecisionRequest
from tests import serving

ONE = load(1, serving.version())
CLIENTS = ("a", "b", "c", "d")


def numbered(number: int) -> Loaded:
    return replace(ONE, number=number)


STEPS = st.one_of(
    st.tuples(st.just("install"), st.just(0)),
    st.tuples(st.just("hold"), st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, 6))),
    st.tuples(st.just("decide"), st.sampled_from(CLIENTS)),
    st.tuples(st.just("load"), st.just(0)),
)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 4), st.lists(STEPS, max_size=40))
def test_versions_are_a_least_recently_used_cache(most: int, steps: list[tuple[str, Any]]) -> None:
    """Against a model with a plain list of what is in memory, the least recently used first."""
    versions = Versions(most)
    newest, held, kept, wanted = 0, dict[str, int](), list[int](), set[int]()

    def trim() -> None:
        kept[:] = [n for n in kept if n in held.values()]
        del kept[: max(0, len(kept) - (most - 1))]

    for step, value in steps:
        if step == "install":
            if newest:
                kept.append(newest)
            newest += 1
            kept[:] = [n for n in kept if n != newest]
            versions.install(numbered(newest))
            trim()
        elif step == "hold":
            held = value
            versions.hold(value)
            trim()
        elif step == "decide":
            number = held.get(value)
            versions.use(value)
            if number in kept:
                kept.append(kept.pop(kept.index(number)))
            elif number is not None and number != newest:
                wanted.add(number)
        else:
            expected = sorted(wanted & set(held.values())) if most > 1 else []
            assert versions.wanted() == expected
            wanted.clear()
            for number in expected:
                kept[:] = [n for n in kept if n != number] + [number]
                before = list(kept)
                trim()
                assert versions.keep(numbered(number)) == [n for n in before if n not in kept]
        for client in CLIENTS:
            number = held.get(client)
            found = versions.of(client)
            assert (found.number if found else 0) == (number if number in kept else newest)


def decide(engine: Engine, client: str) -> int:
    request = DecisionRequest.model_validate({"items": ["i1", "i2"]})
    return int(json.loads(engine.decide(client, request, "D").answer)["version"])


def test_a_held_client_keeps_its_version_and_what_was_learned_of_it() -> None:
    engine = Engine(versions_kept=2)
    engine.install(numbered(1))
    assert decide(engine, "a") == decide(engine, "b") == 1
    start = ONE.published
    learned = Update("a", 1, 7, {}, start.weights_M, start.alternatives_M, {"u": History.empty(start.dimension)})
    engine.publish(learned)
    engine.hold({"a": 1})
    engine.install(numbered(2))
    assert (decide(engine, "a"), decide(engine, "b")) == (1, 2)
    current = engine.current("a")
    assert current is not None
    assert current.published.epoch == 7
    assert engine.histories.get("a", 1, "u", 7)[0] is not None
    engine.hold({})
    assert decide(engine, "a") == 2
    assert engine.histories.get("a", 1, "u", 7)[0] is None
    assert engine.number == 2


def test_a_version_comes_back_with_the_client_s_catalogue() -> None:
    engine = Engine(versions_kept=2)
    engine.install(numbered(3))
    engine.hold({"a": 1, "b": 2})
    engine.change("a", "own", "{}", 1)
    engine.rebuild("a")
    assert decide(engine, "a") == 3
    assert engine.versions.wanted() == [1]
    assert engine.keep(numbered(1)) == []
    assert decide(engine, "a") == 1
    assert "own" in engine.item_ids("a")
    assert engine.keep(numbered(2)) == [1]
    assert (decide(engine, "a"), decide(engine, "b")) == (3, 2)
    assert "own" in engine.item_ids("a")
    assert engine.versions.wanted() == [1]


def test_a_replica_follows_the_database(tmp_path: Path) -> None:
    settings_ = config.load(home=tmp_path, serve={"versions_refresh_s": 0.02})
    made = [serving.version(seed=seed) for seed in range(3)]
    for one in made:
        serving.publish(settings_, one)

    async def scenario() -> None:
        async with serving.running(settings_) as r:
            keys = Keys(Database(url_of(settings_)))

            async def answered(client: str, wanted: int) -> None:
                for _ in range(400):
                    answer = await r.decide({"items": ["i1", "i2"]}, client=client)
                    assert answer.status_code == 200
                    if answer.json()["decisions"][0]["version"] == wanted:
                        return
                    await asyncio.sleep(0.02)
                raise AssertionError(f"{client} was never answered by {wanted}")

            await answered("shop", 3)
            keys.set_version("shop", 1)
            keys.set_version("other", 99)
            await answered("shop", 1)
            await answered("other", 3)
            serving.publish(settings_, made[0])
            await answered("other", 4)
            await answered("shop", 1)
            keys.set_version("shop", None)
            await answered("shop", 4)

    asyncio.run(scenario())


@pytest.mark.parametrize(("word", "code"), [("2", 0), ("latest", 0), ("0", 2), ("new", 2)])
def test_the_command(tmp_path: Path, word: str, code: int) -> None:
    from typer.testing import CliRunner

    from cluster.cli import app

    runner, environment = CliRunner(), {"MEDLEY_HOME": str(tmp_path)}
    assert runner.invoke(app, ["client", "add", "shop"], env=environment).exit_code == 0
    done = runner.invoke(app, ["client", "version", "shop", word, "--json"], env=environment)
    assert done.exit_code == code
    if not code:
        assert json.loads(done.stdout)["version"] == (None if word == "latest" else int(word))
        held = Keys(Database(url_of(config.load(home=tmp_path)))).held()
        assert held == ({} if word == "latest" else {"shop": int(word)})
