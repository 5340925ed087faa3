"""A request on its way to an answer: who asks, on which terms, and what is known when it is decided again."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cluster.config import ClientMode
from serve.messages import DecisionRequest

Reason: TypeAlias = Literal["no_version", "broken", "slow"]
"""Why no model is asked, or why what it said is of no use."""


@dataclass(frozen=True)
class Asked:
    """index: place of the request in its call, named in errors. mode: whose choice is answered. reason: why no model
    is asked. seen: what the user was shown within the request's `unseen_s`. scored and forgotten: when the decision is
    made again, the part of a large catalogue that was scored, and whether the replica had no room for the history.
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

    @property
    def where(self) -> tuple[str | int, ...]:
        """The request's place in the body."""
        return "body", "requests", self.index

    @property
    def user(self) -> str | None:
        """Whose history this is."""
        return self.request.user_id or self.request.session_id


@dataclass(frozen=True)
class Bundle:
    """The requests (JSON) of one call on their way to a model replica.

    seen: of the requests that have any, by place. revision: of the client's catalogue, which the replica must know.
    """

    client: str
    mode: ClientMode
    bodies: Sequence[str]
    ids: Sequence[str]
    seen: Mapping[int, Collection[str]]
    revision: int

    def asked(self) -> list[Asked]:
        pairs = enumerate(zip(self.bodies, self.ids, strict=True))
        return [
            Asked(self.client, DecisionRequest.model_validate_json(body), one, i, self.mode, seen=self.seen.get(i, ()))
            for i, (body, one) in pairs
        ]
