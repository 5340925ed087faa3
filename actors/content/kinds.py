"""What kind of encoder a `transformers` model is, told from its own configuration; and reading its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from actors.content.contents import Modality
from cluster.errors import ModelError


@dataclass(frozen=True)
class Kind:
    """`paired`: the model has a tower for each modality and one space for both (CLIP, SigLIP, CLAP)."""

    name: str
    modalities: tuple[Modality, ...]
    paired: bool


def detect(source: str) -> tuple[Kind, Any]:
    """The kind and the configuration of a model folder or hub id.

    Raises:
        ModelError: no such model, or one that is no encoder; the message names what it is.
    """
    try:
        config: Any = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"content.model {source!r}: neither a model folder nor a hub id that can be fetched ({brief(error)}); "
            "give a folder written by save_pretrained, or leave it null for the embedded CLIP"
        ) from error
    kind = _paired(config) or _single(config)
    if kind is None:
        raise ModelError(
            f"content.model {source!r} is a {config.model_type!r} model, which is no encoder of text, image or audio; "
            "take one such as BERT (text), ViT (image), wav2vec2 (audio), CLIP or SigLIP (text and image), or CLAP "
            "(text and audio)"
        )
    return kind, config


def _paired(config: Any) -> Kind | None:
    model = AutoModel._model_mapping.get(type(config), None)
    if not hasattr(model, "get_text_features"):
        return None
    pairs: tuple[tuple[str, Modality], ...] = (("get_image_features", "image"), ("get_audio_features", "audio"))
    second = [modality for method, modality in pairs if hasattr(model, method)]
    return Kind(config.model_type, ("text", *second), paired=True) if second else None


def _single(config: Any) -> Kind | None:
    name = config.model_type
    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return None
    if hasattr(config, "vision_config"):  # reads pictures only beside a text
        return None
    if name in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return Kind(name, ("text",), paired=False)
    if name in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES or name.endswith("_vision_model"):
        return Kind(name, ("image",), paired=False)
    if name in MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES:
        return Kind(name, ("audio",), paired=False)
    return None


def weights(source: str, device: str) -> Any:
    """The model of a folder or hub id. A pooler that it has no weights for is taken off.

    Only safetensors are read, and no code that comes with a model is run.

    Raises:
        ModelError: no weights, or some missing or of another shape.
    """
    try:
        with _quiet():  # of a folder of ViTForImageClassification, transformers tells of each weight it does not need
            loaded: Any = AutoModel.from_pretrained(
                source, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"content.model {source!r}: no weights that can be read ({brief(error)}); the folder needs "
            "model.safetensors as written by save_pretrained"
        ) from error
    model, found = loaded
    missing = sorted({*found["missing_keys"], *(str(key) for key in found["mismatched_keys"])})
    needed = [key for key in missing if not key.startswith("pooler.")]
    if needed:
        raise ModelError(
            f"content.model {source!r}: {len(needed)} weights are missing or of another shape ({needed[0]}, ...); "
            "the files are incomplete or belong to another configuration"
        )
    if missing:
        model.pooler = None
    return model.eval().to(device)


@contextmanager
def _quiet() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


Processor = Literal["tokenizer", "image processor", "feature extractor"]


def processor(auto: Any, source: str, what: Processor, **options: Any) -> Any:
    """What turns text, pictures or sounds into the model's inputs, from its folder.

    Raises:
        ModelError: the folder has none.
    """
    try:
        return auto.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"content.model {source!r}: no usable {what} ({brief(error)}); save the model's own into the folder "
            "with its save_pretrained"
        ) from error


def brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
