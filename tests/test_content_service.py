"""The content process with a real encoder: inline content, items that are put, and its end on Ray by kill -9."""

import asyncio
import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from ray.exceptions import RayError

from actors.content.cache import Cache
from actors.content.contents import Content
from actors.content.embedded import build
from actors.content.encoder import Encoder
from actors.content.published import CONTENT, ENCODER, Published, encoder_of
from actors.content.service import ContentService
from cluster import config
from cluster.config import ContentSettings, Settings
from cluster.errors import ModelError, RegistryError
from cluster.journal.journal import ItemRecord, Journal, journal_url
from cluster.registry import DEFAULT_NAME, Registry
from serve import processes
from serve.learning.service import LearnerService
from tests import content_serving, serving
from tests.content_serving import WIDTH
from tests.serving import Running
from tests.test_feedback import same, traffic, until

SMALL = ContentSettings(hidden=16, layers=1, pixels=16, dimension=WIDTH, tokens=16)
SOURCE = f"{CONTENT.format(DEFAULT_NAME)}/1"
RED = Content("a red thing")


def encoder() -> Encoder:
    return build([f"a {colour} thing" for colour in serving.COLOURS], SMALL, 0)


def vectors(*contents: Content) -> Any:
    """By the model itself."""
    parts = [content.parts()[0] for content in contents]
    return encoder().embed(parts).vectors_PE


@pytest.fixture
def settings(home: Path) -> Settings:
    """An encoder, embeddings that say that it made them, and a version that was made with these."""
    made = config.load(
        content=SMALL.model_dump(mode="json"),
        rewards={"reward": {"window_s": 0.2}},
        serve={"versions_refresh_s": 0.05, "checkpoint_s": 0.2, "publications_per_s": 50.0, "content_ms": 30_000.0},
    )
    registry, own = Registry(made.registry_uri), encoder()
    number = registry.publish(ENCODER.format(DEFAULT_NAME), own.save)
    facts = {"encoder": {"name": ENCODER.format(DEFAULT_NAME), "version": number}}
    table = Published.of(["i0"], ["p0"], content_serving.embeddings()[:1], [], facts)
    registry.publish(CONTENT.format(DEFAULT_NAME), table.save)
    serving.publish(made, content_serving.version(source=SOURCE))
    Journal(journal_url(made), made.rewards).close()
    return made


@pytest.fixture
def service(settings: Settings) -> Iterator[ContentService]:
    made = ContentService(settings, DEFAULT_NAME)
    yield made
    made.stop()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(file, "PNG")
    return file.getvalue()


def test_inline_content_is_read_by_the_encoder_of_the_versions_embeddings(service: ContentService) -> None:
    contents = [RED, Content("", png()), Content("", png()[:60]), Content(" ")]
    found = service.embed(1, contents)
    assert found is not None
    np.testing.assert_allclose(found.vectors_NE[:2], vectors(RED, contents[1]), atol=1e-5)
    assert found.there_N.tolist() == [True, True, False, False]
    assert {row for row, _ in found.problems} == {2, 3}
    assert found.encoded == 3
    again = service.embed(1, [RED])
    assert again is not None
    assert again.encoded == 0, "who asks again is answered from memory"
    assert np.array_equal(again.vectors_NE[0], found.vectors_NE[0])


def test_a_version_whose_items_came_with_embeddings_has_no_reader(settings: Settings, service: ContentService) -> None:
    assert service.embed(serving.publish(settings, content_serving.version(source="")), [RED]) is None
    assert service.embed(serving.publish(settings, serving.version()), [RED]) is None
    assert service.apply("shop", 3, []) is None
    with pytest.raises(RegistryError, match="no version 9"):
        service.embed(9, [RED])


