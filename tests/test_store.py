"""The vector store's answers: against brute force, and against a plain dict of entries."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actors.content.vectors.entry import Delete, Entry, Feedback, Filter, Move, Outcomes, Put
from actors.content.vectors.space import Space
from actors.content.vectors.store import Store
from cluster.errors import DataError, StateError
from tests.store_worlds import WIDTH, clustered, entries, nearest, vectors


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "store", WIDTH) as found:
        yield found


def filled(store: Store, count: int = 60) -> list[Entry]:
    found = entries(vectors(count, 1))
    store.commit([Put(entry) for entry in found])
    return found


def check(store: Store, among: list[Entry], k: int, **scope) -> None:
    """The store's answers to some queries are those of brute force."""
    query_QE = vectors(4, 2)
    for query_E, found in zip(query_QE, store.search(query_QE, k, **scope), strict=True):
        item_ids, similarities = nearest(query_E, among, k)
        assert found.item_ids == item_ids
        assert found.similarity_K == pytest.approx(similarities, abs=1e-6)


def test_the_nearest_of_the_provider_within_the_cluster(store: Store) -> None:
    found = filled(store)
    own = [e for e in found if e.provider_id == "p2"]
    check(store, own, 5, cluster="c0", provider_id="p2")
    assert store.search(vectors(1, 2), 5, "c0", "p2")[0].scope == "provider"


def test_who_has_too_few_is_answered_from_the_cluster_and_then_from_all(store: Store) -> None:
    found = filled(store, 60)  # 12 a provider; p0, p2 and p4 in c0, p1 and p3 in c1
    cluster = [e for e in found if e.cluster == "c1"]
    for scope, k, among in (("provider", 12, "p1"), ("cluster", 13, None), ("cluster", 24, None), ("all", 25, None)):
        assert store.search(vectors(1, 2), k, "c1", "p1")[0].scope == scope
        chosen = [e for e in cluster if e.provider_id == among] if among else cluster if scope == "cluster" else found
        check(store, chosen, k, cluster="c1", provider_id="p1")


def test_an_unknown_provider_is_answered_from_its_cluster_and_an_unknown_cluster_from_all(store: Store) -> None:
    found = filled(store)
    check(store, [e for e in found if e.cluster == "c0"], 5, cluster="c0", provider_id="new")
    check(store, found, 5, cluster="new", provider_id="p1")
    check(store, found, 5)


def test_without_entries_there_are_no_neighbours(store: Store) -> None:
    (found,) = store.search(vectors(1, 2), 5, "c0", "p0")
    assert (found.item_ids, len(found.similarity_K), found.scope) == ([], 0, "all")
    filled(store)
    (found,) = store.search(vectors(1, 2), 5, "c0", "p0", Filter(["nobody"]))
    assert (found.item_ids, found.scope) == ([], "all")


def test_all_that_there_are_where_they_are_fewer_than_k(store: Store) -> None:
    found = filled(store, 7)
    check(store, found, 7)
    assert store.search(vectors(1, 2), 20)[0].item_ids == nearest(vectors(1, 2)[0], found, 7)[0]


def test_an_items_own_entry_is_not_its_neighbour(store: Store) -> None:
    found = filled(store)
    query_QE = np.stack([found[3].embedding_E, found[4].embedding_E, vectors(1, 2)[0]])
    answers = store.search(query_QE, 5, own=["i3", None, "nobody"])
    others = [e for e in found if e.item_id != "i3"]
    expected = [nearest(q, among, 5)[0] for q, among in zip(query_QE, (others, found, found), strict=True)]
    assert [answer.item_ids for answer in answers] == expected
    assert answers[1].item_ids[0] == "i4"


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_filter_of_items_and_of_providers(store: Store, share: float) -> None:
    found = filled(store, 200)
    rng = np.random.default_rng(3)
    ids = [e.item_id for e in found if rng.random() < share]
    some = [e for e in found if e.item_id in ids]
    for _ in range(2):  # the second time what is selected is known
        check(store, some, 5, where=Filter([*ids, "nobody", ids[0]]))
        check(
            store, [e for e in found if e.provider_id in ("p1", "p4")], 5, where=Filter(providers=["p1", "p4", "new"])
        )
        both = [e for e in some if e.provider_id == "p1"]
        check(store, both, len(both), where=Filter(ids, ["p1"]))
        inside = [e for e in some if e.cluster == "c1"]
        check(store, inside, len(inside), cluster="c1", where=Filter(ids))
    store.commit([Delete(ids[0]), Put(replace(found[0], item_id=ids[1]))])
    changed = [e for e in some[2:] if e.item_id != ids[1]] + [replace(found[0], item_id=ids[1])]
    check(store, changed, 5, where=Filter(ids))


