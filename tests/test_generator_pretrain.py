"""Next-token training: the loss falls, equal steps give equal bits over kills and cuts, LoRA leaves a plain model."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PreTrainedConfig, Qwen2Config

from actors.generator import embedded
from actors.generator.backbone import Backbone
from actors.generator.checkpoint import Checkpoint
from actors.generator.pretrain import Training, pretrain
from actors.generator.updates import UPDATE_TOKENS, Updates, cut
from cluster.clock import Clock
from cluster.errors import ModelError

COLOURS, LAMPS = ("red", "green", "blue"), ("Sun", "Moon", "Star")
TEXTS = [f"colour={COLOURS[n % 3]} age={n % 7}\n{LAMPS[n % 3]} lamp -> {n % 2}" for n in range(60)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def small(batch: int = 8) -> Backbone:
    return embedded.build(TEXTS, hidden=32, layers=1, tokens=24, batch=batch, seed=0)


def trained(backbone: Backbone, clock: Clock, lora: bool = False, **options: Any) -> Training:
    return pretrain(backbone, TEXTS[:50], TEXTS[50:], clock, lora=lora, seed=0, progress=False, **options)


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


@given(
    st.lists(st.integers(1, 900), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_an_epoch_reads_every_row_once_within_the_bounds(
    lengths: list[int], batch: int, batches: int, done: int
) -> None:
    updates = Updates(np.array(lengths), batch, batches, seed=5)
    epoch = updates.epoch(1)
    assert sorted(row for rows in epoch for row in rows) == list(range(len(lengths)))
    for rows in epoch:
        assert len(rows) <= batch * batches
        assert len(rows) == 1 or len(rows) * max(lengths[r] for r in rows) <= batches * UPDATE_TOKENS
        parts = cut(rows, updates.lengths_N, batch)
        assert sorted(r for part in parts for r in part) == sorted(rows)
        assert all(len(p) <= batch and (len(p) == 1 or len(p) * lengths[p[-1]] <= UPDATE_TOKENS) for p in parts)
    done = min(done, len(epoch))
    ahead = updates.after(1, done)
    followed = [next(ahead) for _ in range(len(epoch) - done + 1)]
    assert [rows for _, _, rows in followed] == [*epoch[done:], updates.epoch(2)[0]]
    assert followed[-1][:2] == (2, 1)


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in backbone.model.state_dict().items()}


def test_an_update_is_the_same_in_one_pass_or_in_two() -> None:
    whole, halves = small(batch=8), small(batch=4)
    one, two = trained(whole, Clock(600, steps=30)), trained(halves, Clock(600, steps=30), accumulate=2)
    assert one.tokens == two.tokens
    assert one.best_loss == pytest.approx(two.best_loss, rel=1e-3)
    for name, value in weights(halves).items():
        torch.testing.assert_close(value, weights(whole)[name], atol=2e-3, rtol=0, msg=name)


class Narrow(torch.nn.Module):
    """A model on a device that holds `most` texts at a time."""

    def __init__(self, inner: Any, most: int) -> None:
        super().__init__()
        self.inner, self.most, self.config = inner, most, inner.config

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, **others: Any) -> Any:
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return self.inner(input_ids=input_ids, **others)


def test_out_of_memory_cuts_the_passes_and_leaves_the_update_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    plain, inner = small(), small()
    narrow = Backbone(Narrow(inner.model, most=3), inner.tokenizer, 24, batch=8)
    with caplog.at_level(logging.WARNING):
        one, two = trained(plain, Clock(600, steps=30)), trained(narrow, Clock(600, steps=30))
    assert narrow.batch == 2
    assert "going on with generator.batch = 2" in caplog.text
    assert one.tokens == two.tokens
    assert one.best_loss == pytest.approx(two.best_loss, rel=1e-3)
    for name, value in weights(plain).items():
        torch.testing.assert_close(value, weights(inner)[name], atol=2e-3, rtol=0, msg=name)


def test_one_text_too_many_to_train_on_is_an_error() -> None:
    inner = small()
    with pytest.raises(ModelError, match=r"lower generator\.tokens"):
        trained(Backbone(Narrow(inner.model, most=0), inner.tokenizer, 24, batch=8), Clock(600, steps=3))


def dropping() -> Backbone:
    """A GPT-2, whose dropout draws random numbers at every step."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(small().tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=64)
    return Backbone(AutoModelForCausalLM.from_config(config), small().tokenizer, tokens=24, batch=8)


