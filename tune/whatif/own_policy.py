"""The user's own policy: a class with one method, asked for one event at a time.

    class Newest:
        def probabilities(self, context, items, user_id):
            return [1.0 if item == max(items) else 0.0 for item in items]

`context` is the situation's dict, `items` the ids of its candidates, `user_id` a string or None; what comes back are
as many probabilities. A class that learns has `learn(context, items, user_id, item, reward)` as well; it is told of
what was logged, after it was asked, where learning is asked for.

Shapes: N events of a block, K candidates (padded).
"""

import importlib
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from actors.features.features import Floats
from cluster.errors import ModelError
from cluster.records import Value, decode
from tune.whatif.block import Block


@runtime_checkable
class Own(Protocol):
    """What a user's class must offer; made by `Class()`."""

    def probabilities(self, context: dict[str, Value], items: list[str], user_id: str | None) -> Sequence[float]: ...


class OwnPolicy:
    """Raises ModelError where the class cannot be made, or does not answer as it must: event, fault, remedy."""

    def __init__(self, source: str, learn: bool):
        self.name = source
        self._own = _made(source)
        self.learns = learn and callable(getattr(self._own, "learn", None))

    def probabilities(self, block: Block) -> Floats:
        policy_NK = np.zeros(block.log.mask_NK.shape)
        columns = (block.events[name].to_pylist() for name in ("context", "user_id", "event_id"))
        for n, (pairs, user, event) in enumerate(zip(*columns, strict=True)):
            context, items = decode(pairs), block.candidates[n]
            where = f"policy {self.name}, event {block.first + n} ({event})"
            policy_NK[n, : len(items)] = self._ask(where, context, list(items), user)
            if self.learns:
                self._tell(where, context, list(items), user, block, n)
        return policy_NK

    def remark(self) -> str:
        return ""

    def _ask(self, where: str, context: dict[str, Value], items: list[str], user: str | None) -> Floats:
        try:
            found_K = np.asarray(self._own.probabilities(context, items, user), dtype=np.float64)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise ModelError(
                f"{where}: probabilities raised {type(error).__name__}: {error}; mend the class"
            ) from error
        if found_K.shape != (len(items),):
            raise ModelError(
                f"{where}: expected {len(items)} probabilities, one per item, found shape {found_K.shape}; "
                "return them in the order of `items`"
            )
        if not np.isfinite(found_K).all():
            raise ModelError(f"{where}: a probability is {found_K[~np.isfinite(found_K)][0]}; divide by no zero")
        if found_K.min() < 0:
            raise ModelError(f"{where}: a probability is {found_K.min():g}, below 0; clip before normalising")
        if abs(found_K.sum() - 1) > 1e-6:
            raise ModelError(f"{where}: probabilities sum to {found_K.sum():g}, not to 1; divide them by their sum")
        return found_K

    def _tell(
        self, where: str, context: dict[str, Value], items: list[str], user: str | None, block: Block, n: int
    ) -> None:
        own: Any = self._own
        item = items[int(block.log.action_N[n])]
        try:
            own.learn(context, items, user, item, block.reward(n))
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise ModelError(f"{where}: learn raised {type(error).__name__}: {error}; mend the class") from error


def _made(source: str) -> Own:
    module, _, attribute = source.partition(":")
    try:
        own = getattr(importlib.import_module(module), attribute)()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ModelError(
            f"--policy {source}: {type(error).__name__}: {error}; expected Class() of a module that can be imported "
            "from the current folder"
        ) from error
    if not isinstance(own, Own):
        raise ModelError(f"--policy {source}: the class lacks probabilities(context, items, user_id); add it")
    return own
