"""The clients' vector stores: an entry's two sides come in any order, again and again, over kills and restarts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from actors.content.library import Library
from actors.content.origin import UNKNOWN, Origin
from actors.content.served import Served
from actors.content.vectors.entry import Entry, Outcomes
from cluster.errors import DataError, StateError
from cluster.journal.records import ItemRecord
from tests import serving
from tests.content_serving import CLUSTER_OF, brute, direction, embedder, embeddings, version

Changes = list[tuple[int, ItemRecord]]
ALL = range(12)


def origin(_: int = 1) -> Origin:
    found = Origin.of(version(), embedder().embed)
    assert found is not None
    return found


def served(item: str, count: float, linear: float = 0.75) -> Served:
    return Served(item, {"linear": linear, "uniform": 1 - linear}, Outcomes(count, count / 2, count / 4))


class Journal:
    def __init__(self) -> None:
        self.rows: Changes = []

    def put(self, item: str, body: dict[str, Any] | None, client: str = "shop") -> None:
        text = None if body is None else json.dumps(body)
        self.rows.append((len(self.rows) + 1, ItemRecord(client, item, text)))

    def changes(self, after: int) -> Changes:
        return [row for row in self.rows if row[0] > after]


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def library(tmp_path: Path, journal: Journal) -> Iterator[Library]:
    made = Library(tmp_path / "content", origin, journal.changes, "reward")
    yield made
    made.close()


def same(found: Entry, item: str, models: dict[str, float], count: float) -> bool:
    n = int(item[1:])
    assert np.array_equal(found.embedding_E, embeddings()[n])
    assert (found.provider_id, found.cluster) == (f"p{n % 6}", CLUSTER_OF[f"p{n % 6}"])
    assert found.models == pytest.approx(models)
    return found.outcomes["reward"].count == count


def test_an_entry_has_the_embedding_of_the_version_and_the_weights_of_the_learner(library: Library) -> None:
    begun = library.apply("shop", 1, [served("i4", 3), served("i0", 1, 0.2), served("nowhere", 5)])
    found = library.get("shop", 1, ["i0", "i4", "i5", "nowhere"])
    assert set(found) == {"i0", "i4"}
    assert same(found["i4"], "i4", {"linear": 0.75, "uniform": 0.25}, 3)
    assert found["i0"].outcomes["reward"] == Outcomes(1, 0.5, 0.25)
    assert library.apply("shop", 1, [served("i4", 4, 0.9)]) == begun
    assert same(library.get("shop", 1, ["i4"])["i4"], "i4", {"linear": 0.9, "uniform": 0.1}, 4)
    assert library.get("other", 1, ["i4"]) == {}, "each client has its own"


def test_what_is_told_late_or_twice_changes_nothing(library: Library) -> None:
    library.apply("shop", 1, [served("i4", 9, 0.9)])
    for late in (served("i4", 8, 0.1), served("i4", 9, 0.9)):
        library.apply("shop", 1, [late])
        assert library.get("shop", 1, ["i4"])["i4"].outcomes["reward"].count == 9
        assert library.get("shop", 1, ["i4"])["i4"].models["linear"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "bad",
    [
        Served("i1", {"linear": 0.7, "uniform": 0.7}, Outcomes(1, 0.5, 0.25)),
        Served("i1", {"linear": -0.5, "uniform": 1.5}, Outcomes(1, 0.5, 0.25)),
        Served("i1", {"linear": 1.0}, Outcomes(2, float("nan"), 0.25)),
    ],
)
def test_weights_that_do_not_sum_to_one_and_rewards_that_are_no_numbers_are_refused_whole(
    library: Library, bad: Served
) -> None:
    with pytest.raises(DataError, match="i1"):
        library.apply("shop", 1, [served("i0", 1), bad])
    assert library.get("shop", 1, ["i0", "i1"]) == {}


def test_items_that_a_client_puts_and_deletes_reach_its_store(library: Library, journal: Journal) -> None:
    """With their own embedding, else with that of their text; the weights that they had stay."""
    library.apply("shop", 1, [served("i4", 3), served("i0", 1)])
    vector_E = (3 * direction("blue")).tolist()
    journal.put("mine", {"provider_id": "p1", "title": "x", "embedding": vector_E})
    journal.put("read", {"provider_id": "new", "title": "a green thing"})
    journal.put("wrong", {"title": "a red thing", "embedding": [1.0, 2.0]})
    journal.put("mute", {"price": 3.0})
    journal.put("i4", {"provider_id": "p0", "title": "it is blue now"})
    journal.put("i0", None)
    journal.put("i7", {"title": "red"}, client="other")
    library.follow()
    found = library.get("shop", 1, ["mine", "read", "wrong", "mute", "i4", "i0", "i7"])
    assert set(found) == {"mine", "read", "wrong", "i4"}
    colours = {"mine": "blue", "read": "green", "wrong": "red", "i4": "blue"}
    for item, colour in colours.items():
        np.testing.assert_allclose(found[item].embedding_E, direction(colour), atol=1e-6)
    places = {item: (one.provider_id, one.cluster) for item, one in found.items()}
    expected = {"mine": ("p1", "a"), "read": ("new", "a"), "wrong": (UNKNOWN, UNKNOWN), "i4": ("p0", "a")}
    assert places == expected, "a is half green, b a quarter"
    assert found["i4"].outcomes["reward"].count == 3
    library.apply("shop", 1, [served("i0", 2), served("i4", 4), served("mute", 1)])
    found = library.get("shop", 1, ["i0", "i4", "mute"])
    assert set(found) == {"i4"}, "what is deleted stays deleted, whatever is told of it"
    assert found["i4"].outcomes["reward"].count == 4
    np.testing.assert_allclose(found["i4"].embedding_E, direction("blue"), atol=1e-6)


def test_neighbours_are_those_of_brute_force_in_the_narrowest_scope(library: Library, journal: Journal) -> None:
    library.apply("shop", 1, [served(f"i{n}", n + 1) for n in ALL])
    query_1E = embeddings()[4][None]
    (everywhere,), entries = library.neighbours("shop", 1, query_1E, None, 3)
    expected = brute(embeddings()[4], ALL)
    assert (everywhere.scope, everywhere.item_ids) == ("all", [f"i{n}" for n, _ in expected])
    assert everywhere.similarity_K.tolist() == pytest.approx([s for _, s in expected], abs=1e-6)
    assert set(entries) == set(everywhere.item_ids)
    (own,), _ = library.neighbours("shop", 1, query_1E, "p1", 2)
    assert (own.scope, set(own.item_ids)) == ("provider", {"i1", "i7"})
    (near,), _ = library.neighbours("shop", 1, query_1E, "p1", 3)
    assert (near.scope, set(near.item_ids) <= {"i0", "i1", "i6", "i7"}) == ("cluster", True)
    (unknown,), _ = library.neighbours("shop", 1, query_1E, "p9", 3)
    assert unknown.scope == "all"
    assert library.neighbours("nobody", 1, query_1E, None, 3)[0][0].item_ids == []
    with pytest.raises(DataError, match="shape"):
        library.neighbours("shop", 1, np.ones((1, 3), np.float32), None, 3)


def test_a_restart_finds_what_was_acknowledged_and_what_came_meanwhile(tmp_path: Path, journal: Journal) -> None:
    def opened() -> Library:
        return Library(tmp_path / "content", origin, journal.changes, "reward")

    first = opened()
    begun = first.apply("shop", 1, [served("i4", 3)])
    journal.put("mine", {"title": "red"})
    first.follow()
    first.close()
    journal.put("mine", {"title": "blue"})
    journal.put("i4", None)
    again = opened()
    assert again.apply("shop", 1, [served("i1", 1)]) != begun, "who told the first one tells everything again"
    found = again.get("shop", 1, ["i1", "i4", "mine"])
    assert set(found) == {"i1", "mine"}
    np.testing.assert_allclose(found["mine"].embedding_E, direction("blue"), atol=1e-6)
    again.close()


def test_a_store_that_was_lost_begins_anew(tmp_path: Path, journal: Journal) -> None:
    journal.put("mine", {"title": "red"})
    for _ in range(2):
        library = Library(tmp_path / "content", origin, journal.changes, "reward")
        library.apply("shop", 1, [served("i1", 1)])
        assert set(library.get("shop", 1, ["mine", "i1"])) == {"mine", "i1"}
        library.close()
        shutil.rmtree(tmp_path / "content")


def test_two_versions_of_a_client_are_kept_and_older_ones_go(tmp_path: Path, journal: Journal) -> None:
    library = Library(tmp_path / "content", origin, journal.changes, "reward")
    for number in (1, 2, 3):
        library.apply("shop", number, [served("i1", number)])
    library.apply("other", 1, [served("i1", 5)])
    kept = {(p.parent.name, p.name) for p in (tmp_path / "content").glob("*/*")}
    assert {name for _, name in kept} == {"1", "2", "3"}
    assert len(kept) == 3, "two of shop, one of other"
    assert library.get("other", 1, ["i1"])["i1"].outcomes["reward"].count == 5
    library.apply("shop", 2, [served("i1", 7)])
    assert library.get("shop", 2, ["i1"])["i1"].outcomes["reward"].count == 7
    library.apply("shop", 1, [served("i2", 1)])
    assert set(library.get("shop", 1, ["i1", "i2"])) == {"i2"}, "one that comes back begins anew, and stays"
    library.close()


def test_nothing_is_kept_of_a_version_without_embeddings(tmp_path: Path, journal: Journal) -> None:
    assert Origin.of(serving.version(), None) is None
    library = Library(tmp_path / "content", lambda _: None, journal.changes, "reward")
    assert library.apply("shop", 1, [served("i1", 1)]) is None
    assert library.neighbours("shop", 1, embeddings()[:1], None, 3) == ([], {})
    assert not (tmp_path / "content").exists()


def test_a_second_process_is_refused_and_a_damaged_store_says_so(tmp_path: Path, journal: Journal) -> None:
    library = Library(tmp_path / "content", origin, journal.changes, "reward")
    library.apply("shop", 1, [served("i1", 1), served("i2", 1)])
    with pytest.raises(StateError):
        Library(tmp_path / "content", origin, journal.changes, "reward").apply("shop", 1, [])
    library.close()
    log = next((tmp_path / "content").rglob("log-*"))
    data = bytearray(log.read_bytes())
    data[30] ^= 0xFF
    log.write_bytes(bytes(data) + bytes(data[20:]))
    with pytest.raises(StateError, match="damaged"):
        Library(tmp_path / "content", origin, journal.changes, "reward").apply("shop", 1, [])


Step = tuple[str, int, int]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("served"), st.integers(0, 5), st.integers(1, 6)),
            st.tuples(st.just("put"), st.integers(0, 7), st.integers(0, 2)),
            st.tuples(st.just("delete"), st.integers(0, 7), st.just(0)),
            st.tuples(st.just("follow"), st.just(0), st.just(0)),
            st.tuples(st.just("restart"), st.just(0), st.just(0)),
        ),
        max_size=25,
    )
)
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_ends_as_a_dictionary_says(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    """Items 0 to 5 are the version's, 6 and 7 the client's alone. The learner tells a new process everything; then the
    order in which the two sides came makes no difference."""
    folder, journal = tmp_path_factory.mktemp("library"), Journal()

    def opened() -> Library:
        made = Library(folder, origin, journal.changes, "reward")
        made.apply("shop", 1, [])
        return made

    library = opened()
    pending: dict[str, str | None] = {}
    changed: dict[str, str | None] = {}
    learned: dict[str, Served] = {}
    for kind, item_number, value in steps:
        item = f"i{item_number}"
        if kind == "served":
            library.apply("shop", 1, [served(item, value)])
            if value >= learned.get(item, served(item, 0)).outcomes.count:
                learned[item] = served(item, value)
        elif kind in ("put", "delete"):
            pending[item] = serving.COLOURS[value] if kind == "put" else None
            journal.put(item, {"title": pending[item]} if kind == "put" else None)
        else:
            if kind == "follow":
                library.follow()
            else:
                library.close()
                library = opened()
                library.apply("shop", 1, list(learned.values()))
            changed |= pending
    library.follow()
    changed |= pending
    found = library.get("shop", 1, [f"i{n}" for n in range(8)])
    library.close()
    assert set(found) == {item for item in {*learned, *changed} if changed.get(item, "") is not None}
    for item, one in found.items():
        expected = direction(changed[item] or "") if item in changed else embeddings()[int(item[1:])]
        np.testing.assert_allclose(one.embedding_E, expected, atol=1e-6)
        assert one.outcomes.get("reward") == (learned[item].outcomes if item in learned else None)
        assert one.models == pytest.approx(dict(learned[item].models) if item in learned else {})


PROGRAM = """
import itertools, os, sys
from pathlib import Path
from actors.content.library import Library
from tests.store_worlds import say
from tests.test_library import origin, served
origin()
for line in sys.stdin:
    if child := os.fork():
        os.waitpid(child, 0)
        say("ended")
        continue
    say(os.getpid())
    library = Library(Path(sys.argv[1]), origin, lambda after: [], "reward")
    for n in itertools.count(int(line)):
        library.apply("shop", 1, [served(f"i{k}", n, 1 / (n + 1)) for k in range(6)])
        say(n)
