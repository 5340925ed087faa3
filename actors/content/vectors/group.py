"""Commits that come while one is being written go to the disk together: a write that is durable takes milliseconds."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from actors.content.vectors.entry import Change
from actors.content.vectors.store import Store

CHECKPOINT_BYTES = 256 * 2**20
"""Length of the log at which the store begins a new one; searches wait meanwhile."""


class Group:
    """For one event loop. `await commit(changes)` returns when they are durable."""

    def __init__(self, store: Store, checkpoint_bytes: int = CHECKPOINT_BYTES) -> None:
        self._store, self._checkpoint_bytes = store, checkpoint_bytes
        self._waiting: list[tuple[list[Change], asyncio.Future[None]]] = []
        self._writer = ThreadPoolExecutor(1, "vector-store")
        self._task: asyncio.Task[None] | None = None
        self.written = 0

    async def commit(self, changes: Sequence[Change]) -> None:
        """Raises what `Store.commit` does; a change that cannot be is its own caller's error, and no other's."""
        checked = self._store.checked(changes)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((checked, done))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())
        await done

    async def _write(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting, []
            try:
                await self._run(self._store.commit, [change for changes, _ in together for change in changes])
            except Exception as error:
                self._end(together, error)
            else:
                self._end(together, None)
            self.written += 1
            if self._store.log_bytes > self._checkpoint_bytes:
                await self._run(self._store.checkpoint)

    async def _run(self, action: Callable[..., None], *arguments: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, action, *arguments)

    def _end(self, part: list[tuple[list[Change], "asyncio.Future[None]"]], error: Exception | None) -> None:
        for _, done in part:
            if done.done():
                continue  # the caller is gone; what was committed stays
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
