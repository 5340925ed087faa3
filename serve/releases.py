"""Published versions as serving reads them."""

import json

from actors.bandits.version import Version
from cluster.errors import RegistryError
from cluster.registry import Registry
from serve import messages

_LISTED = 20


class Releases:
    """One name of a registry. Every method may block and may raise RegistryError."""

    def __init__(self, registry: Registry, name: str) -> None:
        self._registry = registry
        self.name = name

    def numbers(self) -> list[int]:
        """Published versions, the newest last."""
        return self._registry.versions(self.name)

    def load(self, number: int) -> Version:
        return Version.load(self._registry.fetch(self.name, number))

    def listed(self, current: int | None) -> messages.Versions:
        """The last versions with their facts."""
        numbers = self.numbers()[-_LISTED:]
        versions = [messages.Version(version=n, current=n == current, facts=self._facts(n)) for n in numbers]
        return messages.Versions(name=self.name, current=current, versions=versions)

    def _facts(self, number: int) -> dict[str, object]:
        folder = self._registry.fetch(self.name, number)
        try:
            return dict(json.loads((folder / "version.json").read_text())["facts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"{folder}: not a readable version ({error}); publish it again") from error
