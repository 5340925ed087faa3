"""Candidates per second: one batched pass over [contexts x codes] against one call per candidate.

Both turn the same context texts into the same priors (means and covariance factors of every candidate, float64)
with the same language model and head on the same machine and threads. Ours reads all texts in batches and maps
all contexts with all codes by one product; the peer, the way a generator behind a request API is called, reads
one text and asks the head for one (context, code) at a time. The outputs are compared before anything is
printed. The model is the embedded default, untrained: speed does not depend on its weights. Reading the text
counts for both. The ratio is the median over repeats in which the two take turns.

    python -m benchmarks.generate [--quick] [--contexts 64]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

CODES, RANK, ARMS, DIMENSION, CONTEXT = 4, 8, 1, 96, 16
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="smallest useful size, under a minute")
    parser.add_argument("--contexts", type=int, default=512, help="contexts generated for (64 with --quick)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides")
    arguments = parser.parse_args()
    contexts = 64 if arguments.quick else arguments.contexts
    measures = measure(contexts, 3 if arguments.quick else REPEATS, arguments.threads)
    print(json.dumps({"benchmark": "generate", "measures": measures}))


def measure(contexts: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    import numpy as np
    import torch
    from tqdm import tqdm

    from actors.generator import embedded
    from actors.generator.head import Head

    torch.set_num_threads(threads)
    texts = [
        f"age={20 + n % 50} device={('mobile', 'tablet', 'desktop')[n % 3]} hour={n % 24} region={n % 7} "
        f"recent: lamp number {n}; rug number {n % 11}; mug number {n % 13}"
        for n in range(contexts)
    ]
    backbone = embedded.build(texts, hidden=96, layers=2, tokens=96, batch=32, seed=0)
    head = Head(CONTEXT, CODES, RANK, ARMS, DIMENSION, noise=0.1, seed=0)
    with torch.no_grad():
        for parameter in (head.last, head.direct):
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    turn_HQ = np.random.default_rng(0).normal(size=(backbone.hidden, CONTEXT))
    mean_AD = np.zeros((ARMS, DIMENSION))
    shift_ADR, spread_ADR = (p.detach().numpy() for p in (head.shift_ADR, head.spread_ADR))

    def priors(code_JQ: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            h_JSR, g_JSR = (x.numpy() for x in head.outputs(torch.from_numpy(code_JQ)))
        means = mean_AD + np.einsum("adr,jsr->jsad", shift_ADR, h_JSR)
        return means, spread_ADR * np.exp(g_JSR)[:, :, None, None]

    def batched() -> tuple[Any, Any]:
        return priors(backbone.embed(texts).astype(np.float64) @ turn_HQ)

    def one_each() -> tuple[Any, Any]:
        found = []
        for text in texts:
            for s in range(CODES):
                means, ranks = priors(backbone.embed([text]).astype(np.float64) @ turn_HQ)
                found.append((means[0, s], ranks[0, s]))
        return tuple(np.stack(x).reshape(contexts, CODES, *x[0].shape) for x in zip(*found, strict=True))  # type: ignore[return-value]

    for ours, theirs in zip(batched(), one_each(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    bar = tqdm(range(repeats), desc="generate", file=sys.stderr)
    pairs = [(seconds(batched), seconds(one_each)) for _ in bar]
    rates = np.array([[contexts * CODES / a, contexts * CODES / b] for a, b in pairs])
    ratio = rates[:, 0] / rates[:, 1]
    return [
        {
            "name": "candidates_per_s",
            "ours": round(float(np.median(rates[:, 0])), 1),
            "peer": round(float(np.median(rates[:, 1])), 1),
            "peer_name": "one_call_each",
            "ratio": round(float(np.median(ratio)), 2),
            "unit": "candidates/s",
        }
    ]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
