"""Generation on Ray: actors that hold a language model each, and the pool that spreads texts over them."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import ray
import torch

from actors.generator.backbone import Backbone, Floats32
from actors.generator.candidates import Parameters
from actors.generator.generator import Embedding, Generator
from cluster.config import GeneratorSettings
from cluster.errors import ClusterError, ModelError

CPUS = 0.5
"""Reserved per actor: on two cores a training process and Serve must find room beside it."""


class GenerationActor:
    """A language model, and its head where the folder holds a whole generator.

    Args:
        folder: written by `Generator.save`, or by `Backbone.save` while there is no head yet.
    """

    def __init__(self, folder: str, tokens: int, batch: int, threads: int) -> None:
        torch.set_num_threads(threads)
        whole = (Path(folder) / "generator.json").exists()
        self.generator = Generator.load(Path(folder)) if whole else None
        backbone = self.generator.backbone if self.generator else Backbone.load(folder, tokens, batch)
        if backbone is None:
            raise ModelError(f"{folder}: this generator reads no text (generator.reader: numeric) and needs no actor")
        self.backbone = backbone

    def embed(self, texts: Sequence[str]) -> Floats32:
        """c of each text, (N, H)."""
        return self.backbone.embed(texts)

    def generate(self, texts: Sequence[str]) -> Parameters:
        """The priors of all contexts with all codes, from one pass over the texts."""
        if self.generator is None:
            raise ModelError("this actor holds a language model without a head; train and save a generator first")
        return self.generator.generate(self.generator.text_codes(texts))


class Pool:
    """`settings.actors` generation actors, each with `settings.gpus` of a GPU; ends them on exit.

        with Pool(folder, settings.generator) as pool:
            generator = train(..., route=pool.route)
            candidates = generator.candidates(..., embed=pool.embed)

    Args:
        folder: absolute, and readable by every node; `route` writes the language model there.
    """

    def __init__(self, folder: Path, settings: GeneratorSettings) -> None:
        self.folder, self.settings = folder, settings
        self._actors: list[Any] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def route(self, backbone: Backbone) -> Embedding:
        """Save the model, start the actors on it, and return what embeds texts with them."""
        backbone.save(self.folder)
        self.start()
        return self.embed

    def start(self) -> None:
        """Start the actors on what the folder holds.

        Raises:
            ClusterError: the cluster has less GPU than one actor wants.
        """
        self.close()
        own = self.settings
        there = ray.cluster_resources().get("GPU", 0.0)
        if own.gpus > there:
            raise ClusterError(
                f"generator.gpus = {own.gpus} per actor, but the cluster has {there:g}; lower it, or add a GPU node"
            )
        remote = ray.remote(num_cpus=CPUS, num_gpus=own.gpus)(GenerationActor)
        self._actors = [remote.remote(str(self.folder), own.tokens, own.batch, own.threads) for _ in range(own.actors)]

    def embed(self, texts: Sequence[str]) -> Floats32:
        """c of each text, (N, H); equal texts are read once, and each actor takes an even part."""
        unique = sorted(set(texts))
        parts = [part.tolist() for part in np.array_split(np.asarray(unique, object), len(self._actors))]
        calls = [a.embed.remote(p) for a, p in zip(self._actors, parts, strict=True) if p]
        states = np.concatenate(ray.get(calls))
        where = {text: i for i, text in enumerate(unique)}
        return states[[where[text] for text in texts]]

    def generate(self, texts: Sequence[str]) -> list[Parameters]:
        """The priors of the contexts in order, a piece from each actor."""
        parts = [p.tolist() for p in np.array_split(np.asarray(texts, object), len(self._actors)) if len(p)]
        pieces: list[Parameters] = ray.get([a.generate.remote(p) for a, p in zip(self._actors, parts, strict=False)])
        return pieces

    def close(self) -> None:
        """End the actors of this pool."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
