"""Generators in the registry: each under a name of its own, NAME-generator, and versions of NAME refer to one.

A language model may be a thousand times as large as the rest of a version, and what serves has no use for it: only who
generates fetches it.
"""

from typing import Any

from actors.bandits.version import Version
from actors.generator.generator import Generator
from cluster.errors import RegistryError
from cluster.registry import Registry


def keep(registry: Registry, name: str, generator: Generator) -> dict[str, Any]:
    """Publish a generator; returns how versions of `name` refer to it, for their facts."""
    own = f"{name}-generator"
    reader = "numeric" if generator.backbone is None else "language"
    return {"name": own, "version": registry.publish(own, generator.save), "reader": reader}


def kept(registry: Registry, version: Version) -> Generator:
    """The generator of a version's member. Raises RegistryError where it has none."""
    if version.generator is None:
        raise RegistryError("this version has no generated member, hence no generator; `medley compose` makes one")
    return Generator.load(registry.fetch(*version.generator))
