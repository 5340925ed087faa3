"""POST /v1/predictions from end to end in one process: a real engine, real keys, real HTTP."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.content.embedding import Embedded
from cluster import config
from cluster.config import Settings
from serve.predicting.encoding import NO_ENCODER
from tests import content_serving, serving
from tests.content_serving import CLUSTER_OF, Reader, brute, embeddings, png
from tests.serving import Running
from tests.test_fallback import Waiting, with_own

CONTEXT = {"device": "mobile", "hour": 3}
ALL = range(12)
OF_A = [n for n in ALL if CLUSTER_OF[f"p{n % 6}"] == "a"]


@pytest.fixture
def published(home: Any) -> Settings:
    settings = config.load(serve={"content_ms": 60_000.0, "versions_refresh_s": 0.05})
    serving.publish(settings, content_serving.version())
    return settings


def run(settings: Settings, body: Callable[[Running], Awaitable[Any]], content: Any = Reader) -> Any:
    async def main() -> Any:
        async with serving.running(settings, content=content) as replica:
            return await body(replica)

    return asyncio.run(main())


def near(prediction: dict[str, Any]) -> list[str]:
    return [one["item_id"] for one in prediction["neighbours"]]


def fault(answer: Any) -> tuple[int, list[Any]]:
    return answer.status_code, answer.json()["detail"][0]["loc"]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_an_item_of_the_catalogue_is_predicted_as_decisions_score_it(published: Settings) -> None:
    """And its neighbours are those of brute force; no other process is asked."""

    async def body(r: Running) -> None:
        for user in ("u1", None):
            answer = await r.predict(*({"user_id": user, "context": CONTEXT, "item_id": f"i{n}"} for n in ALL))
            assert answer.status_code == 200
            for n, found in enumerate(answer.json()["predictions"]):
                decided = await r.decide({"user_id": user, "context": CONTEXT, "items": [f"i{n}"]})
                slot = decided.json()["decisions"][0]["slots"][0]
                assert found["probability"] == pytest.approx(min(max(slot["score"], 0.0), 1.0), abs=1e-9)
                assert found["models"] == pytest.approx(slot["models"])
                assert (found["level"], found["reason"], found["version"]) == ("all", None, 1)
                expected = brute(embeddings()[n], ALL, own=n)
                assert near(found) == [f"i{j}" for j, _ in expected]
                assert [one["provider_id"] for one in found["neighbours"]] == [f"p{j % 6}" for j, _ in expected]
                assert [one["similarity"] for one in found["neighbours"]] == pytest.approx([s for _, s in expected])

    def nobody() -> Reader:
        raise AssertionError("no content process is needed for an item of the catalogue")

    run(published, body, nobody)


def test_inline_content_is_predicted_as_the_item_that_it_would_be(published: Settings) -> None:
    """By its own embedding, by its text, by its picture: as if it had been put and then named."""
    colour = {"category": "green", "price": 3.0, "title": "a green thing"}
    own = {**colour, "embedding": embeddings()[4].tolist()}

    async def body(r: Running) -> None:
        asked = {"user_id": "u1", "context": CONTEXT}
        inline = [
            {**asked, "content": own, "provider_id": "p1"},
            {**asked, "content": {**colour}, "provider_id": "p1"},
            {**asked, "content": {"image": encoded(png("green"))}},
        ]
        answer = await r.predict(*inline)
        assert answer.status_code == 200, answer.text
        given, text, picture = answer.json()["predictions"]
        green_E = content_serving.direction("green")
        assert near(given) == [f"i{n}" for n, _ in brute(embeddings()[4], OF_A)], "p1 alone has only two"
        assert near(text) == [f"i{n}" for n, _ in brute(green_E, OF_A)]
        assert near(picture) == [f"i{n}" for n, _ in brute(green_E, ALL)]
        assert [one["level"] for one in (given, text, picture)] == ["cluster", "cluster", "all"]
        for name, content, found in (("given", own, given), ("text", {**colour, "embedding": green_E.tolist()}, text)):
            put = await r.http.put(f"/v1/items/{name}", json={**content, "provider_id": "p1"}, headers=r.headers())
            assert put.status_code == 200
            named = (await r.predict({**asked, "item_id": name})).json()["predictions"][0]
            assert named == found
        assert picture["reason"] is None

    run(published, body)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"title": "  "}, "nothing to encode"),
        ({"price": 3.0}, "nothing to encode"),
        ({"image": encoded(b"\x89PNG and nothing")}, "no whole image"),
    ],
)
def test_content_that_cannot_be_read_is_predicted_without_neighbours(
    published: Settings, content: dict[str, Any], reason: str
) -> None:
    async def body(r: Running) -> None:
        found = (await r.predict({"context": CONTEXT, "content": content})).json()["predictions"][0]
        assert (found["level"], found["neighbours"]) == ("none", [])
        assert reason in found["reason"]
        assert 0 <= found["probability"] <= 1
        assert sum(found["models"].values()) == pytest.approx(1)

    run(published, body)


def test_a_corrupt_image_leaves_the_text(published: Settings) -> None:
    async def body(r: Running) -> None:
        content = {"title": "red", "image": encoded(b"GIF89a and nothing")}
        found = (await r.predict({"context": CONTEXT, "content": content})).json()["predictions"][0]
        assert near(found) == [f"i{n}" for n, _ in brute(content_serving.direction("red"), ALL)]
        assert found["reason"] == "no whole image"

    run(published, body)


def test_a_new_provider_is_of_the_cluster_that_it_is_like(published: Settings) -> None:
    """And content of nobody is compared with all items."""

    async def body(r: Running) -> None:
        asked = {"context": CONTEXT, "content": {"embedding": embeddings()[0].tolist()}}
        new, nobody = (await r.predict({**asked, "provider_id": "p9"}, asked)).json()["predictions"]
        assert (new["level"], near(new)) == ("cluster", [f"i{n}" for n, _ in brute(embeddings()[0], OF_A)])
        assert (nobody["level"], near(nobody)) == ("all", [f"i{n}" for n, _ in brute(embeddings()[0], ALL)])

    run(published, body)


def test_bad_requests_are_refused_by_the_field(published: Settings) -> None:
    good = {"context": CONTEXT, "item_id": "i1"}
    embedding = [1.0] + [0.0] * (content_serving.WIDTH - 1)
    cases: list[tuple[dict[str, Any], int, list[Any]]] = [
        ({"item_id": "nowhere"}, 404, ["item_id"]),
        ({"item_id": "i1", "content": {"title": "x"}}, 422, []),
        ({}, 422, []),
        ({"item_id": "i1", "provider_id": "p1"}, 422, []),
        ({"content": {}}, 422, ["content"]),
        ({"content": {"image": "@@@"}}, 422, ["content", "image"]),
        ({"content": {"embedding": embedding[:-1]}}, 422, ["content", "embedding"]),
        ({"content": {"embedding": [0.0] * content_serving.WIDTH}}, 422, ["content", "embedding"]),
        ({"content": {"embedding": [1e-60] * content_serving.WIDTH}}, 422, ["content", "embedding"]),
        ({"content": {"embedding": [1e60] * content_serving.WIDTH}}, 422, ["content", "embedding"]),
        ({"content": {"embedding": [*embedding[:-1], "x"]}}, 422, ["content", "embedding", 7]),
        ({"content": {"title": "x", "colour": "red"}}, 422, ["content", "colour"]),
        ({"item_id": "i1", "slots": 1}, 422, ["slots"]),
        ({"item_id": "i1", "context": {"x": {"y": 1}}}, 422, ["context", "x"]),
        ({"item_id": "", "context": {}}, 422, ["item_id"]),
    ]

    async def body(r: Running) -> None:
        for bad, status, loc in cases:
            answer = await r.predict(good, bad)
            assert fault(answer) == (status, ["body", "requests", 1, *loc]), bad
        nan = b'{"requests": [{"content": {"embedding": [NaN]}}]}'
        answer = await r.http.post("/v1/predictions", content=nan, headers=r.headers())
        assert fault(answer) == (422, ["body", "requests", 0, "content", "embedding", 0])
        assert (await r.http.post("/v1/predictions", content=b"{", headers=r.headers())).status_code == 422
        assert fault(await r.predict()) == (422, ["body", "requests"])
        assert (await r.http.post("/v1/predictions", json={"requests": [good]})).status_code == 401
        key = {"Authorization": f"Bearer {r.operator}"}
        assert (await r.http.post("/v1/predictions", json={"requests": [good]}, headers=key)).status_code == 403
        arrow = r.headers() | {"content-type": "application/vnd.apache.arrow.stream"}
        assert (await r.http.post("/v1/predictions", content=b"", headers=arrow)).status_code == 415
        many = [good] * (published.serve.max_batch + 1)
        assert fault(await r.predict(*many)) == (413, ["body", "requests"])

    run(published, body)


def test_each_client_is_predicted_for_by_its_own_catalogue(published: Settings) -> None:
    async def body(r: Running) -> None:
        put = await r.http.put("/v1/items/mine", json={"title": "x"}, headers=r.headers())
        assert put.status_code == 200
        asked = {"context": CONTEXT, "item_id": "mine"}
        found = (await r.predict(asked)).json()["predictions"][0]
        assert (found["level"], found["neighbours"]) == ("none", [])
        assert "no embedding" in found["reason"]
        assert (await r.predict(asked, client="other")).status_code == 404
        assert (await r.http.delete("/v1/items/i3", headers=r.headers())).status_code == 204
        gone = {"context": CONTEXT, "item_id": "i3"}
        assert (await r.predict(gone)).status_code == 404
        assert (await r.predict(gone, client="other")).status_code == 200

    run(published, body)


def test_nobody_predicts_before_a_version_and_without_embeddings_there_are_no_neighbours(home: Any) -> None:
    settings = config.load()

    async def before(r: Running) -> None:
        answer = await r.predict({"item_id": "i1"})
        assert fault(answer) == (503, ["server"])

    run(settings, before)
    serving.publish(settings, serving.version())
    reader = Reader()

    async def plain(r: Running) -> None:
        answer = await r.predict({"item_id": "i1"}, {"content": {"title": "x"}}, {"content": {"embedding": [1.0]}})
        for found in answer.json()["predictions"]:
            assert (found["level"], found["neighbours"]) == ("none", [])
            assert "no embeddings" in found["reason"]

    run(settings, plain, lambda: reader)
    assert reader.asked == [], "nothing is read where nothing can be compared"


def test_items_with_embeddings_of_their_own_have_no_encoder(home: Any) -> None:
    settings, reader = config.load(), Reader()
    serving.publish(settings, content_serving.version(source=""))

    async def body(r: Running) -> None:
        given = {"content": {"title": "red", "embedding": embeddings()[0].tolist()}}
        text, own = (await r.predict({"content": {"title": "red"}}, given)).json()["predictions"]
        assert (text["level"], text["reason"]) == ("none", NO_ENCODER)
        assert (own["level"], own["reason"]) == ("all", None)

    run(settings, body, lambda: reader)
    assert reader.asked == []


class Slow(Reader):
    async def embed(self, version: int, contents: Any) -> Embedded | None:
        await asyncio.sleep(0.5)
        return await super().embed(version, contents)


class Dead(Reader):
    async def embed(self, version: int, contents: Any) -> Embedded | None:
        raise ConnectionError("the actor died")


@pytest.mark.parametrize(("reader", "reason"), [(Slow, "50 ms"), (Dead, "nobody can read"), (None, "content_ms")])
def test_a_content_process_that_is_slow_or_gone_costs_the_neighbours_only(
    published: Settings, reader: Any, reason: str
) -> None:
    serve = published.serve.model_copy(update={"content_ms": 50.0})

    async def body(r: Running) -> None:
        text, named = (
            await r.predict({"context": CONTEXT, "content": {"title": "red"}}, {"context": CONTEXT, "item_id": "i1"})
        ).json()["predictions"]
        assert (text["level"], text["neighbours"]) == ("none", [])
        assert reason in text["reason"]
        assert (named["level"], len(named["neighbours"])) == ("all", 3)
        assert (await r.decide({"context": CONTEXT})).status_code == 200

    run(published.model_copy(update={"serve": serve}), body, reader)


def test_predictions_are_counted_and_documented(published: Settings) -> None:
    async def body(r: Running) -> None:
        await r.predict({"item_id": "i1"}, {"content": {"title": "red"}}, {"content": {"title": " "}})
        counts = {labels: n for (name, labels), n in r.metrics.counts.items() if name == "medley_predictions_total"}
        assert counts == {("shop", "all"): 2, ("shop", "none"): 1}
        document = (await r.http.get("/openapi.json")).json()
        route = document["paths"]["/v1/predictions"]["post"]
        assert route["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Predictions")
        assert "PredictionRequest" in document["components"]["schemas"]

    run(published, body)


def test_a_large_call_is_answered_as_its_requests_alone(published: Settings) -> None:
    async def body(r: Running) -> None:
        requests = [
            {"user_id": f"u{n % 5}", "context": {"device": "mobile", "hour": n % 24}, "item_id": f"i{n % 12}"}
            for n in range(40)
        ]
        together = (await r.predict(*requests)).json()["predictions"]
        for n in (0, 7, 16, 39):
            alone = (await r.predict(requests[n])).json()["predictions"][0]
            assert alone["probability"] == pytest.approx(together[n]["probability"], abs=1e-12)
            assert near(alone) == near(together[n])

    run(published, body)


@pytest.mark.parametrize(("name", "reason"), [("Broken", "cannot predict (ModelError)"), ("Waiting", "300 ms")])
def test_a_model_that_breaks_or_hangs_is_told_and_decisions_go_on(home: Any, name: str, reason: str) -> None:
    settings = config.load(serve={"budget_ms": 300.0})
    serving.publish(settings, with_own(name))
    Waiting.gate.clear()

    async def body(r: Running) -> None:
        answer = await r.predict({"context": CONTEXT, "item_id": "i1"})
        assert fault(answer) == (503, ["server"])
        assert reason in answer.json()["detail"][0]["msg"]
        decided = await r.decide({"context": CONTEXT, "items": ["i1"]})
        assert (decided.status_code, decided.json()["decisions"][0]["mode"]) == (200, "baseline")

    try:
        run(settings, body)
    finally:
        Waiting.gate.set()
