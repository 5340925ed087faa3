"""Providers in the database: the last state of each name, and what the command line says of it."""

import json
from pathlib import Path

import pytest

from actors.content.regrouping import kept
from actors.content.regrouping.groups import Groups
from actors.content.regrouping.regrouping import Regrouping
from cluster import config
from cluster.providers import Placed, opened
from cluster.registry import Registry
from tests.programs import ended
from tests.test_cli import medley


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return config.Settings(home=tmp_path / "home")


def test_the_last_state_of_a_name_stands_in_the_place_of_the_one_before(settings: config.Settings) -> None:
    with opened(settings) as providers:
        assert providers.placed() == []
        providers.record("shop", 1, {"a/b": "c1", "b": "c2", "gone": "c2"})
        providers.record("shop2", 5, {"a/b": "c1"})
        providers.record("shop", 2, {"b": "c1", "a/b": "c1", "new": "c3"})
        expected = [Placed("shop", "a/b", "c1", 2), Placed("shop", "b", "c1", 2), Placed("shop", "new", "c3", 2)]
        assert providers.placed() == [*expected, Placed("shop2", "a/b", "c1", 5)]
        providers.record("sh%p", 1, {"x": "c1"})
        providers.record("sh%p", 2, {})
        assert providers.placed() == [*expected, Placed("shop2", "a/b", "c1", 5)]


def test_the_command_lists_them(settings: config.Settings) -> None:
    home = {"MEDLEY_HOME": str(settings.home)}
    assert "medley submit regroup" in medley("providers", "list", **home).stdout
    with opened(settings) as providers:
        providers.record("medley", 3, {"p0": "c1", "p1": "c2"})
    assert medley("providers", "list", **home).stdout.splitlines() == ["medley  c1  p0", "medley  c2  p1"]
    found = json.loads(medley("providers", "list", "--json", **home).stdout)
    assert found["providers"][1] == {"name": "medley", "provider": "p1", "cluster": "c2", "version": 3}


def test_names_may_begin_with_a_dash(settings: config.Settings) -> None:
    groups = Groups().move("-x", "-1", "2026-01-01", "first", {}).move("y", "c2", "2026-01-01", "first", {})
    registry = Registry(settings.registry_uri)
    registry.ensure("shop-regrouping")
    registry.publish("shop-regrouping", lambda folder: kept.save(Regrouping(groups, 0.05), {}, folder))
    home = {"MEDLEY_HOME": str(settings.home)}
    assert medley("providers", "move", "--name", "shop", "--", "-x", "c2", **home).returncode == 0
    with opened(settings) as providers:
        assert providers.placed() == [Placed("shop", "-x", "c2", 2), Placed("shop", "y", "c2", 2)]
    assert "providers move -- -x c2" in medley("providers", "move", "--help", **home).stdout
    refused = ended("tune.regroup", "--move=-x", **home)
    assert (refused.returncode, "--move and --to go together" in refused.stderr) == (2, True)
