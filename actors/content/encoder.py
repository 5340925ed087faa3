"""The encoder of content: parts -> unit vectors, by any text, image, audio, CLIP-like or CLAP-like model.

A model with two towers (CLIP, SigLIP, CLAP) gives their projections; of a single tower a text is the mean of its last
hidden states, a sound the mean over its frames, a picture the model's pooled output, or the mean where the folder
holds no trained pooler. A video or a long sound is the mean of the unit vectors of its views.

Shapes: P parts, V views, E size of the embedding.
"""

import hashlib
import json
import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils.logging import disable_progress_bar

from actors.content.contents import Modality, Part
from actors.content.embedding import Encoded, Vectors, unit
from actors.content.kinds import Kind, brief, detect, weights
from actors.content.readers import Reader, View, readers, sample
from cluster.config import ContentSettings
from cluster.errors import ModelError, SourceError

log = logging.getLogger(__name__)
FORMAT = 1
"""Raise it when the way from bytes to vectors changes: what is cached no longer counts then."""
READERS = 2
"""Pictures read at a time: Pillow leaves the interpreter to others meanwhile. The largest takes 0.8 GB of memory."""


class Encoder:
    """A model with the readers of its modalities.

    `passes` counts forward passes and `views` what was read in them, since the encoder was made.
    """

    def __init__(
        self,
        model: Any,
        kind: Kind,
        towers: dict[Modality, Reader],
        settings: ContentSettings,
    ) -> None:
        self.model, self.kind, self.towers = model, kind, towers
        self.batch = settings.batch
        self.passes = self.views = 0
        self._limits = (settings.tokens, settings.frames, settings.window_s)
        self.dimension = 0
        self.fingerprint = self._fingerprint()

    @classmethod
    def load(cls, source: str, settings: ContentSettings, device: str | None = None) -> "Encoder":
        """Read a model folder, or fetch a hub id.

        Raises:
            ModelError: no such model, no encoder, no weights, or no processor that fits.
        """
        if not sys.stderr.isatty():
            disable_progress_bar()  # transformers' bar of weights would stand in the log of every job
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind, _ = detect(source)
        model = weights(source, device)
        encoder = cls(model, kind, readers(source, kind, model, settings), settings)
        encoder.check()
        return encoder

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What it reads of an item; frames of a video are pictures."""
        return (*self.kind.modalities, "video") if "image" in self.kind.modalities else self.kind.modalities

    def check(self) -> None:
        """Read one small part of each modality, and learn from it the size of a vector.

        Raises:
            ModelError: model and processors do not fit each other, or the towers' sizes differ.
        """
        sizes = {}
        for tower in self.kind.modalities:
            try:
                sizes[tower] = self._forward(tower, self.towers[tower].views(sample(tower))).shape[1]
            except (ValueError, RuntimeError, IndexError, TypeError, SourceError) as error:
                raise ModelError(
                    f"content.model: the {self.kind.name!r} model cannot read what its processor of {tower} makes "
                    f"({brief(error)}); the folder's processor must be the one the model was trained with"
                ) from error
        if len(set(sizes.values())) > 1:
            raise ModelError(f"content.model: the {self.kind.name!r} model's towers give vectors of sizes {sizes}")
        self.dimension = next(iter(sizes.values()))
        self.passes = self.views = 0

    def embed(self, parts: Sequence[Part]) -> Encoded:
        """The parts' unit vectors; one that cannot be read is a problem, never an error."""
        views: list[View] = []
        owners: list[tuple[int, Modality]] = []
        problems: dict[int, str] = {}
        for i, read in enumerate(self._viewed(parts)):
            if isinstance(read, SourceError):
                problems[i] = f"{parts[i].modality}: {read}"
                continue
            views += read
            owners += [(i, _tower(parts[i]))] * len(read)
        units_VE = self._read(views, [tower for _, tower in owners])
        sums_PE = np.zeros((len(parts), self.dimension))
        np.add.at(sums_PE, np.array([i for i, _ in owners], int), units_VE)
        vectors_PE, there_P = unit(sums_PE)
        unusable = set(np.flatnonzero(~there_P).tolist()) - problems.keys()
        problems |= {i: f"{parts[i].modality}: the model's vector is zero or not finite" for i in unusable}
        return Encoded(vectors_PE, problems)

    def refresh(self) -> None:
        """After training: another model, by another fingerprint."""
        self.model.eval()
        self.fingerprint = self._fingerprint()

    def save(self, folder: Path) -> None:
        """Model and processors, as `load` reads them."""
        self.model.save_pretrained(folder)
        for tower in self.towers.values():
            tower.processor.save_pretrained(folder)

    def _viewed(self, parts: Sequence[Part]) -> list[list[View] | SourceError]:
        """The views of each part, or why it has none."""

        def read(part: Part) -> list[View] | SourceError:
            try:
                return self.towers[_tower(part)].views(part)
            except SourceError as error:
                return error

        with ThreadPoolExecutor(READERS) as pool:  # for pictures alone: a tokenizer is not made for threads
            pictures = pool.map(read, [part for part in parts if _tower(part) == "image"])
            return [next(pictures) if _tower(part) == "image" else read(part) for part in parts]

    def _read(self, views: list[View], towers: list[Modality]) -> Vectors:
        """Unit vectors of the views, (V, E), those of equal shapes together."""
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for v, (view, tower) in enumerate(zip(views, towers, strict=True)):
            alike[(tower, *((name, tensor.shape) for name, tensor in sorted(view.items())))].append(v)
        found: dict[int, Vectors] = {}
        for (tower, *_), members in alike.items():
            while members:
                rows = members[: self.batch]
                try:
                    states_VE = self._forward(tower, [views[v] for v in rows])
                except torch.OutOfMemoryError as error:
                    self._halve(error)
                    continue
                found |= dict(zip(rows, unit(states_VE)[0], strict=True))
                members = members[len(rows) :]
        return np.stack([found[v] for v in range(len(views))]) if views else np.zeros((0, self.dimension), np.float32)

    @torch.no_grad()
    def _forward(self, tower: Modality, views: list[View]) -> NDArray[Any]:
        self.passes += 1
        self.views += len(views)
        device = next(self.model.parameters()).device
        inputs = {name: torch.cat([view[name] for view in views]).to(device) for name in views[0]}
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            states_VE = self._pooled(tower, inputs)
        result: NDArray[Any] = states_VE.flatten(1).double().cpu().numpy()
        return result

    def _pooled(self, tower: Modality, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        if self.kind.paired:
            out = getattr(self.model, f"get_{tower}_features")(**inputs)
            pooled: torch.Tensor = getattr(out, "pooler_output", out)
            return pooled
        out = self.model(**inputs)
        if tower == "image" and getattr(out, "pooler_output", None) is not None:
            return out.pooler_output  # type: ignore[no-any-return]
        states: torch.Tensor = out.last_hidden_state  # (V, tokens, E), or (V, E, height, width)
        return states.mean((2, 3)) if states.ndim == 4 else states.mean(1)

    def _halve(self, error: Exception) -> None:
        if self.batch == 1:
            raise ModelError(
                "a single text, picture or sound does not fit the device's memory; lower content.tokens or "
                "content.window_s, or take a smaller content.model"
            ) from error
        self.batch //= 2
        torch.cuda.empty_cache()
        log.warning("out of memory: going on with content.batch = %d", self.batch)

    def _fingerprint(self) -> str:
        """SHA-256 of all that a vector depends on: weights, architecture, processors, limits."""
        config = _lasting(self.model.config.to_dict())
        towers = [_described(tower.processor) for _, tower in sorted(self.towers.items())]
        about = [FORMAT, self.kind.name, self._limits, config, towers]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _tower(part: Part) -> Modality:
    """What reads it."""
    return "image" if part.modality == "video" else part.modality


_VOLATILE = ("transformers_version", "dtype", "architectures", "image_processor_type", "feature_extractor_type")


def _lasting(value: Any) -> Any:
    """A configuration without what saving and loading changes."""
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if not str(k).startswith("_") and k not in _VOLATILE}
    return value


def _described(processor: Any) -> Any:
    """A tokenizer's or processor's own description."""
    if hasattr(processor, "backend_tokenizer"):
        state = json.loads(processor.backend_tokenizer.to_str())
        return {k: v for k, v in state.items() if k not in ("truncation", "padding")}  # left there by the last call
    return _lasting(processor.to_dict())
