"""Embedding by Ray Data, for a catalogue whose pictures and sounds are more than the memory holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from actors.content.actor import CPUS, Source, check_gpus
from actors.content.cache import Cache
from actors.content.contents import COLUMNS, contents
from actors.content.embedding import Embedder
from cluster.config import ContentSettings
from tune.content.blocks import Block
from tune.content.catalogue import BLOCK, Catalogue


class Stage:
    """A step of Ray Data: items -> their vectors and problems, through the cache that all steps share."""

    def __init__(self, source: Source, settings: ContentSettings, cache: Path) -> None:
        own = source.load(settings)
        vectors = Cache(cache, own.fingerprint)
        self.embedder = Embedder(own.embed, own.modalities, own.dimension, own.fingerprint, vectors)

    def __call__(self, items: pa.Table) -> pa.Table:
        return Block.of(items, self.embedder.embed(list(contents(items)))).table()


def blocks(catalogue: Catalogue, source: Source, settings: ContentSettings, cache: Path) -> Iterator[Block]:
    """The items' vectors, in no set order.

    Raises:
        ClusterError: the cluster has less GPU than one actor wants.
    """
    check_gpus(settings)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the job has its own
    read: Any = ray.data.read_parquet(str(catalogue.path)).select_columns([*COLUMNS, "provider_id"])
    encoded = read.map_batches(
        Stage,
        fn_constructor_args=(source, settings, cache),
        batch_size=BLOCK,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=settings.actors),
        num_cpus=CPUS,
        num_gpus=settings.gpus,
    )
    for batch in encoded.iter_batches(batch_format="pyarrow", batch_size=None):
        yield Block.read(batch)
