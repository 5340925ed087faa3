"""The causal language model that reads a context: text -> c, its mean last hidden state.

Any causal model of `transformers`, from a folder or the hub, or the embedded default of `embedded.py`. Only
safetensors weights are read and no code that comes with a model is run.

Shapes: N texts, T tokens of a text, H hidden width.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils.logging import disable_progress_bar

from cluster.errors import ModelError

log = logging.getLogger(__name__)
Floats32 = NDArray[np.float32]


class Backbone:
    """A language model with its tokenizer.

    Args:
        model: a causal model of `transformers`.
        tokenizer: its tokenizer.
        tokens: budget of a text; longer ones are cut on the right.
        batch: texts per forward pass; halved for good when the device's memory does not hold them.
    """

    def __init__(self, model: Any, tokenizer: Any, tokens: int, batch: int) -> None:
        check_fit(model, tokenizer)
        positions = getattr(model.config, "max_position_embeddings", None) or tokens
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.tokens = min(tokens, positions)
        self.positions = positions
        self.batch = batch

    @classmethod
    def load(cls, name: str, tokens: int, batch: int, device: str | None = None) -> "Backbone":
        """Read a model folder, or fetch a hub id.

        Raises:
            ModelError: no such model, another kind of model, no weights, or a tokenizer that does not fit.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_kind(name)
        model = _read_weights(name, device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"generator.model {name!r}: no usable tokenizer ({_brief(error)}); save the model's tokenizer "
                "into the folder with tokenizer.save_pretrained"
            ) from error
        return cls(model, tokenizer, tokens, batch)

    @property
    def hidden(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def encode(self, texts: Sequence[str], tokens: int | None = None) -> list[list[int]]:
        """Token ids within the budget; a text of no tokens becomes a single end (or first) token."""
        if not texts:
            return []
        limit = min(tokens or self.tokens, self.positions)
        rows = self.tokenizer(list(texts), truncation=True, max_length=limit, return_attention_mask=False)["input_ids"]
        filler = self.tokenizer.eos_token_id or 0
        return [row or [filler] for row in rows]

    def cut(self, texts: Sequence[str]) -> float:
        """Share of the texts that are longer than the budget."""
        rows = self.tokenizer(list(texts), return_attention_mask=False, verbose=False)["input_ids"]
        return sum(len(row) > self.tokens for row in rows) / max(len(texts), 1)

    def embed(self, texts: Sequence[str]) -> Floats32:
        """c of each text, (N, H): the last hidden state averaged over its tokens. Equal texts are read once."""
        unique = sorted(set(texts))
        ids = self.encode(unique)
        order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
        states = np.zeros((len(unique), self.hidden), np.float32)
        start = 0
        while start < len(order):
            rows = order[start : start + self.batch]
            try:
                states[rows] = self._forward([ids[i] for i in rows])
            except torch.OutOfMemoryError as error:
                self.halve(error, len(rows))
                continue
            start += len(rows)
        where = {text: i for i, text in enumerate(unique)}
        return states[[where[text] for text in texts]]

    def save(self, folder: Path) -> None:
        if not sys.stderr.isatty():
            disable_progress_bar()  # transformers' bar of one file would stand in the log of every job
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def halve(self, error: Exception, tried: int) -> None:
        """Go on with half of the texts `tried` after the device ran out of memory; ModelError where it was one."""
        if tried == 1:
            raise ModelError(
                f"a single text of {self.tokens} tokens does not fit the device's memory; "
                "lower generator.tokens or take a smaller generator.model"
            ) from error
        self.batch = min(self.batch, tried) // 2
        torch.cuda.empty_cache()
        log.warning("out of memory: going on with generator.batch = %d", self.batch)

    @torch.no_grad()
    def _forward(self, ids: list[list[int]]) -> Floats32:
        tokens_NT, mask_NT = pad(ids, self.device)
        cuda = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cuda):
            out = self.model.base_model(input_ids=tokens_NT, attention_mask=mask_NT, use_cache=False)
        hidden_NTH = out.last_hidden_state.float()
        weight_NT = mask_NT.float().unsqueeze(-1)
        pooled_NH = (hidden_NTH * weight_NT).sum(1) / weight_NT.sum(1)
        result: Floats32 = pooled_NH.cpu().numpy()
        return result


def pad(ids: list[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (N, T), padded on the right."""
    width = max(len(row) for row in ids)
    tokens_NT = torch.zeros(len(ids), width, dtype=torch.long)
    mask_NT = torch.zeros(len(ids), width, dtype=torch.long)
    for i, row in enumerate(ids):
        tokens_NT[i, : len(row)] = torch.tensor(row)
        mask_NT[i, : len(row)] = 1
    return tokens_NT.to(device), mask_NT.to(device)


def check_fit(model: Any, tokenizer: Any) -> None:
    """Raises ModelError where the tokenizer may name a token that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens but the model embeds {rows}: they do not belong "
            "together; take the tokenizer that the model was trained with, or resize the embeddings"
        )


def check_kind(name: str) -> None:
    """Raises ModelError where `name` is no causal language model of `transformers`."""
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"generator.model {name!r}: neither a model folder nor a hub id that can be fetched "
            f"({_brief(error)}); give a folder written by save_pretrained, or leave it null for the default"
        ) from error
    kind = config.model_type
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or encoder or config.is_encoder_decoder:
        raise ModelError(
            f"generator.model {name!r} is a {kind!r} model, which is not a causal language model; "
            "take a decoder such as Llama, Qwen, Mistral or GPT-2"
        )


def _read_weights(name: str, device: str) -> Any:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.bfloat16 if device == "cuda" else torch.float32,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"generator.model {name!r}: no weights that can be read ({_brief(error)}); the folder needs "
            "model.safetensors as written by save_pretrained"
        ) from error
    model, found = loaded
    missing = sorted(found["missing_keys"]) + sorted(str(k) for k in found["mismatched_keys"])
    if missing:
        raise ModelError(
            f"generator.model {name!r}: {len(missing)} weights are missing or of another shape "
            f"({missing[0]}, ...); the files are incomplete or belong to another configuration"
        )
    return model.to(device)


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
