"""Fine-tuning of the generator in service: taken over where new users say so, and left where they do not."""

import asyncio
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from actors.bandits.ensemble import Admission
from actors.bandits.mixture import Mixture, reward_scale
from actors.bandits.version import Version
from actors.generator import tuning as generator_tuning
from actors.generator.generator import Generator
from actors.generator.people import People
from actors.generator.tasks import Logged, build
from actors.generator.train import Reading
from cluster.config import Settings
from cluster.journal.journal import Reader, journal_url
from cluster.records import Dataset
from cluster.registry import Registry
from tests.compose_cases import DISLIKED, LAMPS, LIKED, PLAIN, changed, proposed, quick, two_kinds
from tests.serving import running
from tune.composer import Composition
from tune.confirm import untested
from tune.groundwork import Groundwork
from tune.journal import evidence
from tune.keeping import kept
from tune.memory import Memory
from tune.refinement import Refinement
from tune.spending import Spending
from tune.stages import Stages
from tune.tuning import GeneratorTuning, tuning

NAME = "medley"


def traffic(users: int, seed: int = 5, **columns: Any) -> Dataset:
    """More users of the planted kinds, of names of their own, as a journal has them."""
    plain = two_kinds(users, 10, seed)
    n = len(plain.events)
    named = {"event_id": [f"j{k}" for k in range(n)], "version": [1] * n}
    who = [f"n{user}" for user in plain.events["user_id"].to_pylist()]
    people = plain.users.set_column(0, plain.users.schema.field(0), pa.array([f"nu{u}" for u in range(users)]))
    facts = {"fingerprint": "journal", "watermark": 77}
    return changed(replace(plain, users=people, facts=facts), user_id=who, **named | columns)


class Shop:
    """A registry whose first version has the generated member of `compose_cases.proposed`, or none."""

    def __init__(self, home: Path, generated: bool = True) -> None:
        self.settings: Settings = quick(home, features=PLAIN, rewards={"reward": {"window_s": 10.0}})
        self.registry, self.said, self.memory = Registry(self.settings.registry_uri), io.StringIO(), Memory()
        case, found = proposed(), untested("", Spending())
        if generated:
            found = replace(found, admission=Admission(True), value=0.5)
        made = Composition(case.work, case.base, "linear", case.proposal, found)
        self.registry.publish(NAME, made.version(Stages(None), made.kept(self.registry, NAME)).save)

    def tune(self, dataset: Dataset, new: pa.Array | None = None) -> dict[str, Any]:
        stages = Stages(None, Console(file=self.said, width=300))
        refinement = Refinement.of(dataset, self.settings, NAME, stages)
        ids = dataset.events["event_id"].combine_chunks() if new is None else new
        return GeneratorTuning(refinement, ids).go(self.memory)

    def version(self, number: int) -> Version:
        return Version.load(self.registry.fetch(NAME, number))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, Any]]:
    """500 new users of the kinds that the generator has seen 150 of, for 90 steps."""
    shop = Shop(tmp_path_factory.mktemp("home"))
    return shop, shop.tune(traffic(500))


def loss(generator: Generator, work: Groundwork) -> float:
    """Mean loss per reward of all users of `work`, by dense Gaussians from what the generator says of each context."""
    settings = work.settings
    rows = np.arange(len(work.dataset.events))
    logged = Logged.of(work.dataset, rows, work.feature_map, 0.0, 1.0)
    tasks = build(work.dataset, logged, generator.serialiser, limit=64, most=9_999, seed=settings.seed)
    said = generator.generate(generator.codes(tasks))
    codes, total = generator.head.codes, 0.0
    for u in range(len(tasks)):
        mine = slice(tasks.start_U[u], tasks.start_U[u + 1])
        mean_N = tasks.phi_ND[mine] @ generator.mean_AD[0] / generator.head.mean_scale.item()
        assert generator.least_variance is not None
        scale_N = reward_scale(mean_N, generator.least_variance)
        phi_ND, reward_N = tasks.phi_ND[mine] / scale_N[:, None], tasks.reward_N[mine] / scale_N
        logs = []
        for s in range(codes):
            ranks_DR = said.ranks_CADR[u * codes + s, 0]
            sigma_DD = said.covariance_ADD[0] + ranks_DR @ ranks_DR.T
            mean_N = phi_ND @ said.means_CAD[u * codes + s, 0]
            cov_NN = phi_ND @ sigma_DD @ phi_ND.T + said.noise * np.eye(len(mean_N))
            logs.append(multivariate_normal(mean_N, cov_NN).logpdf(reward_N))
        total += np.log(codes) - logsumexp(logs)
    return total / len(tasks.reward_N)


