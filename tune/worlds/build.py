"""Which world answers: a table its label, transactions what was bought, the marketplace its truth, and logged
feedback a reward model fitted on the held-out part; and what the settings put around it."""

from actors.features.features import Ints
from cluster.config import Settings
from cluster.records import Dataset
from tune import metric
from tune.split import parts
from tune.worlds.base import World
from tune.worlds.churn import Churn
from tune.worlds.delayed import Delayed
from tune.worlds.drifting import Drifting
from tune.worlds.labelled import Labelled
from tune.worlds.marketplace import MarketplaceWorld
from tune.worlds.non_responders import NonResponders
from tune.worlds.position_bias import PositionBias
from tune.worlds.reward_model import RewardModel


def build(dataset: Dataset, settings: Settings) -> World:
    """The world on the held-out part of a data set, answering with the settings' metric; the same settings and data
    give the same world."""
    dataset = metric.apply(dataset, settings)
    return on(dataset, parts(dataset, settings.seed).world, settings)


def on(dataset: Dataset, rows: Ints, settings: Settings) -> World:
    """The world on these rows of a data set that has the metric, wrapped as `settings.world` says."""
    return wrapped(plain(dataset, rows, settings), dataset, settings)


def plain(dataset: Dataset, rows: Ints, settings: Settings) -> World:
    match dataset.format:
        case "table" | "transactions":
            return Labelled(dataset, rows, settings.reward)
        case "marketplace":
            return MarketplaceWorld(dataset, rows, settings.seed)
        case _:
            return RewardModel(dataset, rows, settings.reward, settings.seed)


def wrapped(world: World, dataset: Dataset, settings: Settings) -> World:
    """Churn is innermost, since drift moves what is on offer; delay is outermost, since it is of what is earned."""
    asked, seed, default = settings.world, settings.seed, settings.reward.default
    if asked.churn:
        world = Churn(world, seed, asked.churn, default)
    if asked.drift != "none":
        catalogue = dataset.items["item_id"].to_pylist()
        world = Drifting(world, seed, catalogue, asked.drift, asked.drift_at, asked.drift_cycles)
    if asked.non_responders:
        world = NonResponders(world, seed, asked.non_responders, default)
    if asked.examination:
        world = PositionBias(world, seed, asked.examination, default)
    if asked.delay_median_s:
        world = Delayed(world, seed, asked.delay_median_s, asked.delay_tail)
    return world
