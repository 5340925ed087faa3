"""What a head makes of tasks: losses, responsibilities, spread.

Shapes: U tasks, N rows, S codes.
"""

import numpy as np
import torch

from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.head import Head
from actors.generator.likelihood import Rows


def mean_loss(head: Head, rows: Rows, chosen_U: Ints | None = None, plain: bool = False) -> float:
    """L per row over all tasks, or the chosen ones."""
    sizes_U = rows.tasks.sizes_U if chosen_U is None else rows.tasks.sizes_U[chosen_U]
    return float(losses(head, rows, chosen_U, plain).sum()) / int(sizes_U.sum())


def losses(head: Head, rows: Rows, chosen_U: Ints | None = None, plain: bool = False) -> Floats:
    """L of each task, or of the chosen ones."""
    chosen_U = np.arange(len(rows.tasks)) if chosen_U is None else chosen_U
    place, loss_U = np.argsort(chosen_U), np.empty(len(chosen_U))
    with torch.no_grad():
        for b in batches(rows, chosen_U):
            loss_U[place[np.searchsorted(chosen_U, b, sorter=place)]] = head.loss(rows.batch(b), plain).numpy()
    return loss_U


def responsibilities(head: Head, rows: Rows) -> Floats:
    """Posterior share of each code in each task, (U, S)."""
    shares_US = np.empty((len(rows.tasks), head.codes))
    with torch.no_grad():
        for b in batches(rows, np.arange(len(rows.tasks))):
            shares_US[b] = head.log_normals(rows.batch(b)).softmax(-1).numpy()
    return shares_US


def spread(head: Head, rows: Rows, chosen_U: Ints) -> float:
    """Root mean square over rows of the sd over codes of Φ_u U h_s."""
    total, count = 0.0, 0
    with torch.no_grad():
        for b in batches(rows, chosen_U):
            batch = rows.batch(b)
            h_USR, _ = head.outputs(batch.code_UQ)
            shift_USN = torch.einsum("usr,unr->usn", h_USR, head.project(head.shift_ADR, batch))
            total += float(shift_USN.var(1, correction=0).sum())
            count += int(batch.mask_UN.sum())
    return float(np.sqrt(total / max(count, 1)))