def test_equal_ones_come_in_the_order_in_which_they_came(store: Store) -> None:
    same_E = vectors(1, 4)[0]
    store.commit([Put(Entry(f"i{n}", "p", "c", same_E)) for n in range(9)])
    assert store.search(same_E[None], 5)[0].item_ids == ["i0", "i1", "i2", "i3", "i4"]


def test_one_query_and_many_have_the_same_bits(store: Store) -> None:
    filled(store, 500)
    query_QE = vectors(64, 5)
    many = store.search(query_QE, 7)
    for query_E, found in zip(query_QE, many, strict=True):
        (one,) = store.search(query_E[None], 7)
        assert one.item_ids == found.item_ids
        assert one.similarity_K.tobytes() == found.similarity_K.tobytes()


def test_an_entry_comes_back_as_it_was_put(store: Store) -> None:
    sums = {"click": Outcomes(2.0, 1.0, 1.0)}
    entry = Entry("ïtem \n1", "p", "c", vectors(1, 1)[0], {"cluster/c": 0.25, "linear": 0.75}, sums)
    store.commit([Put(entry)])
    assert store.get([entry.item_id, "nobody"]) == {entry.item_id: entry}
    store.checkpoint()
    assert store.get([entry.item_id]) == {entry.item_id: entry}
    assert len(store) == 1


def test_a_reward_moves_the_sums_of_its_kind_and_takes_embedding_and_weights(tmp_path: Path) -> None:
    first_E, second_E = vectors(2, 1)
    with Store(tmp_path, WIDTH, half_life=1.0) as store:  # each reward halves what was
        store.commit([Feedback(Entry("i", "p", "c", first_E, {"a": 1.0}), "click", 3.0)])
        store.commit(
            [
                Feedback(Entry("i", "p", "c", first_E, {"a": 1.0}), "stay", 5.0),
                Feedback(Entry("i", "p", "d", second_E, {"a": 0.5, "b": 0.5}), "click", -1.0),
            ]
        )
        found = store.get(["i"])["i"]
    # click: count 1, then 1/2 + 1; reward 3, then 3/2 - 1; square 9, then 9/2 + 1
    assert found.outcomes == {"click": Outcomes(1.5, 0.5, 5.5), "stay": Outcomes(1.0, 5.0, 25.0)}
    assert (found.provider_id, found.cluster, found.models) == ("p", "d", {"a": 0.5, "b": 0.5})
    assert found.embedding_E.tobytes() == second_E.tobytes()


def test_an_item_of_another_provider_begins_anew(store: Store) -> None:
    for provider in ("p", "q"):
        store.commit([Feedback(Entry("i", provider, "c", vectors(1, 1)[0]), "click", 1.0)])
        assert store.get(["i"])["i"].outcomes == {"click": Outcomes(1.0, 1.0, 1.0)}


def test_rewards_of_one_commit_follow_each_other_and_what_stands_before_them(store: Store) -> None:
    entry = Entry("i", "p", "c", vectors(1, 1)[0])
    store.commit([Feedback(entry, "click", 1.0), Feedback(entry, "click", 1.0)])
    assert store.get(["i"])["i"].outcomes["click"].count == pytest.approx(2, abs=0.01)
    store.commit([Delete("i"), Feedback(entry, "click", 1.0)])
    assert store.get(["i"])["i"].outcomes == {"click": Outcomes(1.0, 1.0, 1.0)}


