"""A request on its way to an answer: who asks, on which terms, and what is known when it is decided again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from actors.features.features import Floats
from cluster.config import ClientMode
from serve.messages import DecisionRequest

Reason: TypeAlias = Literal["no_version", "broken", "slow"]
"""Why no model is asked, or why what it said is of no use."""


@dataclass(frozen=True)
class Code:
    """code_H of a context, as this generator (its name and number in the registry) reads it."""

    generator: tuple[str, int]
    code_H: Floats


@dataclass(frozen=True)
class Asked:
    """index: place of the request in its call, named in errors. mode: whose choice is answered. reason: why no model
    is asked. seen: what the user was shown within the request's `unseen_s`. scored and forgotten: when the decision is
    made again, the part of a large catalogue that was scored, and whether the replica had no room for the history.
    code: of the context, where a language model has read it.
    """

    client: str
    request: DecisionRequest
    decision_id: str
    index: int = 0
    mode: ClientMode = "live"
    reason: Reason | None = None
    seen: Collection[str] = ()
    scored: str | None = None
    forgotten: bool = False
    code: Code | None = None

    @property
    def where(self) -> tuple[str | int, ...]:
        """The request's place in the body."""
        return "body", "requests", self.index

    @property
    def user(self) -> str | None:
        """Whose history this is."""
        return self.request.user_id or self.request.session_id


@dataclass(frozen=True)
class Background:
    """What was found out for the requests of a call, by the places of those that have any: `Asked`'s seen and code."""

    seen: Mapping[int, Collection[str]] = field(default_factory=dict)
    codes: Mapping[int, Code] = field(default_factory=dict)


def all_asked(
    client: str,
    mode: ClientMode,
    requests: Sequence[DecisionRequest],
    ids: Sequence[str],
    background: Background,
    reason: Reason | None = None,
    first: int = 0,
) -> list[Asked]:
    """The requests of a call, or of the part of it that begins at the place `first`."""
    seen, codes = background.seen, background.codes
    return [
        Asked(client, request, one, first + i, mode, reason, seen.get(i, ()), code=codes.get(i))
        for i, (request, one) in enumerate(zip(requests, ids, strict=True))
    ]


@dataclass(frozen=True)
class Bundle:
    """Requests (JSON) of one call on their way to a model replica.

    first: the place of the first in its call. background: by place in the bundle. revision: of the client's catalogue,
    which the replica must know.
    """

    client: str
    mode: ClientMode
    first: int
    bodies: Sequence[str]
    ids: Sequence[str]
    background: Background
    revision: int

    @classmethod
    def of(cls, asked: Sequence[Asked], revision: int) -> "Bundle":
        bodies = [one.request.model_dump_json(exclude_defaults=True) for one in asked]
        seen = {i: one.seen for i, one in enumerate(asked) if one.seen}
        codes = {i: one.code for i, one in enumerate(asked) if one.code is not None}
        ids, one = [one.decision_id for one in asked], asked[0]
        return cls(one.client, one.mode, one.index, bodies, ids, Background(seen, codes), revision)

    def asked(self) -> list[Asked]:
        requests = [DecisionRequest.model_validate_json(body) for body in self.bodies]
        return all_asked(self.client, self.mode, requests, self.ids, self.background, first=self.first)
