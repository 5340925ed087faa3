"""Small folders as `save_pretrained` writes them, one for each kind of encoder; sounds and pictures to read."""

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

WORDS = ("red", "green", "blue", "lamp", "rug", "mug", "the", "of")
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = SMALL | {
    "vocab_size": 16,
    "max_position_embeddings": 20,
    "bos_token_id": 3,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
SEEN = SMALL | {"image_size": 32, "patch_size": 8}
PIXELS = {"height": 32, "width": 32}


def tokenizer() -> PreTrainedTokenizerFast:
    """A word a token: <pad> 0, <end> 1, <unknown> 2, <start> 3, then WORDS."""
    names = ["<pad>", "<end>", "<unknown>", "<start>", *WORDS]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unknown>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 3), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", bos_token="<start>", unk_token="<unknown>"
    )


def folder(kind: str, at: Path) -> Path:
    """A folder of this kind with random weights, equal each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, *others = _MADE[kind]()
    path = at / kind
    model.save_pretrained(path)
    for other in others:
        other.save_pretrained(path)
    return path


def _clip() -> tuple[Any, ...]:
    config = CLIPConfig(text_config=TEXT, vision_config=SEEN, projection_dim=24)
    return CLIPModel(config), tokenizer(), CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=PIXELS)


def _siglip() -> tuple[Any, ...]:
    return (
        SiglipModel(SiglipConfig(text_config=TEXT, vision_config=SEEN)),
        tokenizer(),
        SiglipImageProcessorPil(size=PIXELS),
    )


def _clap() -> tuple[Any, ...]:
    heard = {
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "window_size": 4,
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "enable_fusion": False,
    }
    config = ClapConfig(text_config=TEXT, audio_config=heard, projection_dim=24)
    # 64 x 64 of the audio tower: 256 frames of 16 bands
    extractor = ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=8_000,
        hop_length=80,
        max_length_s=2,
        truncation="rand_trunc",
        frequency_max=4_000,
    )
    return ClapModel(config), tokenizer(), extractor


def _wav2vec2() -> tuple[Any, ...]:
    config = Wav2Vec2Config(
        **SMALL,
        vocab_size=16,
        conv_dim=(16, 16),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    return Wav2Vec2Model(config), Wav2Vec2FeatureExtractor(sampling_rate=8_000)


_MADE = {
    "clip": _clip,
    "siglip": _siglip,
    "clap": _clap,
    "bert": lambda: (BertModel(BertConfig(**TEXT)), tokenizer()),
    "roberta": lambda: (RobertaModel(RobertaConfig(**TEXT)), tokenizer()),
    "vit": lambda: (ViTForImageClassification(ViTConfig(**SEEN)), ViTImageProcessorPil(size=PIXELS)),
    "resnet": lambda: (
        ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")),
        ViTImageProcessorPil(size=PIXELS),
    ),
    "wav2vec2": _wav2vec2,
}
KINDS = tuple(_MADE)


def png(colour: str, size: tuple[int, int] = (40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def noise(seed: int, side: int = 40) -> bytes:
    """A PNG of random pixels."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tone(hertz: float, seconds: float, rate_hz: int = 8_000) -> bytes:
    """A WAV of 16 bits."""
    samples = (np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate_hz)) / rate_hz) * 30_000).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, rate_hz, 0, "NONE", ""))
        sound.writeframes(samples.tobytes())
    return file.getvalue()
