"""Which world answers: a table its label, transactions what was bought, the marketplace its truth, and logged
feedback a reward model fitted on the held-out part."""

from cluster.config import Settings
from cluster.records import Dataset
from tune.split import parts
from tune.worlds.base import World
from tune.worlds.labelled import Labelled
from tune.worlds.marketplace import MarketplaceWorld
from tune.worlds.reward_model import RewardModel


def build(dataset: Dataset, settings: Settings) -> World:
    """The world on the held-out part of a data set; the same settings and data give the same world."""
    rows, seed = parts(dataset, settings.seed).world, settings.seed
    match dataset.format:
        case "table" | "transactions":
            return Labelled(dataset, rows, settings.reward)
        case "marketplace":
            return MarketplaceWorld(dataset, rows, seed)
        case _:
            return RewardModel(dataset, rows, settings.reward, seed)
