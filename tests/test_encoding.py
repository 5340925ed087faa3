"""Inline content: read in time, too late, or by nobody; and nobody waits for a process that is not there."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from actors.content.contents import Content
from actors.content.embedding import Embedded
from serve.observed.metrics import Metrics
from serve.predicting.encoding import MOST, NO_ENCODER, Encoding, Read
from tests.content_serving import direction, embedder, png

pytestmark = pytest.mark.anyio
LONG_MS = 60_000.0
RED, CORRUPT = Content("a red thing"), b"\x89PNG\r\n\x1a\n and then nothing"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Process:
    """Answers when it is let go."""

    def __init__(self, held: bool = False, fails: bool = False, mute: bool = False) -> None:
        self.let_go, self.calls = asyncio.Event(), 0
        self.fails, self.mute, self.embedder = fails, mute, embedder()
        if not held:
            self.let_go.set()

    async def embed(self, version: int, contents: Sequence[Content]) -> Embedded | None:
        self.calls += 1
        await self.let_go.wait()
        if self.fails:
            raise ConnectionError("no such actor")
        return None if self.mute else self.embedder.embed(contents)


def outcomes(metrics: Metrics) -> dict[str, float]:
    return {labels[0]: count for (_, labels), count in metrics.counts.items() if count}


async def test_each_content_has_its_own_vector_or_the_reason_why_not() -> None:
    metrics = Metrics()
    contents = [
        RED,
        Content("", png("blue")),
        Content("green", CORRUPT),
        Content("", CORRUPT),
        Content("  "),
    ]
    found = await Encoding(Process, metrics, LONG_MS)(1, contents)
    for one, colour in zip(found, ("red", "blue", "green"), strict=False):
        np.testing.assert_allclose(one.vector_E, direction(colour))
    assert found[0].reason is found[1].reason is None
    assert found[2].reason == "no whole image", "the text was read, and the picture's fault is told"
    assert (found[3].vector_E, found[3].reason) == (None, "no whole image")
    assert found[4].vector_E is None
    assert found[4].reason is not None
    assert "nothing to encode" in found[4].reason
    assert outcomes(metrics) == {"read": 5}


async def test_who_is_too_slow_is_done_without_and_others_are_asked_on() -> None:
    metrics, process = Metrics(), Process(held=True)
    encoding = Encoding(lambda: process, metrics, 20.0)
    late = await encoding(1, [RED, RED])
    assert [one.vector_E for one in late] == [None, None]
    assert late[0].reason is not None
    assert "40 ms" in late[0].reason, "the wait is for each content"
    process.let_go.set()
    assert (await encoding(1, [RED]))[0].vector_E is not None
    assert outcomes(metrics) == {"late": 2, "read": 1}
    await encoding.stop()


async def test_a_process_that_fails_is_sought_anew_after_a_pause() -> None:
    metrics, found = Metrics(), [Process(fails=True), Process()]
    encoding = Encoding(lambda: found[0], metrics, LONG_MS, again_s=0.2)
    assert (await encoding(1, [RED]))[0] == Read(None, "nobody can read content now; send it again later")
    found.pop(0)
    assert (await encoding(1, [RED]))[0].vector_E is None
    assert found[0].calls == 0, "nobody is asked in the pause"
    await asyncio.sleep(0.25)
    assert (await encoding(1, [RED]))[0].vector_E is not None
    assert outcomes(metrics) == {"failed": 2, "read": 1}


async def test_too_many_at_a_time_are_not_sent() -> None:
    metrics, process = Metrics(), Process(held=True)
    encoding = Encoding(lambda: process, metrics, 1.0)
    await encoding(1, [RED] * MOST)
    refused = (await encoding(1, [RED]))[0]
    assert refused.vector_E is None
    assert refused.reason is not None
    assert str(MOST) in refused.reason
    assert process.calls == 1
    await encoding.stop()
    assert outcomes(metrics) == {"late": MOST, "refused": 1}


async def test_calls_that_come_in_the_same_moment_count_too() -> None:
    metrics, process = Metrics(), Process(held=True)
    encoding = Encoding(lambda: process, metrics, 1.0)
    await asyncio.gather(*(encoding(1, [RED] * (MOST // 2)) for _ in range(5)))
    assert process.calls == 2
    await encoding.stop()
    assert outcomes(metrics) == {"late": MOST, "refused": 3 * (MOST // 2)}


async def test_a_version_that_nobody_reads_for_says_so() -> None:
    found = (await Encoding(lambda: Process(mute=True), Metrics(), LONG_MS)(1, [RED]))[0]
    assert found == Read(None, NO_ENCODER)
