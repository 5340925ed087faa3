"""Requests and answers of the HTTP API.

Unknown fields are refused, numbers are finite, and every text and list has a limit, so that whatever passes
here can be stored, scored and sent back.
"""

import base64
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from cluster.config import ClientMode

LARGEST_INT = 2**53

ID_PATTERN = r"^[^\x00-\x1f\x7f]*$"

Id = Annotated[str, Field(min_length=1, max_length=256, pattern=ID_PATTERN)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-LARGEST_INT, le=LARGEST_INT)]
Text = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]
ContextValue = bool | Whole | Finite | Text | Annotated[list[Text], Field(max_length=1_000)] | None
MOST_KEYS = 256
Context = Annotated[dict[Id, ContextValue], Field(max_length=MOST_KEYS)]

Mode = Literal[ClientMode, "baseline"]


def _decoded(text: bytes) -> bytes:
    return base64.b64decode(text, validate=True)  # what it raises is a ValueError that says what is wrong


File = Annotated[bytes, AfterValidator(_decoded), Field(json_schema_extra={"contentEncoding": "base64"})]
"""A file's bytes, as Base64 in JSON."""


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Condition(Message):
    field: Id = Field(
        description="provider_id, category, brand, price, created_at, expires_at, or attributes.NAME of an item"
    )
    op: Literal["==", "!=", "in", "not_in", "<", "<=", ">", ">="]
    value: bool | Whole | Finite | Text | Annotated[list[bool | Whole | Finite | Text], Field(max_length=1_000)] = (
        Field(description="a list for in and not_in; a moment is a text as in created_at")
    )


class DecisionRequest(Message):
    user_id: Id | None = Field(None, description="who decides what a generated model knows of the user")
    session_id: Id | None = Field(None, description="stands in for the user where there is none")
    context: Context = Field(default_factory=dict, description="what is known now, by name")
    items: Annotated[list[Id], Field(min_length=1)] | None = Field(
        None, description="candidates; null is the whole catalogue"
    )
    exclude: Annotated[list[Id], Field(max_length=100_000)] = Field(
        default_factory=list, description="items that must not be chosen"
    )
    where: Annotated[list[Condition], Field(max_length=50)] = Field(
        default_factory=list, description="conditions on items, all of which must hold"
    )
    unseen_s: Annotated[float, Field(gt=0, le=366 * 86_400, allow_inf_nan=False)] | None = Field(
        None, description="leave out what this user (or session) was shown within so many seconds"
    )
    slots: int = Field(1, ge=1, le=100, description="different items wanted, best first")
    baseline_item: Id | None = Field(
        None, description="the caller's own choice, eligible; null is the first eligible one"
    )
    request_id: Id | None = Field(None, description="makes a retry safe: a repeat gets the stored answer")
    budget_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        None, description="from the call's arrival until a model must have chosen, else the caller's own choice answers"
    )


class Decisions(Message):
    requests: Annotated[list[DecisionRequest], Field(min_length=1)]


class Reason(Message):
    feature: str
    contribution: float


class Slot(Message):
    item_id: str
    score: float | None = Field(description="blended mean, in units of the reward; null for a baseline")
    propensity: float = Field(description="probability of this item in this slot, given the slots before")
    explored: bool = Field(description="whether another item had the greater blended mean")
    models: dict[str, float] = Field(description="weight of each model for this item")
    contributions: dict[str, float] = Field(
        description="what each model added to the score, in units of the reward; they and the least reward sum to it"
    )
    reasons: list[Reason] = Field(description="features that moved the linear models' part most")


class Decision(Message):
    decision_id: str
    version: int | None = Field(description="the version that answers; null where a baseline does")
    mode: Mode = Field(
        description="what answers: live, a version; baseline, the caller's own choice for want of one; shadow, "
        "apprentice and off, the same by the client's mode"
    )
    slots: list[Slot]


class DecisionAnswer(Message):
    decisions: list[Decision]


class RewardEvent(Message):
    decision_id: Id
    slot: int = Field(0, ge=0, le=99)
    kind: Id = Field("reward", description="one of the configured reward kinds")
    value: Finite
    reward_id: Id | None = Field(None, description="makes a retry safe; null is a hash of the other fields")
    at: AwareDatetime | None = Field(None, description="when it happened, as the caller knows it")


