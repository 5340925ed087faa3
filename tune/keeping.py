"""Generators in the registry: each under a name of its own, NAME-generator, and versions of NAME refer to one.

A language model may be a thousand times as large as the rest of a version, and what serves has no use for it: only who
generates fetches it. A version whose generated member was not admitted refers to NAME-proposed, where it is kept to be
explained.
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


def set_aside(registry: Registry, name: str, version: Version) -> dict[str, Any]:
    """Publish a version whose generated member was not admitted, under a name that nothing serves."""
    own = f"{name}-proposed"
    return {"name": own, "version": registry.publish(own, version.save)}


def explained(registry: Registry, version: Version) -> Version:
    """The version that tells of the candidates: itself, or what was set aside when it was composed."""
    aside = version.facts.get("proposed")
    return version if aside is None else Version.load(registry.fetch(aside["name"], aside["version"]))


def kept(registry: Registry, version: Version) -> Generator:
    """The generator of a version's member. Raises RegistryError where it has none."""
    if version.generator is None:
        raise RegistryError("this version has no generated member, hence no generator; `medley compose` makes one")
    return Generator.load(registry.fetch(*version.generator))
