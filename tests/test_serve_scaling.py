"""Ingress replicas on PostgreSQL come, go and are killed under load: every call is answered, the journal is one."""

from pathlib import Path

import pytest

from cluster import config
from tests import promises, serving
from tests.load import load
from tests.served import Served, gateways, until

pytestmark = [pytest.mark.ray, pytest.mark.kills, pytest.mark.slow]


@pytest.fixture
def scaled(served: Served, tmp_path: Path, postgres_url: str) -> Served:
    """The same Serve on PostgreSQL, with one to three replicas by the number of requests in work alone."""
    settings = config.load(
        home=tmp_path,
        database_url=postgres_url,
        rewards={"reward": {"window_s": 3.0}},
        serve={
            "port": served.settings.serve.port,
            "checkpoint_s": 0.5,
            "max_replicas": 3,
            "scale_down_after_s": 2.0,
            "target_p95_ms": 1e6,
        },
    )
    serving.publish(settings, serving.version())
    return Served.start(settings)


def test_replicas_come_and_go_and_one_is_killed_under_load(scaled: Served) -> None:
    with load(scaled.url, scaled.key, name="light", clients=2, pause_s=0.02) as light:
        # eight decisions a call, so that they queue at the replicas and not at these threads
        with load(scaled.url, scaled.key, name="heavy", clients=24, pause_s=0.0, together=8) as heavy:
            until(lambda: len(gateways()) == 3, "three replicas", timeout_s=90)
            heavy.wait(300)
            gateways()[0].kill()
            heavy.wait(300)
        until(lambda: len(gateways()) == 1, "one replica", timeout_s=90)
        light.wait(100)
    assert (light.lost, heavy.lost) == ([], [])
    promises.check_kept(scaled.settings, light)
    promises.check_kept(scaled.settings, heavy)
    promises.check_learned(scaled.settings)
