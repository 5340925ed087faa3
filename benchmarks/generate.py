"""Candidates per second: one batched pass over [contexts x codes] against one call per candidate.

Both turn the same context texts into the same priors (means and covariance factors of every candidate, float64)
with the same language model and head on the same machine and threads. Ours reads all texts in batches and maps
all contexts with all codes by one product; the peer, the way a generator behind a request API is called, reads
one text and asks the head for one (context, code) at a time. The outputs are compared before anything is
printed. The model is the embedded default, untrained: speed does not depend on its weights. Reading the text
counts for both. The ratio is the median over repeats in which the two take turns.

On a GPU the model is that of a small LLM instead, 16 layers of width 2,048 in bfloat16 (0.8 billion weights), and the
peer is asked for the first `PEER_CONTEXTS` contexts alone; its outputs are compared at bfloat16's precision.

`share_of_limit` says how much of what this machine can do the reading of texts reaches, tokens alone counting (no
padding, no tokenizer, no head):

    operations   2 W a token for its W weights outside the embedding, and in each of L layers 4 H t for the attention
                 of the t-th token, of width H, to the t up to it:  F = Σ_texts 2 W T + 2 L H T (T + 1)
    bytes        the weights once a batch:  B = batches x W x bytes of a weight
    limit        max(F / peak operations/s, B / peak bytes/s) seconds, whichever binds: the roofline (Williams, 2009)

Both peaks are measured here and now, in the model's precision: a product of two square matrices, and a copy of
memory (read and written, so twice its size). peer: the same share for one call each.

    python -m benchmarks.generate [--quick] [--contexts 64] [--device cpu|cuda]
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

CODES, RANK, ARMS, DIMENSION, CONTEXT = 4, 8, 1, 96, 16
REPEATS = 5
SIZES = {"cpu": {"hidden": 96, "layers": 2, "batch": 32}, "cuda": {"hidden": 2_048, "layers": 16, "batch": 256}}
PEER_CONTEXTS = {"cpu": None, "cuda": 32}
TOLERANCE = {"cpu": 1e-4, "cuda": 0.2}
SQUARE = {"cpu": 1_024, "cuda": 8_192}
COPIED_BYTES = {"cpu": 2**27, "cuda": 2**31}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="smallest useful size, under a minute")
    parser.add_argument("--contexts", type=int, default=512, help="contexts generated for (64 with --quick)")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of both sides")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="where the language model is; default a GPU, if any")
    arguments = parser.parse_args()
    contexts = 64 if arguments.quick else arguments.contexts
    import torch

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; leave it out, or say --device cpu")
    torch.set_num_threads(arguments.threads)
    measures = measure(contexts, 3 if arguments.quick else REPEATS, device)
    print(json.dumps({"benchmark": "generate", "device": device, "measures": measures}))


def measure(contexts: int, repeats: int, device: str) -> list[dict[str, Any]]:
    import numpy as np
    import torch
    from tqdm import tqdm

    from actors.generator import embedded
    from actors.generator.head import Head

    texts = [
        f"age={20 + n % 50} device={('mobile', 'tablet', 'desktop')[n % 3]} hour={n % 24} region={n % 7} "
        f"recent: lamp number {n}; rug number {n % 11}; mug number {n % 13}"
        for n in range(contexts)
    ]
    backbone = embedded.build(texts, tokens=96, seed=0, **SIZES[device])
    backbone.model.to(device, torch.bfloat16 if device == "cuda" else torch.float32)
    head = Head(CONTEXT, CODES, RANK, ARMS, DIMENSION, noise=0.1, seed=0)
    with torch.no_grad():
        for parameter in (head.last, head.direct):
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    turn_HQ = np.random.default_rng(0).normal(size=(backbone.hidden, CONTEXT)) / backbone.hidden**0.5
    mean_AD = np.zeros((ARMS, DIMENSION))
    shift_ADR, spread_ADR = (p.detach().numpy() for p in (head.shift_ADR, head.spread_ADR))
    asked = texts[: PEER_CONTEXTS[device]]

    def priors(code_JQ: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            h_JSR, g_JSR = (x.numpy() for x in head.outputs(torch.from_numpy(code_JQ)))
        means = mean_AD + np.einsum("adr,jsr->jsad", shift_ADR, h_JSR)
        return means, spread_ADR * np.exp(g_JSR)[:, :, None, None]

    def batched() -> tuple[Any, Any]:
        return priors(backbone.embed(texts).astype(np.float64) @ turn_HQ)

    def one_each() -> tuple[Any, Any]:
        found = []
        for text in asked:
            for s in range(CODES):
                means, ranks = priors(backbone.embed([text]).astype(np.float64) @ turn_HQ)
                found.append((means[0, s], ranks[0, s]))
        return tuple(np.stack(x).reshape(len(asked), CODES, *x[0].shape) for x in zip(*found, strict=True))  # type: ignore[return-value]

    for ours, theirs in zip(batched(), one_each(), strict=True):
        np.testing.assert_allclose(ours[: len(asked)], theirs, atol=TOLERANCE[device])
    ids = backbone.encode(sorted(set(texts)))
    limit_s = limit(backbone, ids, len(ids) / backbone.batch, device)
    alone_s = limit(backbone, backbone.encode(asked), len(asked), device) * CODES
    bar = tqdm(range(repeats), desc="generate", file=sys.stderr)
    pairs = np.array([(seconds(batched), seconds(one_each), seconds(lambda: backbone.embed(texts))) for _ in bar])
    rates = np.array([[contexts * CODES / a, len(asked) * CODES / b] for a, b, _ in pairs])
    ratio = rates[:, 0] / rates[:, 1]
    shares = limit_s / pairs[:, 2], alone_s / pairs[:, 1]
    return [
        row("candidates_per_s", float(np.median(rates[:, 0])), float(np.median(rates[:, 1])), ratio, "candidates/s"),
        row("share_of_limit", *(float(np.median(s)) for s in shares), shares[0] / shares[1], "share of the roofline"),
    ]


def limit(backbone: Any, ids: Sequence[Sequence[int]], batches: float, device: str) -> float:
    """Seconds that this machine needs at least to read these tokens in so many batches."""
    done = operations(backbone, [len(row) for row in ids])
    read = math.ceil(batches) * weights(backbone) * next(backbone.model.parameters()).element_size()
    per_s, bytes_per_s = peaks(device)
    print(
        f"{len(ids)} texts, {sum(map(len, ids)):,} tokens in {math.ceil(batches)} batches: {done / 1e9:.2f} G "
        f"operations at {per_s / 1e9:,.0f} G/s = {done / per_s * 1e3:.2f} ms; {read / 2**20:.1f} MiB of weights at "
        f"{bytes_per_s / 1e9:,.0f} GB/s = {read / bytes_per_s * 1e3:.2f} ms",
        file=sys.stderr,
    )
    return max(done / per_s, read / bytes_per_s)


def operations(backbone: Any, tokens: Sequence[int]) -> int:
    """Of reading texts of so many tokens each: F above."""
    config = backbone.model.config
    width = config.hidden_size * config.num_hidden_layers
    return sum(2 * weights(backbone) * t + 2 * width * t * (t + 1) for t in tokens)


def weights(backbone: Any) -> int:
    """Outside the embedding, which is looked up and not multiplied."""
    embedding: int = backbone.model.get_input_embeddings().weight.numel()
    return sum(p.numel() for p in backbone.model.parameters()) - embedding


def peaks(device: str) -> tuple[float, float]:
    """Operations and bytes a second, the best of five: a matrix product in the model's precision, a copy of memory."""
    import torch

    kind = torch.bfloat16 if device == "cuda" else torch.float32
    n, copied = SQUARE[device], torch.empty(COPIED_BYTES[device], dtype=torch.uint8, device=device)
    one, two, target = (torch.ones(n, n, dtype=kind, device=device) for _ in range(3))
    into = torch.empty_like(copied)
    product = min(seconds(lambda: torch.mm(one, two, out=target)) for _ in range(5))
    moved = min(seconds(lambda: into.copy_(copied)) for _ in range(5))
    return 2 * n**3 / product, 2 * copied.numel() / moved


def seconds(work: Callable[[], object]) -> float:
    """Of the work and, on a GPU, all that it has started."""
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def row(name: str, ours: float, peer: float, ratio: Any, unit: str) -> dict[str, Any]:
    import numpy as np

    figures = {"ours": float(f"{ours:.4g}"), "peer": float(f"{peer:.4g}"), "peer_name": "one_call_each"}
    return {"name": name, **figures, "ratio": round(float(np.median(ratio)), 2), "unit": unit}


if __name__ == "__main__":
    main()
