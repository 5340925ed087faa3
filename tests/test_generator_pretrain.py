"""Next-token training: the loss falls, equal steps give equal bits, LoRA leaves a plain model behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config

from actors.generator import embedded
from actors.generator.backbone import Backbone
from actors.generator.clock import Clock
from actors.generator.pretrain import Training, pretrain
from cluster.errors import ModelError

COLOURS, LAMPS = ("red", "green", "blue"), ("Sun", "Moon", "Star")
TEXTS = [f"colour={COLOURS[n % 3]} age={n % 7}\n{LAMPS[n % 3]} lamp -> {n % 2}" for n in range(60)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def small() -> Backbone:
    return embedded.build(TEXTS, hidden=32, layers=1, tokens=24, batch=8, seed=0)


def trained(backbone: Backbone, clock: Clock, lora: bool = False) -> Training:
    return pretrain(backbone, TEXTS[:50], TEXTS[50:], clock, lora=lora, seed=0, progress=False)


def test_the_loss_on_histories_not_trained_on_falls() -> None:
    training = trained(small(), Clock(600, steps=60))
    assert training.steps == 60
    assert training.ended_by == "steps"
    assert training.best_loss < 0.6 * training.start_loss
    assert training.tokens > 60 * 8 * 5


def test_equal_steps_give_equal_bits_however_the_training_ended() -> None:
    one = small()
    training = trained(one, Clock(1.0))
    assert training.ended_by in ("time", "held-out loss no longer falls")
    two = small()
    again = trained(two, Clock(600, steps=training.steps))
    assert (again.steps, again.best_step, again.best_loss) == (
        training.steps,
        training.best_step,
        training.best_loss,
    )
    np.testing.assert_array_equal(one.embed(TEXTS), two.embed(TEXTS))


def test_the_seed_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(small(), Clock(600, steps=2))
    assert torch.equal(torch.rand(3), expected)


PEFT = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
"""peft 0.21 still asks transformers 5 by the old name."""
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.mark.filterwarnings(PEFT)
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=64),
        MistralConfig(**SMALL, num_key_value_heads=2, max_position_embeddings=64),
        Qwen2Config(**SMALL, num_key_value_heads=2, max_position_embeddings=64),
        GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=64),
    ],
    ids=lambda config: config.model_type,
)
def test_lora_changes_what_is_said_and_is_merged_away(config: PreTrainedConfig, tmp_path: Path) -> None:
    config.vocab_size = len(small().tokenizer) + 8
    torch.manual_seed(0)
    backbone = Backbone(AutoModelForCausalLM.from_config(config), small().tokenizer, tokens=24, batch=8)
    names, before = set(backbone.model.state_dict()), backbone.embed(TEXTS)
    training = trained(backbone, Clock(600, steps=12), lora=True)
    assert training.best_loss < training.start_loss
    assert set(backbone.model.state_dict()) == names
    assert np.abs(backbone.embed(TEXTS) - before).max() > 1e-4
    backbone.save(tmp_path)
    loaded = Backbone.load(str(tmp_path), tokens=24, batch=8, device="cpu")
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, backbone.model.state_dict()[name]), name


def test_nothing_to_read_is_an_error() -> None:
    with pytest.raises(ModelError, match="0 histories to train the language model on"):
        pretrain(small(), [], TEXTS, Clock(1), lora=False, seed=0, progress=False)
