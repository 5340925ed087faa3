"""Decision ids and the seeds that follow from them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.ids import LENGTH, DecisionIds, seed_of, ulid

SECRET = bytes(range(32))


def test_ulid_as_in_its_specification() -> None:
    assert ulid(1469918176385, bytes(10)) == "01ARYZ6S41" + "0" * 16
    assert ulid(2**48 - 1, b"\xff" * 10) == "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


def test_ids_sort_by_time_and_belong_to_one_client() -> None:
    moments = iter([1.0, 2.0, 3.0])
    ids = DecisionIds(SECRET, clock=lambda: next(moments))
    made = [ids.new("shop") for _ in range(3)]
    assert made == sorted(made)
    assert {len(name) for name in made} == {LENGTH}
    assert all(ids.belongs(name, "shop") for name in made)
    assert not any(ids.belongs(name, "other") for name in made)
    assert not any(DecisionIds(SECRET[::-1]).belongs(name, "shop") for name in made)


@given(st.integers(0, LENGTH - 1), st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZaé "))
def test_any_changed_character_is_noticed(place: int, character: str) -> None:
    ids = DecisionIds(SECRET)
    made = ids.new("shop")
    changed = made[:place] + character + made[place + 1 :]
    assert ids.belongs(changed, "shop") == (changed == made)


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    assert not DecisionIds(SECRET).belongs(text, "shop")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="16"):
        DecisionIds(b"short")


def test_seed_is_the_first_eight_bytes_of_blake2b_without_sign() -> None:
    digest = hashlib.blake2b(b"7/ABC", digest_size=8).digest()
    assert seed_of("ABC", 7) == int.from_bytes(digest, "big") // 2
    assert seed_of("ABC", 8) != seed_of("ABC", 7)
