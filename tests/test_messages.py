"""What the API takes and refuses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve.messages import Decisions, ItemBody, Rewards

FULL = {
    "requests": [
        {
            "user_id": "u42",
            "context": {
                "device": "mobile",
                "hour": 21,
                "recent": ["i7", "i9"],
                "new": True,
                "price": 1.5,
                "none": None,
            },
            "items": ["i1", "i2", "i3"],
            "exclude": ["i9"],
            "slots": 2,
            "request_id": "q1",
        }
    ]
}


def parse(body: Any) -> Decisions:
    return Decisions.model_validate_json(json.dumps(body))


def test_the_documented_request() -> None:
    request = parse(FULL).requests[0]
    assert request.context == FULL["requests"][0]["context"]
    assert type(request.context["hour"]) is int
    assert type(request.context["new"]) is bool
    assert (request.items, request.slots, request.session_id) == (["i1", "i2", "i3"], 2, None)


def test_defaults() -> None:
    request = parse({"requests": [{}]}).requests[0]
    assert (request.items, request.exclude, request.slots, request.context) == (None, [], 1, {})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user": "u"}, "user"),
        ({"slots": 0}, "slots"),
        ({"slots": "2"}, "slots"),
        ({"slots": 1.5}, "slots"),
        ({"slots": 101}, "slots"),
        ({"items": []}, "items"),
        ({"items": [1]}, "items"),
        ({"items": "i1"}, "items"),
        ({"items": [""]}, "items"),
        ({"user_id": "a\u0000b"}, "user_id"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"context": []}, "context"),
        ({"context": {"a": {"b": 1}}}, "context"),
        ({"context": {"a": 10**400}}, "context"),
        ({"context": {"a": [1]}}, "context"),
        ({"context": {"a": "x\u0000"}}, "context"),
        ({"context": {str(n): n for n in range(257)}}, "context"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse({"requests": [change]})
    assert {error["loc"][2] for error in caught.value.errors()} == {field}


def test_a_whole_number_beyond_float_precision_is_a_float() -> None:
    value = parse({"requests": [{"context": {"a": 2**64}}]}).requests[0].context["a"]
    assert type(value) is float
    assert value == 2.0**64


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(number: str) -> None:
    with pytest.raises(ValidationError):
        Decisions.model_validate_json(f'{{"requests":[{{"context":{{"a":{number}}}}}]}}')
    with pytest.raises(ValidationError):
        Rewards.model_validate_json(f'{{"rewards":[{{"decision_id":"d","value":{number}}}]}}')
    with pytest.raises(ValidationError):
        ItemBody.model_validate_json(f'{{"price":{number}}}')


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"requests":[{"user_id":"\\ud800"}]}', b"\xff\xfe", b"[" * 100_000, b"9" * 5_000],
)
def test_what_is_no_message_is_a_validation_error(body: bytes) -> None:
    with pytest.raises(ValidationError):
        Decisions.model_validate_json(body)


def test_a_reward_with_a_time_without_zone_is_refused() -> None:
    good = '{"rewards":[{"decision_id":"d","value":1,"at":"2026-01-01T10:00:00Z"}]}'
    assert Rewards.model_validate_json(good).rewards[0].kind == "reward"
    with pytest.raises(ValidationError):
        Rewards.model_validate_json(good.replace("00Z", "00"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_any_json_parses_or_is_a_validation_error(body: Any) -> None:
    text = json.dumps({"requests": [{"context": body}]})
    try:
        request = Decisions.model_validate_json(text).requests[0]
    except ValidationError:
        return
    assert json.loads(request.model_dump_json())["context"] == request.context
