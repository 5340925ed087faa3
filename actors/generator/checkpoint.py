"""Where a training stands, so that it goes on after a kill: one safetensors file, replaced as a whole."""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cluster.disk import flush

log = logging.getLogger(__name__)
EVERY_S = 30.0


@dataclass
class Checkpoint:
    """path: the file; its folder is made. every_s: seconds between two savings by `tick`."""

    path: Path
    every_s: float = EVERY_S
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.every_s

    def save(self, key: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Write aside, then rename; where that cannot be the log says so, and the training goes on without.

        Args:
            key: of all that the training depends on.
            facts: what JSON holds exactly (numbers, text).
        """
        self.saved_at = time.monotonic()
        aside = self.path.with_name(f"{self.path.name}.partial")
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(held, aside, metadata={"key": key, "facts": json.dumps(facts)})
            flush(aside)
            aside.replace(self.path)
        except (OSError, SafetensorError) as error:
            log.warning("%s cannot be written (%s): a kill would cost the training so far", self.path, error)

    def load(self, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """What was saved under this key; None where there is nothing, or another training's."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata()
                if about["key"] != key:
                    log.warning(
                        "%s is of another training (other data, settings or libraries): from the start", self.path
                    )
                    return None
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, json.loads(about["facts"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            log.warning("%s cannot be read (%s): from the start", self.path, error)
            return None
