"""The whole path: a log -> tasks -> language model -> head -> candidates -> a member that predicts better."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.bandits import pooled
from actors.bandits.history import History
from actors.bandits.own import Points
from actors.features.features import Features
from actors.generator import head
from actors.generator.backbone import Floats32
from actors.generator.candidates import Parameters, check
from actors.generator.generator import Generator
from actors.generator.tasks import Logged, Tasks, Traffic, build
from actors.generator.train import identified, train
from cluster.config import Settings
from cluster.errors import EvidenceError, ModelError, RegistryError
from cluster.records import Dataset
from tests.generator_worlds import COLOURS, OneHots, halves, planted

SETTINGS = Settings.model_validate(
    {
        "budgets": {"backbone_s": 600, "head_s": 600},
        "generator": {
            "hidden": 32,
            "layers": 1,
            "tokens": 48,
            "prototypes": 4,
            "backbone_steps": 60,
            "head_steps": 260,
        },
    }
)


@pytest.fixture(scope="module")
def log() -> Dataset:
    return planted(users=240, rows=12, seed=0)[0]


@pytest.fixture(scope="module")
def generator(log: Dataset) -> Generator:
    fit, stop = halves(log)
    return train(log, OneHots(), fit, stop, SETTINGS, progress=False)


def traffic(generator: Generator, log: Dataset) -> Traffic:
    return Traffic.of(log, halves(log)[1], generator.serialiser, OneHots(), limit=64, most=500, seed=0)


def test_contexts_that_tell_the_kind_lower_the_held_out_loss(generator: Generator) -> None:
    report = generator.report
    assert report.head.gain > 0.03
    assert (report.tasks, report.stop_tasks, report.tasks_left_out) == (192, 48, 0)
    assert report.backbone is not None
    assert report.backbone.best_loss < 0.5 * report.backbone.start_loss


def test_a_member_predicts_new_users_better_than_its_own_base(generator: Generator, log: Dataset) -> None:
    """First rewards of users that no part of the training saw, squared error, no history at all."""
    candidates = generator.candidates(traffic(generator, log), OneHots(), SETTINGS.generator, seed=0)
    assert candidates.dropped == {}
    member = candidates.mixture("generated")
    fresh, _ = planted(users=300, rows=4, seed=7)
    logged = Logged.of(fresh, np.arange(len(fresh.events)), OneHots(), 0.0, 1.0)
    tasks = build(fresh, logged, generator.serialiser, limit=64, most=999, seed=0)
    errors, base_errors = [], []
    for u in range(len(tasks)):
        n, context = tasks.start_U[u], tasks.context_UX[u]
        phi, arm = tasks.phi_ND[n : n + 1], tasks.arm_N[n : n + 1]
        history = History(phi[:0], arm[:0], tasks.reward_N[:0])
        given = member.condition(history, context)
        features = Features(phi, arm, arm, np.zeros(1, np.uint64), context)
        errors.append(tasks.reward_N[n] - given.responsibilities_C @ given.means(features)[:, 0])
        base_errors.append(tasks.reward_N[n] - phi[0] @ generator.mean_AD[0])
    gain = np.square(base_errors) - np.square(errors)
    assert gain.mean() > 2 * gain.std() / np.sqrt(len(gain))


def test_domains_part_the_users_and_prototypes_part_the_kinds(generator: Generator, log: Dataset) -> None:
    users = traffic(generator, log)
    candidates = generator.candidates(users, OneHots(), SETTINGS.generator, seed=0)
    assert len(candidates) == 4 * SETTINGS.generator.codes
    by_prototype = {int(p): d for p, d in zip(candidates.prototype_C, candidates.domains, strict=True)}
    assert sorted(key for keys in by_prototype.values() for key in keys) == sorted(users.keys)
    for text in candidates.texts:
        assert any(f"colour={colour}" in text for colour in COLOURS)


def test_batched_generation_is_one_call_per_candidate(generator: Generator) -> None:
    code = np.random.default_rng(0).normal(size=(5, generator.contexts.turn_HQ.shape[1]))
    whole = generator.generate(code)
    for j in range(5):
        alone = generator.generate(code[j : j + 1])
        rows = slice(j * 4, j * 4 + 4)
        np.testing.assert_allclose(whole.means_CAD[rows], alone.means_CAD, atol=1e-12)
        np.testing.assert_allclose(whole.ranks_CADR[rows], alone.ranks_CADR, atol=1e-12)


def test_a_saved_generator_generates_the_same(generator: Generator, log: Dataset, tmp_path: Path) -> None:
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path)
    assert loaded.report == generator.report
    one, two = (
        g.candidates(traffic(generator, log), OneHots(), SETTINGS.generator, seed=0) for g in (generator, loaded)
    )
    assert one.names == two.names
    np.testing.assert_allclose(one.means_CAD, two.means_CAD, atol=1e-5)
    np.testing.assert_array_equal(one.factor_ADD, two.factor_ADD)
    assert loaded.least_variance == generator.least_variance


def test_generators_saved_before_the_variance_of_clicks_was_fitted_have_a_hundredth(
    generator: Generator, tmp_path: Path
) -> None:
    generator.save(tmp_path)
    facts = json.loads((tmp_path / "generator.json").read_text())
    assert facts.pop("least_variance") not in (None, 0.01)
    for binomial, least in ((True, 0.01), (False, None)):
        (tmp_path / "generator.json").write_text(json.dumps(facts | {"binomial": binomial}))
        assert Generator.load(tmp_path).least_variance == least


def test_a_generator_without_language_model_reads_the_context_features(log: Dataset, tmp_path: Path) -> None:
    numeric = SETTINGS.model_copy(update={"generator": SETTINGS.generator.model_copy(update={"reader": "numeric"})})
    fit, stop = halves(log)
    generator = train(log, OneHots(), fit, stop, numeric, progress=False)
    assert generator.backbone is None
    assert generator.report.backbone is None
    assert generator.report.encoder_fit == 1.0
    assert generator.report.head.gain > 0.03
    users = traffic(generator, log)
    np.testing.assert_allclose(generator.codes(users), users.context_UX @ generator.contexts.encoder_QX.T, atol=1e-12)
    with pytest.raises(ModelError, match="reads no text"):
        generator.text_codes(users.texts)
    generator.save(tmp_path)
    assert not (tmp_path / "backbone").exists()
    loaded = Generator.load(tmp_path)
    assert loaded.report == generator.report
    one, two = (g.candidates(users, OneHots(), numeric.generator, seed=0) for g in (generator, loaded))
    np.testing.assert_array_equal(one.means_CAD, two.means_CAD)


def test_half_a_generator_is_refused(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path)
    (tmp_path / "generator.json").unlink()
    with pytest.raises(RegistryError, match="no finished generator here"):
        Generator.load(tmp_path)


def test_equal_steps_give_equal_bits_through_any_embedding_route(generator: Generator, log: Dataset) -> None:
    texts: list[int] = []

    def counted(backbone: object) -> object:
        def embed(some: list[str]) -> Floats32:
            texts.append(len(some))
            return backbone.embed(some)  # type: ignore[attr-defined, no-any-return]

        return embed

    fit, stop = halves(log)
    again = train(log, OneHots(), fit, stop, SETTINGS, route=counted, progress=False)  # type: ignore[arg-type]
    assert texts == [192, 48]
    for name, value in again.head.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), generator.head.state_dict()[name].numpy(), err_msg=name)


def test_the_pooled_prior_of_the_caller_is_the_base(generator: Generator, log: Dataset) -> None:
    fit, _ = halves(log)
    logged = Logged.of(log, fit, OneHots(), 0.0, 1.0)
    whole = pooled.fit(logged.phi_ND, logged.arm_N, logged.reward_N, 1)
    mean_AD = np.linalg.solve(whole.precision_ADD, whole.shift_AD[..., None])[..., 0]
    np.testing.assert_allclose(generator.mean_AD, generator.head.mean_scale.item() * mean_AD, atol=1e-10)


def test_candidates_for_another_feature_map_are_all_dropped_and_logged(
    generator: Generator, log: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    other = OneHots()
    other.fingerprint = "e" * 64
    with caplog.at_level(logging.WARNING):
        none = generator.candidates(traffic(generator, log), other, SETTINGS.generator, seed=0)
    assert len(none) == 0
    assert sum(none.dropped.values()) == 16
    assert "16 of 16 candidates dropped: fingerprint ffffffffffff" in caplog.text
    with pytest.raises(ModelError, match="one candidate at least"):
        none.mixture("generated")


def test_each_fault_of_parameters_is_told_apart() -> None:
    good = Parameters(np.zeros((3, 1, 2)), np.zeros((3, 1, 2, 1)), np.eye(2)[None], 0.1, "f")
    assert check(good, 1, 2, "f")[0].tolist() == [0, 1, 2]
    broken = good.means_CAD.copy()
    broken[1, 0, 0] = np.inf
    kept, dropped = check(dataclasses.replace(good, means_CAD=broken), 1, 2, "f")
    assert (kept.tolist(), dict(dropped)) == ([0, 2], {"not finite": 1})
    for change, reason in (
        ({"covariance_ADD": np.array([[[1.0, 2.0], [2.0, 1.0]]])}, "positive definite"),
        ({"covariance_ADD": np.full((1, 2, 2), np.nan)}, "not finite"),
        ({"noise": 0.0}, "not above zero"),
        ({"means_CAD": np.zeros((3, 1, 3))}, "do not fit 1 arms x 2 features"),
    ):
        kept, dropped = check(dataclasses.replace(good, **change), 1, 2, "f")
        assert len(kept) == 0
        assert reason in next(iter(dropped))


def test_a_table_without_users_makes_each_row_a_task(log: Dataset) -> None:
    rows = log.events.slice(0, 900)
    nobody = pa.nulls(900, pa.string())
    events = rows.set_column(3, rows.schema.field("user_id"), nobody)
    table = Dataset("table", events, log.items, log.users)
    few = SETTINGS.model_copy(
        update={
            "generator": SETTINGS.generator.model_copy(update={"tasks": 300, "backbone_steps": 5, "head_steps": 80})
        }
    )
    generator = train(table, OneHots(), np.arange(600), np.arange(600, 900), few, progress=False)
    assert (generator.report.tasks, generator.report.tasks_left_out, generator.report.stop_tasks) == (300, 300, 75)
    # A code for reward 1 and one for 0 would fit single rows exactly: one code, and a floor under σ².
    assert generator.head.codes == 1
    assert generator.head.noise.item() > 0.05
    assert generator.report.head.head_loss > -1.0


def test_what_single_rows_and_clicks_may_claim_is_bounded() -> None:
    sizes, clicks, amounts = np.array([0, 1, 2]), np.array([0.0, 1.0]), np.linspace(0, 1, 40)

    def tasks(start: np.ndarray, reward: np.ndarray) -> Tasks:
        n, keys = len(reward), ("u",) * (len(start) - 1)
        return Tasks(keys, keys, keys, np.zeros((len(keys), 1)), start, np.ones((n, 1)), np.zeros(n, np.int64), reward)

    assert identified(tasks(sizes, clicks), codes=4, noise=0.2) == (1, 0.1)
    assert identified(tasks(np.array([0, 2]), clicks), codes=4, noise=0.2) == (4, 0.05)
    assert identified(tasks(np.array([0, 20, 40]), amounts), codes=4, noise=0.2) == (4, 0.0)


def test_no_rewards_is_one_clear_error(log: Dataset) -> None:
    none = pa.nulls(len(log.events), pa.float64())
    place = log.events.schema.get_field_index("reward")
    events = log.events.set_column(place, log.events.schema.field("reward"), none)
    blank = Dataset("feedback", events, log.items, log.users)
    with pytest.raises(EvidenceError, match="has a reward"):
        train(blank, OneHots(), np.arange(10), np.arange(10, 20), SETTINGS, progress=False)


@pytest.mark.parametrize("arms", [1, 4])
def test_the_head_that_decides_is_the_head_that_was_trained(arms: int) -> None:
    """NumPy against torch: means and V of three contexts, at unit vectors; the last of several arms has neither."""
    rng = np.random.default_rng(arms)
    trained = head.Head(5, 3, 2, arms, 4, noise=0.3, seed=0)
    with torch.no_grad():
        for parameter in (trained.last, trained.direct):
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)))
    mean_AD, covariance_ADD = rng.normal(size=(arms, 4)), np.tile(np.eye(4), (arms, 1, 1))
    generator = Generator(*([None] * 3), trained, mean_AD, covariance_ADD, "f", None)  # type: ignore[arg-type]
    code_JQ = rng.normal(size=(3, 5))
    expected, plain = generator.generate(code_JQ), generator.decoder
    unit_DD, eye_ADD = np.eye(4), np.linalg.cholesky(covariance_ADD)
    for j, code_Q in enumerate(code_JQ):
        plain.check("generated", 5, (arms, 4))
        for arm in range(arms):
            points = Points.of(plain, eye_ADD, unit_DD, np.full(4, arm))
            rows, candidates = points.under(*plain.outputs(code_Q)), slice(3 * j, 3 * j + 3)
            np.testing.assert_allclose(rows.mean_CN, expected.means_CAD[candidates, arm], rtol=0, atol=1e-12)
            np.testing.assert_allclose(rows.rank_CNR, expected.ranks_CADR[candidates, arm], rtol=0, atol=1e-12)
