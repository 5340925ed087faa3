import json

from benchmarks.__main__ import names, render
from tests.programs import ended


def test_every_benchmark_is_found() -> None:
    assert "decide" in names()
    assert not [name for name in names() if name.startswith("_")]


def test_the_page_says_what_was_measured_and_what_failed() -> None:
    ratio = {"name": "update", "ours": 12345.6, "peer": 100.0, "peer_name": "vw", "ratio": 123.456, "unit": "1/s"}
    difference = {
        "name": "auc",
        "ours": 0.8,
        "peer": 0.7,
        "peer_name": "p",
        "difference": 0.1,
        "interval": [0.05, 0.15],
    }
    page = render(
        [
            {"benchmark": "decide", "measures": [ratio, difference], "seconds": 3.2},
            {"benchmark": "serve", "failed": 7},
        ],
        quick=False,
    )
    assert "| `update` | 12,346 | 100 | vw | 123 |  | 1/s |" in page
    assert "| `auc` | 0.8 | 0.7 | p | 0.1 | 0.05 to 0.15 |  |" in page
    assert "Failed with exit code 7: `python -m benchmarks.serve`" in page
    assert "GiB" in page


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    done = ended("benchmarks", "dance")
    assert done.returncode == 2
    assert "no such benchmark: dance" in done.stderr
    assert json.dumps(names()[0]).strip('"') in done.stderr