def test_an_encoder_that_cannot_be_had_costs_nothing_but_its_vectors(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Items with an embedding of their own still reach the store, and so does what is told of them."""
    folder = Registry(settings.registry_uri).publish("broken", lambda at: (at / "encoder.json").write_text("{}"))
    about = {"encoder": {"name": "broken", "version": folder}}
    table = Published.of(["i0"], ["p0"], content_serving.embeddings()[:1], [], about)
    number = Registry(settings.registry_uri).publish(CONTENT.format("other"), table.save)
    broken = serving.publish(settings, content_serving.version(source=f"{CONTENT.format('other')}/{number}"))
    journal = Journal(journal_url(settings), settings.rewards)
    bodies = {"own": {"embedding": [1.0] + [0.0] * (WIDTH - 1)}, "text": {"title": "red"}}
    journal.items([ItemRecord("shop", item, json.dumps(body)) for item, body in bodies.items()]).result(10)
    service = ContentService(settings, DEFAULT_NAME)
    with pytest.raises(ModelError):
        service.embed(broken, [RED])
    assert service.apply("shop", broken, []) is not None
    assert set(service.get("shop", broken, ["own", "text"])) == {"own"}
    assert "not in the vector store" in caplog.text
    service.stop()
    journal.close()


def test_items_that_are_put_are_read_once_and_kept_on_disk(settings: Settings) -> None:
    journal = Journal(journal_url(settings), settings.rewards)
    journal.items([ItemRecord("shop", "mine", json.dumps({"title": "a red thing"}))]).result(10)
    first = ContentService(settings, DEFAULT_NAME)
    first.apply("shop", 1, [])
    journal.items([ItemRecord("shop", "later", json.dumps({"description": "a blue thing"}))]).result(10)
    until(lambda: "later" in first.get("shop", 1, ["later"]), "the change that came later")
    found = first.get("shop", 1, ["mine", "later"])
    expected = vectors(RED, Content("a blue thing"))
    for item, vector_E in zip(("mine", "later"), expected, strict=True):
        np.testing.assert_allclose(found[item].embedding_E, vector_E, atol=1e-5)
    first.embed(1, [Content("sent along")])
    first.stop()
    journal.close()
    own = encoder().fingerprint
    keys = [Content(text).parts()[0].key(own) for text in ("a red thing", "a blue thing", "sent along")]
    assert set(Cache(settings.folder("embeddings"), own).find(keys)) == set(keys[:2]), "what is sent along is not kept"


def test_embeddings_without_a_word_of_their_encoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no embeddings here"):
        encoder_of(tmp_path)
    (tmp_path / "content.json").write_text('{"encoder": {"name": "x"}}')
    with pytest.raises(ModelError, match="no embeddings here"):
        encoder_of(tmp_path)
    (tmp_path / "content.json").write_text('{"encoder": null}')
    assert encoder_of(tmp_path) is None


def running_now() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "ray::ContentProcess" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue  # it ended between the look and the question
    return found


@pytest.mark.ray
@pytest.mark.kills
def test_on_ray_nothing_is_lost_by_kill_9_and_serving_goes_on(ray_session: object, settings: Settings) -> None:
    find = partial(processes.ContentActor, settings, DEFAULT_NAME)
    inline = {"context": {"device": "mobile", "hour": 3}, "content": {"title": "a red thing"}}
    named = {"context": {"device": "mobile", "hour": 3}, "item_id": "i1"}

    def known(outcomes: int) -> bool:
        try:
            return same(settings, find(), outcomes)
        except RayError:
            return False  # it is being started

    async def body(r: Running) -> None:
        found = (await r.predict(inline)).json()["predictions"][0]
        assert (found["level"], found["reason"]) == ("all", None), "the encoder came within the wait"
        await traffic(r, 10)
        await asyncio.to_thread(until, lambda: known(10), "the store to know of 10 outcomes")
        (process,) = running_now()
        process.kill()
        await traffic(r, 10)
        answer = (await r.predict(named)).json()["predictions"][0]
        assert (answer["level"], len(answer["neighbours"])) == ("all", 3)
        assert (await r.decide({"context": inline["context"]})).json()["decisions"][0]["mode"] == "live"
        await asyncio.to_thread(until, lambda: known(21), "the store to know of 21 outcomes")
        assert [p.pid for p in running_now()] != [process.pid]
        (near,), entries = find().neighbours("shop", 1, content_serving.embeddings()[:1], None, 1)
        assert set(near.item_ids) == set(entries)

    async def main() -> None:
        learner = LearnerService(settings.model_dump(mode="json"), DEFAULT_NAME, find)
        async with serving.running(settings, learner, content=find) as r:
            await body(r)
        await learner.stop()

    try:
        asyncio.run(main())
    finally:
        processes.end_detached(settings, DEFAULT_NAME)
