"""The job that regroups providers: planted audiences in a data set, day by day, from grouping to undoing."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import adjusted_rand_score

from actors.content.published import Published
from actors.content.regrouping import kept
from cluster.config import Settings
from cluster.errors import EvidenceError, RequestError, StateError
from cluster.providers import opened
from cluster.records import EVENTS, ITEMS, USERS, Dataset, encode
from cluster.registry import Registry
from tests.programs import ended
from tests.test_report import parse
from tune import report
from tune.predefined import Design
from tune.regrouping.first import First, first
from tune.regrouping.job import Job, move, undo
from tune.regrouping.models import LEAST, Sums, likelihood
from tune.regrouping.traffic import Traffic, number_of

START = datetime(2026, 1, 1, tzinfo=UTC)
PROVIDERS, ITEMS_EACH, DAYS, A_DAY = 9, 10, 80, 150
CHANGED, CHANGE_DAY, NEW, NEW_DAY = "p0", 45, "new", 50


def taste(provider: str, day: int) -> int:
    """The kind of audience, 0, 1 or 2: p0's changes from 0 to 1; the new provider's is 2."""
    if provider == NEW:
        return 2
    return 1 if provider == CHANGED and day >= CHANGE_DAY else int(provider[1:]) % 3


def planted(seed: int = 0, *, alike: bool = False) -> Dataset:
    """Nine providers and, later, a tenth, to whom the old come, the young, or both alike; to all the same if alike."""
    rng = np.random.default_rng(seed)
    names = [f"p{p}" for p in range(PROVIDERS)] + [NEW]
    price = {f"{name}-{i}": float(rng.uniform(1, 99)) for name in names for i in range(ITEMS_EACH)}
    rows = []
    for day in range(DAYS):
        for n in range(A_DAY):
            name = names[int(rng.integers(PROVIDERS + (day >= NEW_DAY)))]
            item = f"{name}-{rng.integers(ITEMS_EACH)}"
            slope = 0.8 if alike else (0.8, -0.8, 0.0)[taste(name, day)]
            age = float(rng.uniform(20, 70))
            click = float(rng.random() < 0.5 + slope * (age - 45) / 50)
            rows.append(
                {
                    "event_id": f"e{day}-{n}",
                    "timestamp": START + timedelta(days=day, seconds=500 * n),
                    "client_id": "c",
                    "user_id": f"u{rng.integers(2_000)}",
                    "context": encode({"age": age}),
                    "candidates": [item],
                    "item_id": item,
                    "propensity": 1.0,
                    "reward": click,
                    "reward_kind": "reward",
                }
            )
    items = [{"item_id": i, "provider_id": i.rpartition("-")[0], "price": value} for i, value in price.items()]
    return Dataset(
        "feedback", pa.Table.from_pylist(rows, EVENTS), pa.Table.from_pylist(items, ITEMS), USERS.empty_table()
    )


def quiet(done: int, total: int) -> None:
    assert 0 < done <= total


def test_from_grouping_to_undoing(tmp_path: Path) -> None:
    dataset = planted()
    settings = Settings.model_validate({"home": tmp_path / "home"})
    registry = Registry(settings.registry_uri)
    names = [*(f"p{p}" for p in range(PROVIDERS)), NEW]
    vectors = np.eye(3, dtype=np.float32)[[taste(name, 0) for name in names]]
    published = Published.of([f"{name}-0" for name in names], names, vectors, [], {})
    registry.ensure("shop-content")
    registry.publish("shop-content", published.save)

    facts = Job.of(dataset, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
    state, about = kept.load(registry.fetch("shop-regrouping"))
    assert about["until"] == number_of((START + timedelta(days=DAYS - 1)).date())
    old = [f"p{p}" for p in range(PROVIDERS)]
    first = [next(m.after for m in state.groups.moves if m.provider == name) for name in old]
    assert adjusted_rand_score([taste(name, 0) for name in old], first) == 1.0
    moves = [move for move in state.groups.moves if move.before is not None]
    assert {move.provider for move in moves} == {CHANGED}
    assert [moves[0].before, moves[-1].after] == [first[0], first[1]], "perhaps by way of the third"
    assert START.date() + timedelta(days=CHANGE_DAY) < datetime.fromisoformat(moves[0].day).date()
    assert state.groups.cluster_of[NEW] == first[2], "by its content"
    assert facts["tree_clusters"] == 3
    assert facts["gain_over_one_model"]["low"] > 0
    shown = {row["provider"]: row for row in json.loads((tmp_path / "regroup.json").read_text())["providers"]}
    assert shown["p3"]["cluster_before"] > shown["p3"]["one_model"]
    assert shown[CHANGED]["cluster_of_the_day"] > shown[CHANGED]["cluster_before"]
    tree = (tmp_path / "regroup.png").read_bytes()
    assert len(tree) > 10_000
    report.write(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"data:image/png;base64,{b64encode(tree).decode()}" in page
    seen = " ".join(parse(page).seen)
    row = shown[CHANGED]
    assert f"{CHANGED} {row['before']} {row['after']} {row['outcomes']:,} −{-row['one_model']:.4f}" in seen
    assert f"Move {moves[-1].number}: {CHANGED} to {moves[-1].after}: {moves[-1].reason}." in seen

    again = Job.of(dataset, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
    assert (again["version"], again["outcomes"]["watched"], again["moves"]) == (2, 0, [])
    assert kept.load(registry.fetch("shop-regrouping"))[0].groups == state.groups
    back = undo(settings, "shop", moves[-1].number, about["until"])
    assert (back["version"], back["provider"], back["cluster"]) == (3, CHANGED, moves[-1].before)
    there = move(settings, "shop", CHANGED, moves[-1].after, about["until"])
    assert (there["version"], there["provider"], there["cluster"]) == (4, CHANGED, moves[-1].after)
    with opened(settings) as providers:
        placed = providers.placed()
    assert {row.provider: row.cluster for row in placed} == state.groups.cluster_of
    assert {(row.name, row.version) for row in placed} == {("shop", 4)}
    with pytest.raises(RequestError, match="there is no cluster 'c9'"):
        move(settings, "shop", CHANGED, "c9", about["until"])


def grouped(dataset: Dataset) -> First:
    traffic = Traffic.of(dataset, Settings())
    middle = int(traffic.day_N[len(traffic) // 2])
    return first(traffic, traffic.feature_map(middle), middle, 0.05)


def test_clusters_of_a_data_set_are_found_where_there_are_any() -> None:
    """One audience is taken apart in at most 5 % of data sets: in three of six or more with a chance of 0.2 %."""
    for seed in range(6):
        found = grouped(planted(seed))
        assert adjusted_rand_score([taste(name, 0) for name in found.rows], found.tree.labels_P) >= 0.95
    alone = [int(grouped(planted(seed, alike=True)).tree.labels_P.max()) for seed in range(6)]
    assert sum(label > 0 for label in alone) <= 2


def test_two_runs_are_as_one(tmp_path: Path) -> None:
    """Days looked at in two runs, or in one: the same evidence, but for the feature map of the later run."""
    dataset = planted(1)
    events = dataset.events
    early = Dataset("feedback", events.slice(0, 60 * A_DAY), dataset.items, dataset.users)
    found = []
    for name, parts in (("two", (early, dataset)), ("one", (dataset,))):
        settings = Settings.model_validate({"home": tmp_path / name})
        for part in parts:
            Job.of(part, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
        found.append(kept.load(Registry(settings.registry_uri).fetch("shop-regrouping"))[0])
    assert {m.provider for m in found[0].groups.moves if m.before} == {CHANGED}
    partitions = [{frozenset(g.groups.members(c)) for c in g.groups.clusters} for g in found]
    assert partitions[0] == partitions[1]


def test_a_move_by_hand_during_a_run_is_not_lost(tmp_path: Path) -> None:
    dataset, settings = planted(), Settings.model_validate({"home": tmp_path})
    early, later = (
        Dataset("feedback", dataset.events.slice(0, d * A_DAY), dataset.items, dataset.users) for d in (30, 32)
    )
    Job.of(early, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
    registry = Registry(settings.registry_uri)
    before = kept.load(registry.fetch("shop-regrouping"))[0].groups
    moved = next(p for p, cluster in before.cluster_of.items() if cluster != before.cluster_of["p0"])

    def meanwhile(done: int, total: int) -> None:
        if len(registry.versions("shop-regrouping")) == 1:
            move(settings, "shop", moved, before.cluster_of["p0"], 20_000)

    with pytest.raises(StateError, match="changed meanwhile; run it again"):
        Job.of(later, settings, "shop", 0.05).run(tmp_path, anew=False, progress=meanwhile)
    Job.of(later, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
    moves = kept.load(registry.fetch("shop-regrouping"))[0].groups.moves
    assert [(m.provider, m.after) for m in moves[len(before.moves) :]] == [(moved, before.cluster_of["p0"])]


def test_too_little_is_said(tmp_path: Path) -> None:
    dataset = planted()
    settings = Settings.model_validate({"home": tmp_path})
    day = Dataset("feedback", dataset.events.slice(0, A_DAY), dataset.items, dataset.users)
    with pytest.raises(EvidenceError, match="one day or two"):
        Job.of(day, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
    few = Dataset(
        "feedback", dataset.events.slice(0, 3 * A_DAY).take(list(range(0, 450, 9))), dataset.items, dataset.users
    )
    with pytest.raises(EvidenceError, match="no provider has 30 users"):
        Job.of(few, settings, "shop", 0.05).run(tmp_path, anew=False, progress=quiet)
    nobodys = dataset.items.set_column(1, ITEMS.field(1), pa.nulls(len(dataset.items), pa.string()))
    with pytest.raises(EvidenceError, match="provider_id"):
        Job.of(Dataset("feedback", dataset.events, nobodys, dataset.users), settings, "shop", 0.05)


def test_models_by_hand() -> None:
    """One feature, two groups: ridge towards the model of all; the likelihood of a click and of none."""
    one = np.ones((4, 1))
    zero = np.zeros(4, np.int64)
    design = Design(one, zero, zero, np.array([1.0, 1.0, 0.0, 0.0]), zero)
    sums = Sums(2, 1, 1)
    sums.add(design, np.array([0, 0, 1, -1]))
    theta_GAD = sums.models(penalty=2.0)
    together = 2 / (4 + 1)
    assert theta_GAD.ravel() == pytest.approx([(2 + 2 * together) / 4, 2 * together / 3, together])
    q = theta_GAD[0, 0, 0]
    assert likelihood(theta_GAD, design)[:, 0] == pytest.approx(np.log([q, q, 1 - q, 1 - q]))
    assert likelihood(np.array([[[5.0]]]), design)[:, 0] == pytest.approx(np.log([1 - LEAST] * 2 + [LEAST] * 2))
    part = Sums(2, 1, 1)
    part.add(design.take(np.array([0])), np.array([0]))
    assert sums.models(2.0, without=part)[2, 0, 0] == pytest.approx(1 / 4)


def test_the_program_says_what_it_lacks(tmp_path: Path) -> None:
    command = ["tune.regroup", "--data", str(tmp_path)]
    done = ended(*command)
    assert done.returncode == 1
    assert done.stderr.startswith("regroup: ")
    assert "no finished import" in done.stderr
    for alpha in ("5", "nan", "0"):
        done = ended(*command, "--alpha", alpha)
        assert (done.returncode, "argument --alpha" in done.stderr) == (2, True)
    with pytest.raises(RequestError, match="`medley submit regroup`"):
        move(Settings.model_validate({"home": tmp_path}), "shop", "p0", "c1", 0)
