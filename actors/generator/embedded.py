"""The embedded default: a small Llama with a byte-level BPE tokenizer trained on the texts it will read."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from actors.generator.backbone import Backbone

VOCABULARY = 1_000
END = "<end>"
PADDING = "<pad>"


def build(texts: Sequence[str], hidden: int, layers: int, tokens: int, batch: int, seed: int) -> Backbone:
    """An untrained model of `hidden` width and `layers` layers, equal for equal texts and seed.

    `tokens` is the budget of a context; histories may be twice as long.
    """
    tokenizer = _tokenizer(texts)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=_heads(hidden),
        max_position_embeddings=2 * tokens,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = LlamaForCausalLM(config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.set_attn_implementation("sdpa" if device == "cuda" else "eager")
    return Backbone(model.to(device), tokenizer, tokens, batch)


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PADDING, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PADDING, eos_token=END)


def _heads(hidden: int) -> int:
    """As many attention heads as divide the width into even parts of 16 or more."""
    return next((h for h in (8, 4, 2) if hidden % (2 * h) == 0 and hidden // h >= 16), 1)
