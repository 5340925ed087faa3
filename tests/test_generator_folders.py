"""Model folders as `save_pretrained` leaves them, through the settings: tuned by LoRA or left as they are; and what a
generator does with contexts that it was not made for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config

from actors.generator import embedded
from actors.generator.backbone import Backbone
from actors.generator.tasks import Traffic
from actors.generator.train import train, tuned
from cluster.config import Settings
from cluster.records import encode
from tests.compose_cases import changed, quick, two_kinds
from tests.test_generator_backbone import FAMILIES, folder
from tests.test_generator_pretrain import PEFT, TEXTS
from tune.groundwork import Groundwork


@pytest.fixture(scope="module")
def default() -> Backbone:
    return embedded.build(TEXTS, hidden=32, layers=1, tokens=24, batch=8, seed=0)


def settings(model: Path, lora: bool) -> Settings:
    own = {"model": str(model), "lora": lora, "tokens": 24, "batch": 8, "backbone_steps": 8}
    return Settings.model_validate({"budgets": {"backbone_s": 600}, "generator": own})


@pytest.mark.filterwarnings(PEFT)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_is_tuned_by_lora(family: str, default: Backbone, tmp_path: Path) -> None:
    path = folder(tmp_path / "given", default, FAMILIES[family])
    backbone, training = tuned(TEXTS[:50], TEXTS[50:], settings(path, lora=True), progress=False)
    assert training is not None
    assert training.best_loss < training.start_loss
    given, now = load_file(path / "model.safetensors"), backbone.model.state_dict()
    moved = {name for name, value in given.items() if not torch.equal(value, now[name].cpu())}
    assert len(moved) >= 4
    assert not any("embed" in name or "wte" in name or "norm" in name or "ln_" in name for name in moved)
    backbone.save(tmp_path / "tuned")
    again = Backbone.load(str(tmp_path / "tuned"), tokens=24, batch=8, device="cpu")
    np.testing.assert_allclose(again.embed(TEXTS), backbone.embed(TEXTS), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_folder_is_read_as_it_is(family: str, default: Backbone, tmp_path: Path) -> None:
    path = folder(tmp_path, default, FAMILIES[family])
    backbone, training = tuned(TEXTS[:50], TEXTS[50:], settings(path, lora=False), progress=False)
    assert training is None
    given, now = load_file(path / "model.safetensors"), backbone.model.state_dict()
    assert all(torch.equal(value, now[name].cpu()) for name, value in given.items())


def test_a_context_longer_than_the_budget_is_cut_at_its_end(default: Backbone) -> None:
    long = "colour=red age=3 " * 40
    whole = default.tokenizer(long)["input_ids"]
    assert len(whole) > 24
    assert default.encode([long]) == [whole[:24]]
    assert default.cut([long, "colour=red age=3", long, ""]) == 0.5
    told = default.tokenizer.decode(whole[:24])
    assert default.tokenizer(told)["input_ids"] == whole[:24]
    np.testing.assert_allclose(default.embed([long]), default.embed([told]), atol=1e-6)


def test_a_model_with_fewer_positions_than_the_budget_cuts_earlier(default: Backbone) -> None:
    torch.manual_seed(0)
    short = GPT2Config(vocab_size=len(default.tokenizer), n_embd=32, n_layer=1, n_head=2, n_positions=9)
    backbone = Backbone(AutoModelForCausalLM.from_config(short), default.tokenizer, tokens=24, batch=4)
    assert [len(row) for row in backbone.encode(["colour=red age=3 " * 40], tokens=48)] == [9]
    assert np.isfinite(backbone.embed(["colour=red age=3 " * 40])).all()


@pytest.mark.parametrize("reader", ["language", "numeric"])
def test_categories_never_met_have_a_code_and_candidates(reader: str) -> None:
    dataset = two_kinds(users=80)
    own: dict[str, Any] = {"hidden": 16, "layers": 1, "tokens": 32, "prototypes": 3, "codes": 2, "rank": 2}
    own |= {"backbone_steps": 3, "head_steps": 70, "reader": reader}
    made = quick(Path("/nowhere"), generator=own)
    work = Groundwork.of(dataset, made)
    generator = train(dataset, work.feature_map, work.split.fit, work.split.stop, made, progress=False)

    def traffic(data: Any) -> Traffic:
        rows = work.split.select
        return Traffic.of(data, rows, generator.serialiser, work.feature_map, limit=64, most=99, seed=0)

    odd = [encode({"hour": "ξ", "planet": "Vênus\n" * 30, "ids": ["x"]})] * len(dataset.events)
    unseen = traffic(changed(dataset, context=odd))
    assert all("planet=Vênus" in text and "hour=ξ" in text for text in unseen.texts)
    assert np.isfinite(generator.codes(unseen)).all()
    made_for = generator.candidates(unseen, work.feature_map, made.generator, seed=0)
    assert made_for.dropped == {}
    assert len(made_for) >= 4, "badges, which are the user's, still tell two contexts apart"
