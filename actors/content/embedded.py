"""The embedded default: a small CLIP with a byte-level BPE tokenizer of its own, trained on the catalogue."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from actors.content.encoder import Encoder
from actors.content.kinds import Kind
from actors.content.readers import ImageReader, Reader, TextReader
from cluster.config import ContentSettings

VOCABULARY = 2_000
PATCH = 8
HEAD = 16
"""Width of an attention head at least."""
PADDING, END, START = "<pad>", "<end>", "<start>"
"""END must not be number 2: by it transformers knows a CLIP of 2021, which took a text's last number for its end."""


def build(texts: Sequence[str], settings: ContentSettings, seed: int) -> Encoder:
    """An untrained encoder of text and pictures, equal for equal texts, settings and seed."""
    tokenizer = _tokenizer(texts, settings.tokens)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = CLIPModel(_config(tokenizer, settings))
    model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    kind = Kind("clip", ("text", "image"), paired=True)
    towers: dict[Any, Reader] = {
        "text": TextReader(tokenizer, model, kind, settings.tokens),
        "image": ImageReader(_pictures(settings.pixels), settings.frames),
    }
    encoder = Encoder(model, kind, towers, settings)
    encoder.check()
    return encoder


def _config(tokenizer: PreTrainedTokenizerFast, settings: ContentSettings) -> CLIPConfig:
    shape = {"hidden_size": settings.hidden, "intermediate_size": 2 * settings.hidden}
    shape |= {"num_attention_heads": _heads(settings.hidden)}
    text = shape | {
        "num_hidden_layers": 1,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": settings.tokens,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = shape | {
        "num_hidden_layers": settings.layers,
        "image_size": settings.pixels,
        "patch_size": PATCH,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=settings.dimension)


def _pictures(pixels: int) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels})


def _tokenizer(texts: Sequence[str], tokens: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PADDING, END, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PADDING, eos_token=END, bos_token=START, model_max_length=tokens
    )


def _heads(hidden: int) -> int:
    """As many attention heads as divide the width into parts of 16 or more."""
    return next((h for h in (8, 4, 2) if hidden % h == 0 and hidden // h >= HEAD), 1)
