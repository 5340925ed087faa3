import time
from pathlib import Path

import pytest

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.importers.formats import FORMATS
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.marketplace.marketplace import Marketplace


def test_the_default_marketplace_is_made_in_five_seconds() -> None:
    told: list[tuple[int, int]] = []
    begin = time.process_time()
    imported = read_marketplace([], Options(), DataSettings(), 0, lambda done, total: told.append((done, total)))
    assert time.process_time() - begin < 5
    assert (len(imported.dataset.events), len(imported.dataset.items), len(imported.dataset.users)) == (
        30_000,
        120,
        2_000,
    )
    assert told[-1] == (30_000, 30_000)
    assert len(imported.quarantine) == 0
    assert Marketplace(**imported.dataset.facts["marketplace"]).items_table().equals(imported.dataset.items)


def test_the_seed_and_the_settings_decide() -> None:
    small = DataSettings(marketplace_users=50, marketplace_items=20, marketplace_events=400, max_events=300)
    first, same, other = (read_marketplace([], Options(), small, seed).dataset for seed in (1, 1, 2))
    assert first.events.equals(same.events)
    assert first.facts["fingerprint"] == same.facts["fingerprint"] != other.facts["fingerprint"]
    assert (len(first.events), first.facts["rows"]) == (300, 400)


@pytest.mark.parametrize(("paths", "options"), [([Path("x.csv")], Options()), ([], Options(client="a"))])
def test_it_takes_no_files(paths: list[Path], options: Options) -> None:
    with pytest.raises(SchemaError, match="takes no --data, --map, --exclude or --client"):
        read_marketplace(paths, options, DataSettings(), 0)


def test_formats_by_name() -> None:
    assert list(FORMATS) == ["native", "open-bandit", "table", "transactions", "marketplace"]
