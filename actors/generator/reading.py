"""Contexts read for what serves: the code of each, by the language model of a generator in the registry."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from actors.generator.backbone import Floats32
from actors.generator.generator import Generator
from cluster.records import Value
from cluster.registry import Registry

KEPT = 2
"""Generators in memory: of the newest version, and of one before that clients may be held at."""


class ContextReader:
    """One process's; `serve.processes` makes it an actor.

    Args:
        registry: URI.
        threads: of torch.
    """

    def __init__(self, registry: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._registry = Registry(registry)
        self._kept: OrderedDict[tuple[str, int], Generator] = OrderedDict()

    def codes(self, generator: tuple[str, int], told: Sequence[tuple[Mapping[str, Value], str | None]]) -> Floats32:
        """The code of each context, and of the user who comes with it, (N, Q).

        Args:
            generator: its name and number in the registry.

        Raises:
            RegistryError: it cannot be had. ModelError: it reads no text.
        """
        own = self._generator(generator)
        nobody: Mapping[str, Value] = {}
        attributes = [own.people.attributes(user) if own.people else nobody for _, user in told]
        texts = [own.serialiser.text(context, a) for (context, _), a in zip(told, attributes, strict=True)]
        return own.text_codes(texts).astype(np.float32)

    def _generator(self, name: tuple[str, int]) -> Generator:
        if name not in self._kept:
            self._kept[name] = Generator.load(self._registry.fetch(*name))
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]
