"""One log in the many guises of real files: it is imported as the same data."""

import bz2
import csv
import gzip
import io
import lzma
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import DataSettings
from cluster.importers.imported import Options
from cluster.importers.native import read_native
from cluster.importers.transactions import read_transactions

FIRST = datetime(2011, 1, 28, 23, 30, tzinfo=UTC)
ROWS = [
    {
        "when": FIRST + timedelta(hours=7 * n),
        "user": None if n % 9 == 4 else f"u{n % 5}",
        "item": f"i{n * n % 7}",
        "amount": 1_234.5 * (n % 3) + 0.25 * n + 1,
        "device": None if n % 8 == 3 else ("tv", "Gerät, klein", 'the "big" one')[n % 3],
        "click": n % 2,
    }
    for n in range(60)
]

TIMES: tuple[Callable[[datetime], str], ...] = (
    *(
        lambda when, form=form: when.strftime(form)  # type: ignore[misc]
        for form in (
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%S.000Z",
            "%Y/%m/%d %H:%M:%S UTC",
            "%m/%d/%Y %H:%M",
            "%m/%d/%Y, %I:%M:%S %p",
            "%d/%m/%y %H:%M",
            "%d.%m.%Y %H:%M",
            "%d-%b-%Y %H:%M:%S",
            "%d/%b/%Y:%H:%M:%S +0000",
            "%a, %d %b %Y %H:%M:%S GMT",
            "%Y%m%d%H%M%S",
        )
    ),
    lambda when: when.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
    lambda when: f"{when.timestamp():.0f}",
    lambda when: f"{when.timestamp() * 1e3:.0f}",
)
NUMBERS: tuple[Callable[[float], str], ...] = (
    repr,
    lambda value: f"{value:,.2f}",
    lambda value: f"${value:,.2f}",
    lambda value: f"{value:.2f}".replace(".", ","),
    lambda value: f"{value:,.2f} €".translate({44: ".", 46: ","}),
    lambda value: f"{value:,.2f}".translate({44: "\u00a0", 46: ","}),
    lambda value: f"{value:,.2f}".replace(",", "'"),
)
PACKS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
guises = st.fixed_dictionaries(
    {
        "time": st.sampled_from(TIMES),
        "number": st.sampled_from(NUMBERS),
        "missing": st.sampled_from(["", "NA", "NULL", "N/A", "?", "None", "nan", "-", "\\N", "<NA>"]),
        "answer": st.sampled_from([("0", "1"), ("no", "yes"), ("False", "True"), ("N", "Y"), ("0.0", "1.0")]),
        "delimiter": st.sampled_from([",", ";", "\t", "|"]),
        "end": st.sampled_from(["\n", "\r\n"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "mark": st.booleans(),
        "index": st.booleans(),
        "pack": st.sampled_from(sorted(PACKS)),
    }
)


def written(guise: dict[str, Any], folder: str) -> Path:
    """The log as a file in `folder`."""
    names = {"when": "Time", "user": "User ID", "item": "Item", "amount": "Price", "device": "device", "click": "Click"}
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=guise["delimiter"], quoting=guise["quoting"], lineterminator=guise["end"])
    writer.writerow([*([""] if guise["index"] else []), *names.values()])
    say: dict[str, Callable[[Any], str]] = {
        "when": guise["time"],
        "amount": guise["number"],
        "click": lambda value: guise["answer"][value],
    }
    for n, row in enumerate(ROWS):
        cells = [guise["missing"] if v is None else say.get(k, str)(v) for k, v in row.items()]
        writer.writerow([*([str(n)] if guise["index"] else []), *cells])
    content = buffer.getvalue().encode("utf-8-sig" if guise["mark"] else "utf-8")
    path = Path(folder) / f"log.csv{guise['pack']}"
    path.write_bytes(PACKS[guise["pack"]](content))
    return path


@settings(max_examples=120, deadline=None)
@given(guises)
def test_a_log_is_the_same_in_every_guise(guise: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        imported = read_native([written(guise, folder)], Options(), DataSettings(), 0)
    assert len(imported.quarantine) == 0
    events = imported.dataset.events.to_pylist()
    assert [(e["timestamp"], e["user_id"], e["item_id"], e["reward"]) for e in events] == [
        (row["when"], row["user"], row["item"], float(row["click"])) for row in ROWS
    ]
    told = [dict(e["context"]) for e in events]
    assert [set(row) for row in told] == [{"Price"} | ({"device"} if row["device"] else set()) for row in ROWS]
    assert [float(row["Price"]) for row in told] == [row["amount"] for row in ROWS]


@settings(max_examples=40, deadline=None)
@given(guises)
def test_purchases_are_the_same_in_every_guise(guise: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        imported = read_transactions([written(guise, folder)], Options(), DataSettings(candidates=3), 0)
        plain = {"time": TIMES[0], "number": repr, "missing": "", "answer": ("0", "1"), "delimiter": ",", "end": "\n"}
        as_usual = written({**plain, "quoting": 0, "mark": False, "index": False, "pack": ""}, folder)
        expected = read_transactions([as_usual], Options(), DataSettings(candidates=3), 0)
    for name in ("timestamp", "user_id", "candidates", "item_id", "reward"):
        assert imported.dataset.events[name].to_pylist() == expected.dataset.events[name].to_pylist()
    assert imported.dataset.items["price"].to_pylist() == expected.dataset.items["price"].to_pylist()