class Rewards(Message):
    rewards: Annotated[list[RewardEvent], Field(min_length=1)]


class Rejected(Message):
    index: int
    reason: str


class RewardAnswer(Message):
    accepted: int
    duplicates: int
    rejected: list[Rejected]


class Described(Message):
    """What is known of an item."""

    title: Text | None = None
    description: Text | None = None
    price: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    category: Text | None = None
    brand: Text | None = None
    embedding: Annotated[list[Finite], Field(max_length=4_096)] | None = None
    attributes: Annotated[dict[Id, ContextValue], Field(max_length=256)] = Field(default_factory=dict)
    created_at: AwareDatetime | None = None


class ItemBody(Described):
    provider_id: Id | None = None
    expires_at: AwareDatetime | None = Field(None, description="from then on the item is left out of decisions")


class Item(ItemBody):
    item_id: str


class ItemPage(Message):
    items: list[Item]
    next: str | None = Field(description="pass as `after` for the following page; null at the end")


class Content(Described):
    """An item that is in no catalogue."""

    image: File | None = Field(None, description="a picture file (JPEG, PNG, WebP, GIF, BMP, TIFF) in Base64")

    @model_validator(mode="after")
    def _something(self) -> "Content":
        if not self.model_fields_set:
            raise ValueError("empty; give a title, a description, an image, an embedding or other fields of an item")
        return self


class PredictionRequest(Message):
    user_id: Id | None = Field(None, description="whose response is predicted")
    session_id: Id | None = Field(None, description="stands in for the user where there is none")
    context: Context = Field(default_factory=dict, description="what is known now, by name")
    item_id: Id | None = Field(None, description="an item of the client's catalogue; else give `content`")
    content: Content | None = Field(None, description="an item that is in no catalogue; else give `item_id`")
    provider_id: Id | None = Field(None, description="whose the content is")

    @model_validator(mode="after")
    def _one_item(self) -> "PredictionRequest":
        if (self.item_id is None) == (self.content is None):
            raise ValueError("exactly one of item_id and content says which item")
        if self.item_id is not None and self.provider_id is not None:
            raise ValueError("provider_id goes with content; the provider of an item_id is known")
        return self


class Predictions(Message):
    requests: Annotated[list[PredictionRequest], Field(min_length=1)]


class Neighbour(Message):
    item_id: str
    provider_id: str | None
    similarity: float = Field(description="cosine of the embeddings")


class Prediction(Message):
    probability: float = Field(
        description="expected reward by the blend, within its range: where rewards are 0 or 1, the probability of 1"
    )
    neighbours: list[Neighbour] = Field(description="known items whose embeddings are nearest, the nearest first")
    models: dict[str, float] = Field(description="weight of each model for this item")
    level: Literal["provider", "cluster", "all", "none"] = Field(
        description="where the neighbours were sought: among the provider's items, its cluster's, or all; none: there "
        "are none, and models count as for any item"
    )
    reason: str | None = Field(description="why there are no neighbours, or what of the content could not be read")
    version: int


class PredictionAnswer(Message):
    predictions: list[Prediction]


class Version(Message):
    version: int
    current: bool
    facts: dict[str, object]


class Versions(Message):
    name: str
    current: int | None
    versions: list[Version]


class Publication(Message):
    client_id: str
    version: int
    epoch: int
    at: datetime
    outcomes: int
    weights: dict[str, float]


class Weights(Message):
    publications: list[Publication]


class Health(Message):
    status: Literal["ready", "baseline"]
    version: int | None
    clients: int
    learner: Literal["following", "away"]


class Agreement(Message):
    """How far the engine chooses what the caller's own choice is."""

    compared: int = Field(description="decisions in the mode apprentice")
    agreed: float = Field(description="share in which the engine's first item was the baseline's too")
    propensity: float = Field(description="mean probability of the baseline's first item under the engine")


class Client(Message):
    client_id: str
    mode: ClientMode
    version: int | None = Field(description="the one that the client is held at; null follows the newest")
    agreement: Agreement | None = Field(description="null where nothing was compared")


class Problem(Message):
    loc: list[str | int]
    type: str
    msg: str


class Problems(Message):
    """The body of every 4xx answer."""

    detail: list[Problem]
