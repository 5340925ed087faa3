import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.database import Database, upgrade
from cluster.errors import DatabaseError
from cluster.keys import ClientFacts, KeyRing, Keys, Limits, Principal


@pytest.fixture
def keys(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    upgrade(url)
    with Database(url) as database:
        yield Keys(database)


def key_id(plain: str) -> str:
    return plain.split("_")[1]


def test_a_key_names_its_client_and_an_operator_has_none(keys: Keys) -> None:
    assert keys.create_client("shop") is True
    assert keys.create_client("shop") is False
    client, operator = keys.create_key("shop"), keys.create_key(None)
    found = keys.verify(client)
    assert found is not None
    assert (found.client_id, found.role, found.key_id) == ("shop", "client", key_id(client))
    found = keys.verify(operator)
    assert found is not None
    assert (found.client_id, found.role) == (None, "operator")
    assert keys.clients() == [ClientFacts("shop", "live", None)]


def test_a_key_carries_its_clients_mode(keys: Keys) -> None:
    for client in ("shop", "other"):
        keys.create_client(client)
    shop, other, operator = keys.create_key("shop"), keys.create_key("other"), keys.create_key(None)
    before = keys.ring()
    keys.set_mode("shop", "apprentice")
    assert keys.verify(shop) == Principal(key_id(shop), "shop", "apprentice", None)
    assert keys.verify(other) == Principal(key_id(other), "other", "live", None)
    assert keys.verify(operator) == Principal(key_id(operator), None)
    assert before.verify(shop) == Principal(key_id(shop), "shop", "live", None)
    assert [client.mode for client in keys.clients()] == ["live", "apprentice"]
    with pytest.raises(DatabaseError, match="no client 'nobody'"):
        keys.set_mode("nobody", "off")


def test_a_wrong_secret_or_another_key_is_refused(keys: Keys) -> None:
    keys.create_client("shop")
    plain, other = keys.create_key("shop"), keys.create_key("shop")
    swapped = plain.rpartition("_")[0][:24] + other[23:]
    for wrong in ("", "x", plain[:-1], plain + "a", plain.upper(), swapped, plain.replace("medley", "Medley")):
        assert keys.verify(wrong) is None


@given(st.text())
def test_any_text_is_checked_without_an_error(text: str) -> None:
    assert KeyRing().verify(text) is None


def test_rotation_ends_the_old_key_and_keeps_the_holder(keys: Keys) -> None:
    keys.create_client("shop")
    old = keys.create_key("shop")
    new = keys.rotate(key_id(old))
    assert keys.verify(old) is None
    found = keys.verify(new)
    assert found is not None
    assert found.client_id == "shop"


def test_limits_travel_in_the_ring_and_to_the_next_key(keys: Keys) -> None:
    keys.create_client("shop")
    plain = keys.create_key("shop")
    own = Limits(rate_per_s=2.5, burst=10, max_body_bytes=4_096)
    keys.limit(key_id(plain), own)
    found = keys.ring().verify(plain)
    assert found is not None
    assert found.limits == own
    found = keys.verify(keys.rotate(key_id(plain)))
    assert found is not None
    assert found.limits == own
    assert [key.limits for key in keys.all()] == [own, own]
    with pytest.raises(DatabaseError, match="burst = 0: a limit is above zero"):
        keys.limit(key_id(plain), Limits(burst=0))


def test_a_grace_period_keeps_the_old_key_for_a_while_even_in_a_loaded_ring(keys: Keys) -> None:
    plain = keys.create_key(None)
    keys.revoke(key_id(plain), grace_s=0.5)
    ring = keys.ring()
    assert ring.verify(plain) is not None
    time.sleep(0.6)
    assert ring.verify(plain) is None
    assert keys.ring().verify(plain) is None
    assert len(keys.ring()) == 0


def test_the_database_holds_no_secret(keys: Keys, tmp_path: Path) -> None:
    plain = keys.create_key(None)
    secret = plain[24:].encode()
    assert len(secret) == 43
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes()


@pytest.mark.parametrize("client", ["", "a" * 129, "new\nline", "nul\0"])
def test_a_client_id_must_be_printable(keys: Keys, client: str) -> None:
    with pytest.raises(DatabaseError, match="no client id"):
        keys.create_client(client)


def test_unknown_clients_and_keys_are_named(keys: Keys) -> None:
    with pytest.raises(DatabaseError, match="no client 'nobody'; add it with `medley client add nobody`"):
        keys.create_key("nobody")
    for action in (keys.rotate, keys.revoke, lambda key: keys.limit(key, Limits())):
        with pytest.raises(DatabaseError, match="no key 'f00'"):
            action("f00")
