"""The clock of a training, as the generator's modules import it."""

from cluster.clock import Clock

__all__ = ["Clock"]