def test_a_generator_that_new_users_are_likelier_under_takes_over(tuned: tuple[Shop, dict[str, Any]]) -> None:
    shop, found = tuned
    assert (found["action"], found["running"], found["version"], found["new"]) == ("replace", 1, 2, 5_000)
    assert found["likelihood"]["risen"]
    assert 0 < found["likelihood"]["low"] < found["likelihood"]["gain"]
    assert found["admitted"]
    version = shop.version(2)
    assert version.generator == ("medley-generator", 2)
    about = [version.facts[key] for key in ("parents", "reason", "watermark", "events")]
    assert about == [[1], "generator", 77, 5_000]
    member = next(member for member in version.ensemble.members if isinstance(member, Mixture))
    assert set(version.facts["told"]["candidates"]) == set(member.names_C)
    assert version.feature_map.fingerprint == shop.version(1).feature_map.fingerprint
    assert "log likelihood of a held-out reward: +0.0" in shop.said.getvalue()


def test_users_whom_nobody_has_seen_are_likelier_too(tuned: tuple[Shop, dict[str, Any]]) -> None:
    """By other formulas, on 200 users of another seed: the gain is near the one that was said.

    That one has a standard error of 0.008 over 101 users, and this one of about 0.006: three of both together."""
    shop, found = tuned
    fresh = traffic(200, seed=99)
    fresh = changed(fresh, user_id=[f"f{user}" for user in fresh.events["user_id"].to_pylist()])
    badges = pa.array([f"fnu{u}" for u in range(200)])
    fresh = replace(fresh, users=fresh.users.set_column(0, fresh.users.schema.field(0), badges))
    work = Groundwork.of(fresh, shop.settings, shop.version(1).feature_map, world=0.0)
    before, after = (loss(kept(shop.registry, shop.version(number)), work) for number in (1, 2))
    assert before - after > 0
    assert before - after == pytest.approx(found["likelihood"]["gain"], abs=0.03)


def test_losses_are_those_of_dense_gaussians(tuned: tuple[Shop, dict[str, Any]]) -> None:
    """What the head says of its own loss, after a step, is what follows from the candidates that it makes."""
    shop, _ = tuned
    generator = kept(shop.registry, shop.version(1))
    still = shop.settings.model_copy(
        update={"generator": shop.settings.generator.model_copy(update={"head_steps": 1, "backbone_steps": 1})}
    )
    work = Groundwork.of(traffic(60), still, shop.version(1).feature_map, world=0.0)

    def tasks(rows: Any) -> Any:
        logged = Logged.of(work.dataset, rows, work.feature_map, 0.0, 1.0)
        return logged, build(work.dataset, logged, generator.serialiser, limit=64, most=999, seed=0)

    (logged, fit), (_, stop) = tasks(work.split.fit), tasks(work.split.stop)
    everyone = tasks(np.arange(len(work.dataset.events)))[1]
    reading = Reading(generator.serialiser, People.of(work.dataset.users), logged, fit, stop, 0)
    made = generator_tuning.tune(generator, reading, everyone, work.predefined.linear, still, progress=False)
    assert made.rows_U.sum() == len(work.dataset.events)
    assert made.after_U.sum() / made.rows_U.sum() == pytest.approx(loss(made.generator, work), rel=1e-6)


def test_where_only_the_likelihood_rises_the_gate_keeps_the_member_out(tmp_path: Path) -> None:
    """Rewards of another user: badges tell nothing any more, which a generator can learn and no member can use."""
    shop, lies = Shop(tmp_path), traffic(400, seed=6)
    rng = np.random.default_rng(0)
    noise = (rng.random(len(lies.events)) < 0.45).astype(float)
    found = shop.tune(changed(lies, reward=noise))
    assert found["likelihood"]["risen"]
    assert found["action"] == "keep"
    assert found["waits"].startswith("the gate: not shown to be better")
    assert shop.registry.versions(NAME) == [1]
    assert shop.registry.versions("medley-generator") == [1]


