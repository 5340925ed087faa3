"""A head's training that was ended goes on to the bits of one that nobody ended."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from actors.generator.checkpoint import Checkpoint
from tests.test_generator_head import World, world

STEPS = 160
"""Of them 80 at most fit the pooled prior."""


class Ended(Exception):
    pass


@dataclass
class Ending(Checkpoint):
    """Saves once, after so many steps, and ends the training there."""

    after: int = 0
    seen: int = 0

    @property
    def due(self) -> bool:
        self.seen += 1
        return self.seen >= self.after

    def save(self, key: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        super().save(key, tensors, facts)
        raise Ended


@pytest.fixture(scope="module")
def whole() -> World:
    torch.set_num_threads(1)
    return world(informative=True, steps=STEPS)


def assert_equal(found: World, whole: World) -> None:
    about = (found.training, whole.training)
    assert replace(about[0], seconds=0.0) == replace(about[1], seconds=0.0)
    for name, value in whole.head.state_dict().items():
        assert torch.equal(value, found.head.state_dict()[name]), name


@pytest.mark.parametrize("after", [1, 37, 80, 81, 123, STEPS])
def test_it_goes_on_to_the_same_bits(tmp_path: Path, whole: World, after: int) -> None:
    path = tmp_path / "head"
    with pytest.raises(Ended):
        world(informative=True, steps=STEPS, checkpoint=Ending(path, after=after))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["facts"])["step"] == after
    assert_equal(world(informative=True, steps=STEPS, checkpoint=Checkpoint(path)), whole)


def test_one_that_is_done_is_not_trained_again(tmp_path: Path, whole: World, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "head"
    assert_equal(world(informative=True, steps=STEPS, checkpoint=Checkpoint(path)), whole)
    assert_equal(world(informative=True, steps=STEPS, checkpoint=Ending(path, after=10**9)), whole)


def test_that_of_other_tasks_starts_again(tmp_path: Path, whole: World, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "head"
    world(informative=False, steps=20, checkpoint=Checkpoint(path))
    assert_equal(world(informative=True, steps=STEPS, checkpoint=Checkpoint(path)), whole)
    assert "is of another training" in caplog.text


CHILD = """
import sys
from pathlib import Path
from tests.test_generator_standing import STEPS, Checkpoint, torch, world
torch.set_num_threads(1)
world(informative=True, steps=STEPS, checkpoint=Checkpoint(Path(sys.argv[1]), every_s=0.0))
"""


@pytest.mark.kills
def test_a_killed_one_goes_on(tmp_path: Path, whole: World) -> None:
    path = tmp_path / "head"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)])
    try:
        deadline = time.monotonic() + 120
        while not path.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
    finally:
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert_equal(world(informative=True, steps=STEPS, checkpoint=Checkpoint(path)), whole)