"""


@pytest.mark.kills
def test_no_kill_leaves_half_an_entry_or_loses_an_acknowledged_one(tmp_path: Path) -> None:
    """Each entry's weights follow from its count, so that half an entry would be seen."""
    last, rng = 0, np.random.default_rng(0)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "content")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(12):
            process.stdin.write(f"{last + 1}\n")
            process.stdin.flush()
            child, last = int(process.stdout.readline()), int(process.stdout.readline())
            time.sleep(float(rng.uniform(0.0, 0.1)))
            os.kill(child, signal.SIGKILL)
            while (line := process.stdout.readline()) != "ended\n":
                last = int(line)
            library = Library(tmp_path / "content", origin, lambda _: [], "reward")
            found = library.get("shop", 1, [f"i{k}" for k in range(6)])
            library.close()
            assert len(found) == 6
            for item, one in found.items():
                count = one.outcomes["reward"].count
                assert count >= last, "acknowledged, and it is there"
                assert one.models["linear"] == pytest.approx(1 / (count + 1), rel=1e-6)
                assert one.outcomes["reward"] == Outcomes(count, count / 2, count / 4)
                assert np.array_equal(one.embedding_E, embeddings()[int(item[1:])])
            last = int(max(one.outcomes["reward"].count for one in found.values()))
        process.stdin.close()
