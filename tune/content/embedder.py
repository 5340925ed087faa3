"""The job that embeds a catalogue: encoder -> vectors of what is new -> a published table."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from actors.content.actor import Pool
from actors.content.cache import Cache
from actors.content.contents import COLUMNS, contents
from actors.content.embedding import Embedder
from actors.content.given import given
from actors.content.published import CONTENT, Published
from cluster.config import Settings
from cluster.errors import ModelError
from cluster.registry import Registry
from tune.content.blocks import Block
from tune.content.catalogue import Catalogue
from tune.content.encoders import Chosen, choose


def embed(folder: Path, settings: Settings, name: str, *, retrain: bool, write: bool, progress: bool) -> dict[str, Any]:
    """Publish the vectors of an import's items as `NAME-content`; returns what was done.

    Args:
        folder: of a finished import.
        name: of the versions that the items belong to.
        retrain: train the embedded CLIP again.
        write: put the vectors into the import's items as well, where the feature map finds them.

    Raises:
        SourceError: no finished import there.
        ModelError: no encoder, or not one item has anything that it reads.
        RegistryError, StateError: the result or the cache cannot be written.
    """
    start = time.monotonic()
    catalogue, registry = Catalogue.open(folder), Registry(settings.registry_uri)
    registry.ensure(CONTENT.format(name))
    chosen = None if settings.content.given else choose(catalogue, settings, name, retrain=retrain, progress=progress)
    found = _own(catalogue) if chosen is None else _encoded(catalogue, chosen, settings)
    with tqdm(desc="items", total=catalogue.items, disable=not progress, file=sys.stderr) as bar:
        blocks = []
        for block in found:
            blocks.append(block)
            bar.update(len(block.ids))
    published = _published(blocks, chosen)
    version = registry.publish(CONTENT.format(name), published.save)
    if write:
        catalogue.write(published)
    return {"version": version, **published.facts, "seconds": round(time.monotonic() - start, 2)}


def _own(catalogue: Catalogue) -> Iterator[Block]:
    """The embeddings that items come with: their size is decided over all of them."""
    items = pa.concat_tables(catalogue.blocks(("item_id", "provider_id", "embedding")))
    yield Block.of(items, given(items))


def _encoded(catalogue: Catalogue, chosen: Chosen, settings: Settings) -> Iterator[Block]:
    cache = settings.folder("embeddings")
    if catalogue.size_bytes > settings.content.stream_above_bytes:
        from tune.content import stream  # Ray Data takes seconds to import, and most catalogues do not need it

        yield from stream.blocks(catalogue, chosen.source, settings.content, cache)
        return
    with Pool(chosen.source, settings.content) as pool:
        vectors = Cache(cache, chosen.fingerprint)
        embedder = Embedder(pool.encode, chosen.modalities, chosen.dimension, chosen.fingerprint, vectors)
        for items in catalogue.blocks((*COLUMNS, "provider_id")):
            yield Block.of(items, embedder.embed(list(contents(items))))


def _published(blocks: list[Block], chosen: Chosen | None) -> Published:
    there = [(block, np.flatnonzero(block.embedded.there_N)) for block in blocks]
    ids = [block.ids[i] for block, rows in there for i in rows]
    rejected = [(block.ids[i], reason) for block in blocks for i, reason in block.embedded.problems]
    items = sum(len(block.ids) for block in blocks)
    if not ids:
        first = f" ({rejected[0][0]}: {rejected[0][1]})" if rejected else ""
        raise ModelError(
            f"none of {items} items could be embedded{first}; give items a text or a picture, or set content.model to "
            "an encoder of what they have"
        )
    facts = (chosen.facts() if chosen else {"encoder": None}) | {
        "items": items,
        "embedded": len(ids),
        "encoded": sum(block.embedded.encoded for block in blocks),
        "problems": len(rejected),
    }
    providers = [block.providers[i] for block, rows in there for i in rows]
    vectors_IE = np.concatenate([block.embedded.vectors_NE[rows] for block, rows in there])
    return Published.of(ids, providers, vectors_IE, rejected, facts)
