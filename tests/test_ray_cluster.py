"""`ray_cluster.yaml` against the check that `ray up` itself makes, and against what it promises."""

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def written() -> dict:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


@pytest.fixture(scope="module")
def prepared(written: dict) -> dict:
    from ray.autoscaler._private.util import prepare_config

    return prepare_config(copy.deepcopy(written))


def test_ray_accepts_it(prepared: dict) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(prepared)
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepared | {"max_worker": 3})


def test_it_has_a_head_and_workers_of_both_kinds_from_zero(prepared: dict) -> None:
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] == "head"
    assert types["cpu_worker"]["min_workers"] == types["gpu_worker"]["min_workers"] == 0
    assert types["cpu_worker"]["max_workers"] >= 1
    assert types["gpu_worker"]["max_workers"] >= 1
    assert types["gpu_worker"]["resources"]["GPU"] >= 1
    assert "GPU" not in types["cpu_worker"]["resources"]
    assert prepared["max_workers"] >= types["cpu_worker"]["max_workers"] + types["gpu_worker"]["max_workers"]


def test_nodes_are_set_up_from_the_requirements_with_rays_own_version(prepared: dict) -> None:
    requirements = (ROOT / "requirements.txt").read_text()
    pinned = re.search(r"^ray\[.*\]==(\S+)", requirements, re.M)
    assert pinned is not None
    assert f":{pinned[1]}-py311" in prepared["docker"]["image"]
    assert any("-r ~/medley/requirements.txt" in command for command in prepared["setup_commands"])
    assert prepared["file_mounts"]["~/medley/requirements.txt"] == "./requirements.txt"


def test_ray_asks_for_a_token_and_no_port_is_open_to_the_world(prepared: dict) -> None:
    starts = [
        c for c in prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"] if "ray start" in c
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in prepared["file_mounts"]
    assert "0.0.0.0" not in (ROOT / "ray_cluster.yaml").read_text()
    for node_type in prepared["available_node_types"].values():
        assert node_type["node_config"]["SecurityGroupIds"]  # else Ray opens port 22 to everyone