def test_new_users_who_teach_nothing_change_nothing_and_are_asked_again_when_there_are_more(tmp_path: Path) -> None:
    """Fit users' rewards are noise, the others' are not: what they teach, stop users undo and confirm users refuse."""
    shop, dataset = Shop(tmp_path), traffic(300, seed=8)
    split = Groundwork.of(dataset, shop.settings, shop.version(1).feature_map, world=0.0).split
    reward_N = dataset.events["reward"].to_numpy().copy()
    reward_N[split.fit] = np.random.default_rng(0).random(len(split.fit)) < 0.45
    misled = changed(dataset, reward=reward_N)
    first = shop.tune(misled)
    assert (first["action"], first["likelihood"]["risen"]) == ("keep", False)
    assert shop.registry.versions(NAME) == [1]
    again = shop.tune(misled)
    assert (again["action"], again["waits"]) == ("wait", "3,000 new events, 3,000 at the last try")
    assert shop.memory.tries("medley/1/generator") == 1


def test_only_events_after_the_watermark_teach(tmp_path: Path) -> None:
    """Of 3,000 events 40 are new, of too few users for a judgement; or one, of whom nobody judges."""
    shop, dataset = Shop(tmp_path), traffic(300)
    for new in (40, 1):
        found = shop.tune(dataset, dataset.events["event_id"].combine_chunks()[-new:])
        assert (found["action"], found["new"]) == ("wait", new)
        assert found["waits"].endswith("new users to judge by, 30 needed")


async def served(settings: Settings, users: int, each: int) -> float:
    """Decisions over HTTP for users of the planted kinds, and their clicks; returns how many once all are final."""
    rng = np.random.default_rng(3)
    ember_U, who_N = rng.integers(2, size=users), rng.permutation(np.repeat(np.arange(users), each))
    clicks, reader = 0, Reader(journal_url(settings))
    async with running(settings) as run:
        for start in range(0, len(who_N), 64):
            part = who_N[start : start + 64]
            badges = ["ember" if ember_U[u] else "frost" for u in part]
            contexts = [{"hour": int(u % 24), "badge": badge} for u, badge in zip(part, badges, strict=True)]
            asked = [
                {"user_id": f"s{u}", "items": list(LAMPS), "context": c} for u, c in zip(part, contexts, strict=True)
            ]
            answered = (await run.decide(*asked)).json()["decisions"]
            liked = [
                answer["slots"][0]["item_id"].startswith("red" if badge == "ember" else "blue")
                for answer, badge in zip(answered, badges, strict=True)
            ]
            clicked = rng.random(len(part)) < np.where(liked, LIKED, DISLIKED)
            rewards = [
                {"decision_id": answer["decision_id"], "kind": "reward", "value": 1.0, "slot": 0}
                for answer, click in zip(answered, clicked, strict=True)
                if click
            ]
            clicks += (await run.reward(*rewards)).json()["accepted"]
        while reader.last_outcome() < len(who_N):
            await asyncio.sleep(0.05)
    reader.close()
    return clicks


def test_what_was_served_teaches_the_generator(tmp_path: Path) -> None:
    """From decisions and clicks over HTTP by way of the journal: all of them are read, and held-out users likelier."""
    shop, users, each = Shop(tmp_path), 400, 10
    clicks = asyncio.run(served(shop.settings, users, each))
    reader = Reader(journal_url(shop.settings))
    dataset = evidence(shop.settings, reader, NAME)
    assert dataset.events["reward"].to_numpy().sum() == clicks
    refinement = Refinement.of(dataset, shop.settings, NAME, Stages(None, Console(file=shop.said, width=300)))
    found = tuning(refinement, reader).go(Memory())
    reader.close()
    assert (found["running"], found["new"]) == (1, users * each)
    assert found["likelihood"]["risen"]
    assert shop.registry.versions(NAME) == ([1, 2] if found["admitted"] else [1])


def test_a_version_without_a_generator_waits_for_one(tmp_path: Path) -> None:
    found = Shop(tmp_path, generated=False).tune(traffic(60))
    assert (found["action"], found["waits"]) == ("wait", "version 1 has no generated member")
