"""Unknown users: decided for by priors of their own context, which a language model reads if it is there in time."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.bandits.ensemble import Ensemble
from actors.bandits.mixture import Mixture
from actors.bandits.version import Version
from actors.features.features import Floats
from actors.generator.generator import Generator
from actors.generator.train import train
from cluster import config
from cluster.config import ClientMode, ServeSettings, Settings
from cluster.journal.journal import Reader, journal_url
from cluster.registry import Registry
from serve import processes
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.asked import Asked, Code
from serve.decisions.catalogue import Large
from serve.decisions.current import load
from serve.decisions.deciding import Call, Deciding
from serve.decisions.reading import Reading, Told
from serve.messages import DecisionRequest
from serve.observed.metrics import Metrics
from serve.releases import Releases
from serve.replay import asked_again, replay
from tests import serving

NAME, OWN = "medley", "medley-generator"
MOBILE = {"device": "mobile", "hour": 3}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@cache
def generator() -> Generator:
    """Trained for some steps on what the served version is made of."""
    steps = {"hidden": 16, "layers": 1, "tokens": 24, "backbone_steps": 3, "head_steps": 90, "codes": 2, "rank": 2}
    data, settings = serving.dataset(), Settings.model_validate({"generator": steps})
    feature_map = serving.version().feature_map
    return train(data, feature_map, np.arange(300), np.arange(300, 400), settings, progress=False)


def version(**changes: Any) -> Version:
    """A served version whose generated member has that generator; the decoder is moved so that codes tell."""
    made, own = serving.version(), generator()
    codes = own.contexts.encoder_QX.shape[0]
    decoder, rng = own.decoder, np.random.default_rng(0)
    loud = {name: rng.normal(size=getattr(decoder, name).shape) for name in ("last_OW", "direct_OI", "shift_ADR")}
    member = Mixture(
        name="generated",
        means_CAD=own.mean_AD[None],
        factor_ADD=np.linalg.cholesky(own.covariance_ADD),
        ranks_CADR=decoder.spread_ADR[None],
        noise=own.head.noise.item(),
        encoder_HX=own.contexts.encoder_QX,
        prototypes_CH=np.ones((1, codes)),
        temperature=0.1,
        names_C=("p0z0",),
        decoder=replace(decoder, **loud),
    )
    ensemble: Ensemble = made.ensemble
    members, values_M = (*ensemble.members, member), np.append(ensemble.values_M, 0.4)
    ensemble = replace(ensemble, members=members, values_M=values_M)
    facts = {"name": "test", "generator": {"name": OWN, "version": 1, "reader": "language"} | changes}
    return replace(made, ensemble=ensemble, facts=facts)


def published(**settings: Any) -> Settings:
    made = config.load(rewards={"reward": {"window_s": 0.3}}, serve=settings)
    Registry(made.registry_uri).publish(OWN, generator().save)
    serving.publish(made, version())
    return made


class Model:
    """In this process, as slow as it is told to be."""

    def __init__(self, slow_s: float = 0.0) -> None:
        self.slow_s, self.told = slow_s, 0

    async def codes(self, generator_: tuple[str, int], told: Sequence[Told]) -> Floats:
        assert generator_ == (OWN, 1)
        self.told += len(told)
        await asyncio.sleep(self.slow_s)
        texts = [generator().serialiser.text(context) for context, _ in told]
        return generator().text_codes(texts)


def logged(settings: Settings, decision_id: str) -> Floats | None:
    """The code that a decision was made with."""
    record = Reader(journal_url(settings)).decision(decision_id)
    assert record is not None
    assert record.evidence is not None
    code = evidence.unpack(record.evidence).code
    return None if code is None else evidence.unpack_numbers(code)


def same_again(settings: Settings, *ids: str) -> bool:
    """Whether they replay to the bit, with no language model."""
    reader, releases = Reader(journal_url(settings)), Releases(Registry(settings.registry_uri), NAME)
    return all(replay(settings, reader, releases.load, one).same for one in ids)


async def ask(running: serving.Running, user: str | None, **context: Any) -> dict[str, Any]:
    answer = (await running.decide({"user_id": user, "context": MOBILE | context})).json()["decisions"][0]
    return dict(answer)


def test_the_code_is_there_for_the_next_decision_and_in_the_log(home: Path) -> None:
    """A model that starts, one that is in time, and one that is too slow: who is answered for by which code."""
    settings, model, answers = published(generate_ms=5_000.0), Model(), {}

    async def main() -> None:
        async with serving.running(settings, reader=lambda: model) as running:
            answers["starting"] = await ask(running, "new")
            deadline = time.monotonic() + 60
            while running.parts.reading._asked and time.monotonic() < deadline:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            answers["kept"] = await ask(running, "new")
            answers["read"] = await ask(running, "other", hour=5)
            about = {"user_id": "new", "context": MOBILE}
            answers["alone"] = (await running.decide({**about, "items": ["i3"]})).json()["decisions"][0]
            answers["predicted"] = (await running.predict({**about, "item_id": "i3"})).json()["predictions"][0]
            answers["nobody"] = await ask(running, None)
            model.slow_s = 0.5
            answers["late"] = await ask(running, "late", hour=7)
            counts = {labels[0]: n for (name, labels), n in running.metrics.counts.items() if "contexts_read" in name}
            assert counts == {"late": 2.0, "kept": 3.0, "read": 1.0}

    settings = settings.model_copy(update={"serve": settings.serve.model_copy(update={"generate_ms": 200.0})})
    asyncio.run(main())
    assert model.told == 3
    decided = {name: answer for name, answer in answers.items() if name != "predicted"}
    found = {name: logged(settings, answer["decision_id"]) for name, answer in decided.items()}
    assert found["starting"] is found["nobody"] is found["late"] is None
    for name, hour in (("kept", 3), ("read", 5)):
        text = generator().serialiser.text(MOBILE | {"hour": hour})
        assert np.array_equal(found[name], np.asarray(generator().text_codes([text])[0], np.float32))
    predicted, slot = answers["predicted"]["probability"], answers["alone"]["slots"][0]
    assert predicted == pytest.approx(min(max(slot["score"], 0.0), 1.0), abs=1e-9), "predictions know the code too"
    means = [answers[name]["slots"][0]["contributions"]["generated"] for name in ("starting", "kept")]
    assert means[0] != means[1], "the encoder's code and the model's are told apart"
    assert same_again(settings, *(answer["decision_id"] for answer in decided.values()))


@pytest.mark.parametrize("mode", ["live", "shadow", "apprentice"])
@pytest.mark.parametrize("large", [None, Large(6, 2)])
def test_a_code_is_of_one_generator_and_stays_with_the_decision(mode: ClientMode, large: Large | None) -> None:
    engine, request = Engine(seed=1), DecisionRequest(user_id="new", context=MOBILE, slots=3)
    engine.install(load(1, version(), large))
    code_H = np.random.default_rng(1).normal(size=len(generator().contexts.encoder_QX))
    ours, theirs, none = (
        engine.decide_many([Asked("shop", request, "D1", mode=mode, code=code)])[0]
        for code in (Code((OWN, 1), code_H), Code((OWN, 2), code_H), None)
    )
    assert (theirs.answer, theirs.shadow) == (none.answer, none.shadow)
    assert (ours.answer, ours.shadow) != (none.answer, none.shadow)
    again = engine.decide_many([asked_again(ours, (OWN, 1))])[0]
    assert (again.answer, again.shadow, again.evidence) == (ours.answer, ours.shadow, ours.evidence)


@pytest.mark.parametrize("changes", [{"reader": "numeric"}, {"version": 1}])
def test_nobody_reads_for_whom_no_model_is_needed(home: Path, changes: dict[str, Any]) -> None:
    """Without a language model, or with a wait of 0."""
    settings = published(generate_ms=0.0 if "version" in changes else 5_000.0)
    serving.publish(settings, version(**changes))
    model = Model()

    async def main() -> None:
        async with serving.running(settings, reader=lambda: model) as running:
            answer = await ask(running, "new")
            assert answer["version"] == 2
            assert logged(settings, answer["decision_id"]) is None

    asyncio.run(main())
    assert model.told == 0


@pytest.mark.anyio
async def test_nobody_reads_for_a_client_whom_no_model_answers(home: Path) -> None:
    model, settings = Model(), ServeSettings()
    engine, reading = Engine(seed=1), Reading(lambda: model, Metrics(), wait_ms=5_000.0)
    engine.install(load(1, version()))
    deciding = Deciding(engine, Reader(journal_url(published())), settings, reading=reading)
    request = DecisionRequest(user_id="new", context=MOBILE)
    modes: tuple[ClientMode, ...] = ("off", "shadow")
    for mode, told in zip(modes, (0, 1), strict=True):
        records, _ = await deciding(Call("shop", mode, [request], [mode], time.perf_counter()))
        await asyncio.sleep(0.1)
        assert (records[0].mode, model.told) == (mode, told)
    await reading.stop()
    deciding.close()


@pytest.mark.ray
def test_the_reader_on_ray_reads_what_the_generator_reads(ray_session: object, home: Path) -> None:
    settings, ids = published(generate_ms=5_000.0), []

    async def main() -> None:
        async with serving.running(settings, reader=partial(processes.ReaderActor, settings)) as running:
            deadline = time.monotonic() + 60
            code = None
            while code is None and time.monotonic() < deadline:
                ids.append((await ask(running, "new"))["decision_id"])
                code = logged(settings, ids[-1])
                await asyncio.sleep(0.1)
            text = generator().serialiser.text(MOBILE)
            np.testing.assert_allclose(code, generator().text_codes([text])[0], atol=1e-4)

    asyncio.run(main())
    assert same_again(settings, ids[0], ids[-1])
