"""Parts -> the inputs of a model: one reader for each modality that a model has a tower for.

A reader gives for a part one or more *views* (windows of a sound, frames of a video), each the tensors of a batch of
one. Views whose tensors have equal shapes are read together: nothing is padded, so that an item's vector does not
depend on what else stands in the batch.
"""

import io
import wave as wavefile
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

from actors.content.contents import Modality, Part
from actors.content.kinds import Kind, processor
from actors.content.views import frames, picture, wave, windows
from cluster.config import ContentSettings
from cluster.errors import ModelError, SourceError

View = dict[str, torch.Tensor]


class Reader(Protocol):
    processor: Any
    """Of `transformers`; saved with the model."""

    def views(self, part: Part) -> list[View]:
        """Raises SourceError where the part cannot be read."""
        ...


class TextReader:
    """Token ids, cut on the right to the budget and to what the model has positions for."""

    def __init__(self, tokenizer: Any, model: Any, kind: Kind, tokens: int) -> None:
        self.processor = tokenizer
        config = getattr(model.config, "text_config", model.config)
        self.limit = min(tokens, tokenizer.model_max_length, _positions(model, config))
        self.width = _positions(model, config) if kind.name.startswith("siglip") else None
        """SigLIP was trained on texts filled to its full length, and takes its last position."""

    def views(self, part: Part) -> list[View]:
        text = part.payload[0].decode(errors="replace")
        ids = self.processor(text, truncation=True, max_length=self.limit)["input_ids"]
        if not ids:
            raise SourceError(f"a text of no known token: {text[:40]!r}")
        if self.width is not None:
            filler = self.processor.pad_token_id or 0
            return [{"input_ids": torch.tensor([ids + [filler] * (self.width - len(ids))])}]
        return [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}]


class ImageReader:
    """Pixels of a picture, or of frames spread over a video."""

    def __init__(self, image_processor: Any, most: int) -> None:
        self.processor, self.most = image_processor, most

    def views(self, part: Part) -> list[View]:
        return [dict(self.processor(picture(f), return_tensors="pt")) for f in frames(part.payload, self.most)]


class AudioReader:
    """Samples or spectrograms of windows spread over a sound, at the sampling rate of the model."""

    def __init__(self, extractor: Any, window_s: float, most: int) -> None:
        self.processor, self.most = extractor, most
        self.rate_hz = int(extractor.sampling_rate)
        longest = getattr(extractor, "nb_max_samples", None)  # CLAP's, which draws random stretches of longer sounds
        self.length = min(int(window_s * self.rate_hz), longest or 2**31)

    def views(self, part: Part) -> list[View]:
        samples = wave(part.payload[0], self.rate_hz)
        return [self._view(window) for window in windows(samples, self.length, self.most)]

    def _view(self, samples: Any) -> View:
        view: View = dict(self.processor(samples, sampling_rate=self.rate_hz, return_tensors="pt"))
        if "is_longer" in view:
            view["is_longer"] = torch.zeros_like(view["is_longer"])  # else CLAP calls one of a batch longer, by lot
        return view


def readers(source: str, kind: Kind, model: Any, settings: ContentSettings) -> dict[Modality, Reader]:
    """The readers of a model's modalities, from its folder.

    Raises:
        ModelError: a tokenizer or processor is missing, or does not fit the model.
    """
    found: dict[Modality, Reader] = {}
    if "text" in kind.modalities:
        tokenizer = processor(AutoTokenizer, source, "tokenizer")
        _check_fit(tokenizer, model)
        found["text"] = TextReader(tokenizer, model, kind, settings.tokens)
    if "image" in kind.modalities:
        images = processor(AutoImageProcessor, source, "image processor", backend="pil")
        found["image"] = ImageReader(images, settings.frames)
    if "audio" in kind.modalities:
        extractor = processor(AutoFeatureExtractor, source, "feature extractor")
        found["audio"] = AudioReader(extractor, settings.window_s, settings.frames)
    return found


def sample(modality: Modality) -> Part:
    """A small part to try a model on: a letter, a grey picture, a tenth of a second of a tone."""
    file = io.BytesIO()
    if modality == "image":
        Image.new("RGB", (32, 32), "grey").save(file, "PNG")
    elif modality == "audio":
        with wavefile.open(file, "wb") as sound:
            sound.setparams((1, 2, 16_000, 0, "NONE", ""))
            sound.writeframes((1e4 * np.sin(np.arange(1_600) / 8)).astype("<i2").tobytes())
    return Part(modality, (file.getvalue() or b"a",))


def _positions(model: Any, config: Any) -> int:
    """Tokens that a text may have: RoBERTa's positions start behind its padding token."""
    tower = getattr(model, "text_model", model)
    table = getattr(getattr(tower, "embeddings", None), "position_embeddings", None)
    start = getattr(table, "padding_idx", None)
    most: int = getattr(config, "max_position_embeddings", None) or 2**31
    return most if start is None else most - start - 1


def _check_fit(tokenizer: Any, model: Any) -> None:
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one where there is no file
        raise ModelError(
            "content.model: no usable tokenizer: it has no token but special ones; save the model's own into the "
            "folder with its save_pretrained"
        )
    tower = getattr(model, "text_model", model)
    rows = tower.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"content.model: the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}: they do not "
            "belong together; take the tokenizer that the model was trained with"
        )
