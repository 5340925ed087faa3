"""The quick form of every benchmark whose peers are installed: it ends with one line of figures.

Speed itself is no test: a busy machine would fail it. That ours is not slower than a peer in its usual form is one.
"""

import importlib.util
import json

import pytest

from tests.programs import ended

MEASURES = {
    "decide": {
        "peers": ("vowpalwabbit", "mabwiser"),
        "goals": {"predict_single": "vw_adf", "predict_batch": "mabwiser", "update": "vw_adf"},
    },
    "content": {"peers": ("hnswlib",), "goals": {"filtered_qps": "faiss_hnsw_bitmap"}},
    "ppo": {"peers": ("stable_baselines3",), "goals": {"decisions_per_s": "sb3_32"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MEASURES))
def test_quick_form_ends_with_the_figures(name: str) -> None:
    missing = [peer for peer in MEASURES[name]["peers"] if importlib.util.find_spec(peer) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: python -m pip install -r requirements-bench.txt")
    done = ended(f"benchmarks.{name}", "--quick", COLUMNS="100")
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["benchmark"] == name
    found = {measure["name"]: measure for measure in line["measures"]}
    for measure, peer in MEASURES[name]["goals"].items():
        assert set(found[measure]) >= {"name", "ours", "peer", "peer_name", "ratio", "interval", "unit"}
        assert found[measure]["peer_name"] == peer
        assert found[measure]["ratio"] > 1
        low, high = found[measure]["interval"]
        assert 0 < low <= found[measure]["ratio"] <= high