@pytest.mark.filterwarnings(PEFT)
@pytest.mark.parametrize(("make", "lora"), [(small, False), (dropping, True)], ids=["whole", "lora with dropout"])
def test_a_training_goes_on_from_its_checkpoint_to_the_same_bits(make: Any, lora: bool, tmp_path: Path) -> None:
    whole = make()
    expected = trained(whole, Clock(600, steps=70), lora)
    for steps in (23, 55, 70):
        resumed = make()
        found = trained(resumed, Clock(600, steps=steps), lora, checkpoint=Checkpoint(tmp_path / "lm"))
        assert found.steps == steps
    assert (found.best_step, found.best_loss, found.tokens) == (
        expected.best_step,
        expected.best_loss,
        expected.tokens,
    )
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


CHILD = """
import sys
from pathlib import Path
from tests.test_generator_pretrain import Checkpoint, Clock, small, torch, trained
torch.set_num_threads(1)
trained(small(), Clock(600, steps=100_000), checkpoint=Checkpoint(Path(sys.argv[1]), every_s=0.0))
"""


@pytest.mark.kills
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)])
    try:
        deadline = time.monotonic() + 120
        while not path.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
    finally:
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    with safe_open(path, framework="pt") as file:
        assert 0 < json.loads(file.metadata()["facts"])["step"] < 200
    killed, whole = small(), small()
    found = trained(killed, Clock(600, steps=200), checkpoint=Checkpoint(path, every_s=600))
    expected = trained(whole, Clock(600, steps=200))
    assert (found.steps, found.best_step, found.best_loss) == (200, expected.best_step, expected.best_loss)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(killed)[name]), name


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lm"
    trained(small(), Clock(600, steps=5), checkpoint=Checkpoint(path))
    other = pretrain(
        small(),
        TEXTS[:40],
        TEXTS[50:],
        Clock(600, steps=3),
        lora=False,
        seed=0,
        progress=False,
        checkpoint=Checkpoint(path, every_s=600),
    )
    assert other.steps == 3
    assert "is of another training" in caplog.text
    path.write_bytes(path.read_bytes()[:100])
    assert trained(small(), Clock(600, steps=2), checkpoint=Checkpoint(path)).steps == 2
    assert "cannot be read" in caplog.text


def test_a_checkpoint_that_cannot_be_written_costs_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert trained(small(), Clock(600, steps=3), checkpoint=Checkpoint(tmp_path / "file" / "lm")).steps == 3
    assert "cannot be written" in caplog.text


def test_time_spent_before_a_kill_counts(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "lm")
    before = trained(small(), Clock(0.5), checkpoint=checkpoint)
    assert before.ended_by == "time"
    again = trained(small(), Clock(0.5), checkpoint=checkpoint)
    assert (again.steps, again.best_loss, again.ended_by) == (before.steps, before.best_loss, "time")
    assert again.seconds >= 0.5


def test_a_log_has_a_line_with_loss_and_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(small(), TEXTS[:50], TEXTS[50:], Clock(600, steps=3), lora=False, seed=0, progress=True)
    shown = capsys.readouterr().err
    assert "language model: 3 steps" in shown
    assert "tokens/s" in shown.splitlines()[-1]
    assert "\r" not in shown


def test_nothing_to_read_is_an_error() -> None:
    with pytest.raises(ModelError, match="0 histories to train the language model on"):
        pretrain(small(), [], TEXTS, Clock(1), lora=False, seed=0, progress=False)
