"""Backbones of several families from folders, wrong ones refused by name, and states checked one by one."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from actors.generator import embedded
from actors.generator.backbone import Backbone
from cluster.errors import ModelError

TEXTS = ["age=30 device=mobile recent: Red lamp", "age=41 device=tablet", "", "age=30 hour=3..7 zone=north " * 9]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=48),
    "mistral": MistralConfig(**SMALL, num_key_value_heads=2, intermediate_size=48),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2, intermediate_size=48),
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64),
}


@pytest.fixture(scope="module")
def default() -> Backbone:
    return embedded.build(TEXTS * 3, hidden=32, layers=2, tokens=24, batch=2, seed=0)


def folder(path: Path, default: Backbone, config: Any) -> Path:
    config.vocab_size = len(default.tokenizer) + 8
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    default.tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_any_causal_family_is_read_and_pooled_over_its_tokens(
    family: str, default: Backbone, tmp_path: Path
) -> None:
    path = str(folder(tmp_path, default, FAMILIES[family]))
    backbone = Backbone.load(path, tokens=24, batch=3, device="cpu")
    assert type(backbone.model).__name__.lower().startswith(family)
    states = backbone.embed(TEXTS)
    assert states.shape == (4, 32)
    assert states.dtype == np.float32
    for text, state in zip(TEXTS, states, strict=True):
        ids = torch.tensor([(backbone.tokenizer(text)["input_ids"] or [backbone.tokenizer.eos_token_id])[:24]])
        with torch.no_grad():
            alone = backbone.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
        np.testing.assert_allclose(state, alone.numpy(), atol=1e-5)


def test_order_duplicates_and_batch_size_do_not_change_a_state(default: Backbone) -> None:
    states = default.embed([*TEXTS, TEXTS[0]])
    np.testing.assert_array_equal(states[0], states[4])
    np.testing.assert_allclose(default.embed(TEXTS[::-1])[::-1], states[:4], atol=1e-6)
    assert default.embed([]).shape == (0, 32)


def test_the_default_is_the_same_for_the_same_texts_and_seed(default: Backbone) -> None:
    again = embedded.build(TEXTS * 3, hidden=32, layers=2, tokens=24, batch=2, seed=0)
    np.testing.assert_array_equal(default.embed(TEXTS), again.embed(TEXTS))
    other = embedded.build(TEXTS * 3, hidden=32, layers=2, tokens=24, batch=2, seed=1)
    assert np.abs(default.embed(TEXTS) - other.embed(TEXTS)).max() > 0.01


def test_a_saved_model_gives_the_same_states(default: Backbone, tmp_path: Path) -> None:
    default.save(tmp_path)
    loaded = Backbone.load(str(tmp_path), tokens=24, batch=2, device="cpu")
    np.testing.assert_allclose(loaded.embed(TEXTS), default.embed(TEXTS), atol=1e-6)


class Narrow(torch.nn.Module):
    """A model on a device that holds `most` texts at a time."""

    def __init__(self, inner: Any, most: int) -> None:
        super().__init__()
        self.inner, self.most, self.config = inner, most, inner.config

    @property
    def base_model(self) -> "Narrow":
        return self

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, **others: Any) -> Any:
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.inner.base_model(input_ids=input_ids, **others)


def test_out_of_memory_halves_the_batch_and_says_so(default: Backbone, caplog: pytest.LogCaptureFixture) -> None:
    narrow = Backbone(Narrow(default.model, most=1), default.tokenizer, 24, batch=4)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(narrow.embed(TEXTS), default.embed(TEXTS), atol=1e-6)
    assert narrow.batch == 1
    assert "generator.batch = 1" in caplog.text


def test_one_text_too_many_is_an_error(default: Backbone) -> None:
    with pytest.raises(ModelError, match=r"lower generator\.tokens"):
        Backbone(Narrow(default.model, most=0), default.tokenizer, 24, batch=2).embed(TEXTS)


def test_an_encoder_is_refused_by_name(tmp_path: Path) -> None:
    BertModel(BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ModelError, match="'bert' model, which is not a causal"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_an_encoder_with_decoder_is_refused_by_name(tmp_path: Path) -> None:
    config = T5Config(vocab_size=50, d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="'t5' model, which is not a causal"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_a_folder_without_weights_is_named(default: Backbone, tmp_path: Path) -> None:
    default.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no weights that can be read.*model\.safetensors"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_cut_weights_are_named(default: Backbone, tmp_path: Path) -> None:
    default.save(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="no weights that can be read"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_weights_of_another_configuration_are_named(default: Backbone, tmp_path: Path) -> None:
    default.save(tmp_path)
    deeper = LlamaConfig.from_pretrained(tmp_path)
    deeper.num_hidden_layers = 3
    deeper.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"weights are missing.*layers\.2"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_a_tokenizer_too_large_is_named(default: Backbone, tmp_path: Path) -> None:
    config = LlamaConfig(**SMALL, num_key_value_heads=2, intermediate_size=48, vocab_size=100)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    default.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer has \d+ tokens but the model embeds 100"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_a_folder_without_tokenizer_is_named(default: Backbone, tmp_path: Path) -> None:
    default.model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="no usable tokenizer"):
        Backbone.load(str(tmp_path), tokens=24, batch=2)


def test_no_such_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither a model folder nor a hub id"):
        Backbone.load(str(tmp_path / "nowhere"), tokens=24, batch=2)
