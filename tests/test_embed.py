"""The job that embeds a catalogue, on the marketplace's items, over Ray's actors and over Ray Data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.content.actor import EncodingActor, Pool, Source
from actors.content.cache import Recent
from actors.content.contents import Content, Part
from actors.content.embedding import Embedder
from actors.content.published import Published
from cluster.config import Settings
from cluster.errors import ClusterError, ModelError, SourceError
from cluster.records import ITEMS, Dataset
from cluster.registry import Registry
from tests.content_models import folder as model_folder
from tests.content_models import noise
from tests.generator_worlds import planted
from tune.content.catalogue import Catalogue
from tune.content.embedder import embed
from tune.content.encoders import choose

ITEMS_THERE = 300


def imported(at: Path) -> Path:
    """A finished import of 300 items: a text each, a picture of every second; the last has neither."""
    dataset, _ = planted(users=2, rows=2, seed=0)
    rows = [
        {
            "item_id": f"i{n:03}",
            "provider_id": f"p{n % 3}",
            "title": f"a {('red', 'green', 'blue')[n % 3]} lamp",
            "description": f"the {n}",
            "image": noise(n, 16) if n % 2 else None,
        }
        for n in range(ITEMS_THERE)
    ]
    rows[-1] |= {"title": None, "description": " ", "image": None}
    Dataset(dataset.format, dataset.events, pa.Table.from_pylist(rows, ITEMS), dataset.users).save(at)
    return at


def own(home: Path, **content: object) -> Settings:
    return Settings.model_validate({"home": home, "content": content})


def run(at: Path, settings: Settings, **changed: bool) -> tuple[dict, Published]:
    facts = embed(at, settings, "shop", **({"retrain": False, "write": False, "progress": False} | changed))
    return facts, Published.load(Registry(settings.registry_uri).fetch("shop-content"))


@pytest.mark.ray
def test_a_catalogue_is_encoded_once(ray_session: object, tmp_path: Path) -> None:
    at = imported(tmp_path / "data")
    settings = own(tmp_path / "home", model=str(model_folder("clip", tmp_path)), actors=2)
    facts, first = run(at, settings)
    assert (facts["items"], facts["embedded"], facts["problems"]) == (300, 299, 1)
    assert facts["encoded"] == 299 + 149, "a text each, and every second picture, but the last"
    assert first.rejected[0][0] == "i299"
    assert first.item_ids == tuple(f"i{n:03}" for n in range(299))
    assert first.provider_ids[:4] == ("p0", "p1", "p2", "p0")
    encoder = Source(settings.registry_uri, "shop-encoder", 1).load(settings.content)
    text, image = encoder.embed([Part("text", (b"a green lamp. the 1",)), Part("image", (noise(1, 16),))]).vectors_PE
    np.testing.assert_allclose(first.vectors_IE[1], (text + image) / np.linalg.norm(text + image), atol=1e-5)

    facts, second = run(at, settings, write=True)
    assert (facts["version"], facts["encoder"], facts["encoded"]) == (2, {"name": "shop-encoder", "version": 1}, 0)
    np.testing.assert_array_equal(second.vectors_IE, first.vectors_IE)
    written = pq.read_table(at / "items.parquet")
    assert written.schema.equals(ITEMS)
    np.testing.assert_array_equal(np.stack(written["embedding"].to_pylist()[:299]), second.vectors_IE)
    assert written["embedding"].to_pylist()[299] is None
    assert written.drop_columns("embedding").equals(
        pq.read_table(imported(tmp_path / "again") / "items.parquet").drop_columns("embedding")
    )

    assert Dataset.load(at).encoder == facts["fingerprint"] == encoder.fingerprint

    _, given = run(at, own(tmp_path / "home", given=True), write=True)
    assert Dataset.load(at).encoder is None
    np.testing.assert_allclose(given.vectors_IE, second.vectors_IE, atol=1e-6)
    assert given.rejected == (("i299", "embedding: none is given"),)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_data_gives_the_same_table_and_fills_the_same_cache(ray_session: object, tmp_path: Path) -> None:
    at = imported(tmp_path / "data")
    settings = own(tmp_path / "home", model=str(model_folder("clip", tmp_path)), stream_above_bytes=1)
    facts, streamed = run(at, settings)
    assert facts["encoded"] == 299 + 149
    encoder = Source(settings.registry_uri, "shop-encoder", 1).load(settings.content)
    here = Embedder(encoder.embed, encoder.modalities, encoder.dimension, encoder.fingerprint, Recent(1_000))
    expected = here.embed([content for _, content in Catalogue.open(at).sample(ITEMS_THERE, 0)])
    np.testing.assert_allclose(streamed.vectors_IE, expected.vectors_NE[:299], atol=1e-5)
    assert streamed.rejected == (("i299", expected.problems[0][1]),)
    plain_facts, plain = run(at, own(tmp_path / "home", model=str(tmp_path / "clip")))
    assert plain_facts["encoded"] == 0
    np.testing.assert_array_equal(plain.vectors_IE, streamed.vectors_IE)


def test_the_embedded_clip_is_trained_once_while_its_settings_stay(tmp_path: Path) -> None:
    catalogue = Catalogue.open(imported(tmp_path / "data"))
    small = {"hidden": 32, "layers": 1, "pixels": 16, "dimension": 8, "tokens": 16, "train_steps": 2}
    settings = own(tmp_path / "home", **small)
    first, again = (choose(catalogue, settings, "shop", retrain=False, progress=False) for _ in range(2))
    assert again == first
    assert first.training is not None
    assert first.training["steps"] == 2
    fresh = choose(catalogue, settings, "shop", retrain=True, progress=False)
    assert (fresh.source.version, fresh.fingerprint) == (2, first.fingerprint), "equal catalogue, settings and steps"
    wider = choose(
        catalogue, own(tmp_path / "home", **small | {"dimension": 12}), "shop", retrain=False, progress=False
    )
    assert (wider.source.version, wider.dimension) == (3, 12)
    actor = EncodingActor(wider.source, settings.content)
    found = actor.embed([Content("a red lamp"), Content()])
    assert found.there_N.tolist() == [True, False]
    assert actor.embed([Content("a red lamp")]).encoded == 0, "remembered"


def test_a_sample_is_read_in_blocks_and_the_same_each_time(tmp_path: Path) -> None:
    catalogue = Catalogue.open(imported(tmp_path / "data"))
    assert catalogue.items == ITEMS_THERE
    whole = list(catalogue.sample(10_000, 0))
    assert [item_id for item_id, _ in whole] == [f"i{n:03}" for n in range(300)]
    some, again, other = (list(catalogue.sample(50, seed)) for seed in (0, 0, 1))
    assert some == again != other
    assert len(some) == 50
    assert all(whole[int(item_id[1:])] == (item_id, content) for item_id, content in some)


@pytest.mark.ray
def test_what_cannot_be_done_is_named(ray_session: object, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no finished import"):
        embed(tmp_path, own(tmp_path / "home"), "shop", retrain=False, write=False, progress=False)
    at = imported(tmp_path / "data")
    speech = own(tmp_path / "home", model=str(model_folder("wav2vec2", tmp_path)))
    with pytest.raises(ModelError, match=r"none of 300 items could be embedded.*reads audio, the item has text"):
        run(at, speech)
    with (
        pytest.raises(ClusterError, match=r"content\.gpus = 512"),
        Pool(Source("", "", 1), own(tmp_path, gpus=512).content),
    ):
        pass


def test_published_vectors_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    published = Published.of(["b", "a"], [None, "p"], np.eye(2, dtype=np.float32), [("c", "why")], {"items": 3})
    published.save(tmp_path)
    loaded = Published.load(tmp_path)
    assert (loaded.item_ids, loaded.provider_ids, loaded.rejected) == (("a", "b"), ("p", None), (("c", "why"),))
    np.testing.assert_array_equal(loaded.vectors_IE, [[0, 1], [1, 0]])
    path = tmp_path / "embeddings.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ModelError, match=r"tune\.embed"):
        Published.load(tmp_path)
