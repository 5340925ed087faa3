"""What the learner keeps of one client and version: the state that learns, and what was last published of it."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from actors.bandits import learn
from actors.bandits.history import History
from actors.bandits.members import Uniform
from actors.bandits.mixture import Mixture
from actors.bandits.published import Published
from actors.content.served import Served
from actors.content.vectors.entry import Outcomes
from serve.decisions.current import Update


@dataclass
class Tracked:
    """number: of the last publication, by the learner's count."""

    client: str
    version: int
    state: learn.State
    update: Update | None = None
    number: int = 0
    users: OrderedDict[str, tuple[int, History]] = field(default_factory=OrderedDict)
    """user -> number of the publication in which the history last changed, latest last, and what it was then."""
    items: dict[int, int] = field(default_factory=dict)
    """Item (catalogue index at the fit) -> number of the publication in which what it says last changed."""
    unpublished: bool = False
    unsaved: bool = True

    def publish(self, number: int) -> Published:
        """Publish the state as it is now."""
        users = sorted(self.state.changed)
        self.items |= dict.fromkeys(sorted(self.state.items.changed), number)
        published = learn.publish(self.state)
        self.number, self.unpublished = number, False
        for user in users:
            self.users.pop(user, None)
            self.users[user] = number, self.state.histories[user]
        self.update = Update(
            client=self.client,
            version=self.version,
            epoch=published.epoch,
            members={m.name: m for m in published.members if not isinstance(m, Uniform | Mixture)},
            weights_M=published.weights_M,
            alternatives_M=published.alternatives_M,
            histories={},
            values_M=published.values_M,
            errors_M=published.errors_M,
            items=published.items,
        )
        return published

    def since(self, number: int) -> Update:
        """What was published, with the histories that changed after publication `number`, and not what was learned
        since: a decision is made again from the state of its publication."""
        assert self.update is not None
        changed = []
        for user, (when, past) in reversed(self.users.items()):
            if when <= number:
                break
            changed.append((user, past))
        return replace(self.update, histories=dict(reversed(changed)))

    def histories(self, users: Collection[str]) -> dict[str, History | None]:
        """As last published, None where there is none."""
        kept = {user: self.users.get(user) for user in users}
        return {user: None if one is None else one[1] for user, one in kept.items()}

    def served(self, item_id: str, row: int) -> Served:
        """What an item's outcomes have taught, in units of the reward."""
        ensemble, (count, total, squares) = self.state.ensemble, self.state.items.sums(row)
        low, span = ensemble.low, ensemble.high - ensemble.low
        sums = Outcomes(
            count, low * count + span * total, low * low * count + 2 * low * span * total + span * span * squares
        )
        return Served(item_id, dict(zip(ensemble.names, self.state.items.weights(row).tolist(), strict=True)), sums)