def test_a_provider_moves_with_all_its_entries(store: Store) -> None:
    found = filled(store, 50)
    moved = [replace(e, cluster="c1") if e.provider_id == "p0" else e for e in found]
    store.commit([Move("p0", "c0", "c1"), Move("p0", "c0", "c1"), Move("nobody", "c0", "c1")])
    check(store, [e for e in moved if e.cluster == "c1"], 30, cluster="c1")
    check(store, [e for e in moved if e.cluster == "c0"], 20, cluster="c0")
    check(store, [e for e in moved if e.provider_id == "p0"], 5, cluster="c1", provider_id="p0")
    assert store.search(vectors(1, 2), 5, "c0", "p0")[0].scope == "cluster"


BAD = {
    "size": (Put(Entry("i", "p", "c", vectors(1, 1, 9)[0])), r"'i': embedding of shape \(9,\), expected \(8,\)"),
    "nan": (Put(Entry("i", "p", "c", vectors(1, 1)[0] * np.float32(np.nan))), "embedding of length nan"),
    "length": (Put(Entry("i", "p", "c", vectors(1, 1)[0] * 2)), "embedding of length 2, expected 1"),
    "weights": (Put(Entry("i", "p", "c", vectors(1, 1)[0], {"a": 0.5, "b": 0.4})), r"sum to 0\.9; expected"),
    "negative": (Put(Entry("i", "p", "c", vectors(1, 1)[0], {"a": 1.5, "b": -0.5})), "expected shares"),
    "weight nan": (Put(Entry("i", "p", "c", vectors(1, 1)[0], {"a": float("nan")})), "sum to nan"),
    "reward": (Feedback(Entry("i", "p", "c", vectors(1, 1)[0]), "click", float("nan")), "reward nan of kind 'click'"),
    "sums": (Put(Entry("i", "p", "c", vectors(1, 1)[0], {}, {"click": Outcomes(float("inf"))})), "finite sums"),
    "name": (Put(Entry("", "p", "c", vectors(1, 1)[0])), "item_id ''"),
    "provider": (Put(Entry("i", "", "c", vectors(1, 1)[0])), "'i': provider_id ''"),
    "nul": (Delete("a\0b"), "without the character NUL"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_refused_with_its_place_and_nothing_of_its_commit_is_done(store: Store, name: str) -> None:
    change, message = BAD[name]
    with pytest.raises(DataError, match=message) as error:
        store.commit([Put(Entry("good", "p", "c", vectors(1, 1)[0])), change])
    assert str(error.value).startswith("change 1: ")
    assert len(store) == 0


def test_queries_of_another_size_or_not_finite_are_refused(store: Store) -> None:
    for query_QE in (vectors(1, 1, 9), vectors(1, 1)[0], np.full((1, WIDTH), np.nan, np.float32)):
        with pytest.raises(DataError, match=r"expected finite numbers in \(queries, 8\)"):
            store.search(query_QE, 5)
    with pytest.raises(DataError, match="k = 0"):
        store.search(vectors(1, 1), 0)


def test_rounding_is_scaled_away_once_and_then_stays_bit_by_bit(store: Store) -> None:
    rough_E, weights = vectors(1, 1)[0] * np.float32(1.0005), {"a": 0.3334, "b": 0.3333, "c": 0.3334}
    store.commit([Put(Entry("i", "p", "c", rough_E, weights))])
    found = store.get(["i"])["i"]
    assert np.linalg.norm(found.embedding_E.astype(float)) == pytest.approx(1, abs=1e-6)
    assert sum(found.models.values()) == pytest.approx(1, abs=1e-12)
    store.commit([Put(found)])
    assert store.get(["i"])["i"].embedding_E.tobytes() == found.embedding_E.tobytes()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path, WIDTH), pytest.raises(StateError, match="another process has this vector store open"):
        Store(tmp_path, WIDTH)
    Store(tmp_path, WIDTH).close()


def test_a_large_space_gets_cells_and_still_finds_the_nearest(tmp_path: Path) -> None:
    """Recall at 10 of what a filter by chance, by content and no filter leave; the goal is 0.99."""
    count = 20_000
    vectors_NE, query_QE = clustered(count, 1), clustered(200, 2)
    rng = np.random.default_rng(5)
    with Store(tmp_path, 16) as store:
        store.commit([Put(e) for e in entries(vectors_NE, providers=2, clusters=1)])
        exact = store.search(query_QE, 10)
        store.checkpoint()
        cells = store._memory._clusters["c0"].space.cells
        assert cells is not None
        assert cells.probes(count, 1.0) > 0  # what follows does look into some cells only
        filters = {
            "none": np.ones(count, bool),
            "half": rng.random(count) < 0.5,
            "hundredth": rng.random(count) < 0.01,
            "by content": vectors_NE[:, 0] > 0,  # half of the sphere: queries of the other half have theirs far away
        }
        for name, kept_N in filters.items():
            where = None if name == "none" else Filter([f"i{n}" for n in np.flatnonzero(kept_N)])
            similarity_QN = np.where(kept_N, query_QE.astype(float) @ vectors_NE.astype(float).T, -2)
            truth_Q = np.sort(similarity_QN, 1)[:, -10]
            answers = store.search(query_QE, 10, where=where)
            hits = [(a.similarity_K >= t - 1e-6).sum() for a, t in zip(answers, truth_Q, strict=True)]
            assert sum(hits) / 2_000 >= 0.99, name
        truth_QK = -np.sort(-(query_QE.astype(float) @ vectors_NE.astype(float).T), 1)[:, :33]
        assert np.stack([a.similarity_K for a in store.search(query_QE, 33)]) == pytest.approx(truth_QK, abs=1e-6)
        assert np.mean([a.item_ids == b.item_ids for a, b in zip(exact, store.search(query_QE, 10), strict=True)]) > 0.9
        changed = [Delete(f"i{n}") for n in range(0, count, 3)]
        new = [Put(Entry(f"new{n}", "p0", "c0", query_E)) for n, query_E in enumerate(query_QE)]
        store.commit([*changed, *new, Put(Entry("i1", "p1", "c0", query_QE[0]))])
        answers = store.search(query_QE, 10)
        assert all(f"new{n}" in answer.item_ids for n, answer in enumerate(answers))
        assert "i1" in answers[0].item_ids
        assert not any(int(i[1:]) % 3 == 0 for answer in answers for i in answer.item_ids if i.startswith("i"))


def test_cells_that_are_not_worth_it_are_neither_kept_nor_fitted_again(tmp_path: Path) -> None:
    """Uniform on the sphere: the nearest of a query are in all directions."""
    vectors_NE, query_QE = vectors(8_500, 1, 48), vectors(20, 2, 48)
    with Store(tmp_path, 48) as store:
        store.commit([Put(e) for e in entries(vectors_NE, 1, 1)])
        store.checkpoint()
        store.commit([Put(Entry("new", "p0", "c0", query_QE[0]))])
        store.checkpoint()
        space = store._memory._clusters["c0"].space
        assert (space.cells, space.tried, len(space)) == (None, 8_500, 8_501)
        truth_QK = -np.sort(-(query_QE[1:].astype(float) @ vectors_NE.astype(float).T), 1)[:, :10]
        found_QK = [answer.similarity_K for answer in store.search(query_QE[1:], 10)]
        assert np.stack(found_QK) == pytest.approx(truth_QK, abs=1e-6)
        assert store.search(query_QE[:1], 1)[0].item_ids == ["new"]


def test_another_way_to_find_the_nearest_gives_the_same_answer() -> None:
    """Where a GPU has the vectors, FAISS's own index finds them; here one on the processor stands in its place."""
    import faiss

    made = []

    def flat(vectors_RE):
        made.append(len(vectors_RE))
        index = faiss.IndexFlatIP(vectors_RE.shape[1])
        index.add(np.ascontiguousarray(vectors_RE))
        return index

    vectors_NE, query_QE = vectors(300, 1), vectors(20, 2)
    plain, other = Space.empty(WIDTH), Space.empty(WIDTH, flat)
    for space in (plain, other):
        space.add(vectors_NE, np.arange(300))
        space.remove(4)
    for k in (3, 290, 299):
        ours, theirs = plain.nearest(query_QE, k), other.nearest(query_QE, k)
        assert (ours[0].tobytes(), ours[1].tolist()) == (theirs[0].tobytes(), theirs[1].tolist())
    assert made == [299]  # once for a generation
    other.add(vectors_NE[:1], np.array([300]))
    other.nearest(query_QE, 3)
    assert made == [299, 300]


class AsADict(RuleBasedStateMachine):
    """Whatever is done to it, a store answers as a plain dict of entries does."""

    @initialize(seed=st.integers(0, 2**31))
    def begin(self, seed: int) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name), WIDTH, half_life=2.0)
        self.model: dict[str, Entry] = {}
        self.rng = np.random.default_rng(seed)

    def entry(self, item: int, provider: int, cluster: int) -> Entry:
        vector_E = vectors(1, int(self.rng.integers(2**31)))[0]
        return Entry(f"i{item}", f"p{provider}", f"c{cluster}", vector_E, {"a": 0.5, f"provider/p{provider}": 0.5})

    items = st.integers(0, 11)
    few = st.integers(0, 2)

    @rule(item=items, provider=few, cluster=few)
    def put(self, item: int, provider: int, cluster: int) -> None:
        entry = self.entry(item, provider, cluster)
        self.store.commit([Put(entry)])
        self.model[entry.item_id] = entry

    @rule(item=items, provider=few, cluster=few, reward=st.sampled_from([0.0, 1.0, -2.5]))
    def feedback(self, item: int, provider: int, cluster: int, reward: float) -> None:
        entry = self.entry(item, provider, cluster)
        self.store.commit([Feedback(entry, "click", reward)])
        there = self.model.get(entry.item_id)
        old = there.outcomes if there is not None and there.provider_id == entry.provider_id else {}
        half, was = 0.5**0.5, old.get("click", Outcomes())
        sums = Outcomes(half * was.count + 1, half * was.reward + reward, half * was.square + reward**2)
        self.model[entry.item_id] = replace(entry, outcomes={**old, "click": sums})

    @rule(several=st.lists(items, max_size=5))
    def delete(self, several: list[int]) -> None:
        self.store.commit([Delete(f"i{item}") for item in several])
        for item in several:
            self.model.pop(f"i{item}", None)

    @rule(provider=few, source=few, goal=few)
    def move(self, provider: int, source: int, goal: int) -> None:
        self.store.commit([Move(f"p{provider}", f"c{source}", f"c{goal}")])
        for item_id, entry in self.model.items():
            if (entry.provider_id, entry.cluster) == (f"p{provider}", f"c{source}"):
                self.model[item_id] = replace(entry, cluster=f"c{goal}")

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(Path(self.folder.name), WIDTH, half_life=2.0)

    @invariant()
    def answers(self) -> None:
        assert self.store.get(f"i{n}" for n in range(12)) == self.model
        assert len(self.store) == len(self.model)
        query_E = vectors(1, int(self.rng.integers(2**31)))[0]
        ids = [f"i{n}" for n in range(12) if self.rng.random() < 0.5]
        for k in (1, 4):
            for where in (None, Filter(ids), Filter(ids, ["p0", "p2"])):
                (found,) = self.store.search(query_E[None], k, "c0", "p0", where)
                assert found.item_ids == self.expected(query_E, k, where)

    def expected(self, query_E, k: int, where: Filter | None) -> list[str]:
        may = [e for e in self.model.values() if where is None or self.passes(e, where)]
        scopes = [[e for e in may if (e.cluster, e.provider_id) == ("c0", "p0")], [e for e in may if e.cluster == "c0"]]
        return nearest(query_E, next((s for s in scopes if len(s) >= k), may), k)[0]

    @staticmethod
    def passes(entry: Entry, where: Filter) -> bool:
        return entry.item_id in where.item_ids and (where.providers is None or entry.provider_id in where.providers)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()


TestAsADict = AsADict.TestCase
TestAsADict.settings = hypothesis(max_examples=12, stateful_step_count=20, deadline=None)
