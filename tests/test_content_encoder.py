"""Each kind of encoder, loaded from a folder, gives what transformers gives; wrong folders are refused by name."""

import json
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from transformers import (
    AutoImageProcessor,
    BartConfig,
    BertModel,
    ClapModel,
    CLIPModel,
    GPT2Config,
    LlavaConfig,
    RobertaModel,
    SiglipModel,
    T5Config,
    ViTModel,
    Wav2Vec2Model,
    WhisperConfig,
)

from actors.content.contents import Part
from actors.content.encoder import Encoder
from actors.content.readers import Reader, View
from actors.content.views import picture, wave
from cluster.config import ContentSettings
from cluster.errors import ModelError
from tests.content_models import KINDS, folder, noise, png, tokenizer, tone

SETTINGS = ContentSettings()
RED, LONG = Part("text", (b"the red lamp",)), Part("text", (b"blue " * 50,))
PICTURE, SOUND = Part("image", (noise(1),)), Part("audio", (tone(300, 0.5),))
IDS = [3, 10, 4, 7, 1]
"""<start> the red lamp <end>, by the tokenizer of content_models."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    at = tmp_path_factory.mktemp("encoders")
    return {kind: folder(kind, at) for kind in KINDS}


def scaled(vector: torch.Tensor) -> np.ndarray:
    return (vector / vector.norm()).detach().numpy().ravel()


def of(folders: dict[str, Path], kind: str, *parts: Part) -> np.ndarray:
    encoder = Encoder.load(str(folders[kind]), SETTINGS, "cpu")
    encoded = encoder.embed(parts)
    assert encoded.problems == {}
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors_PE, axis=1), 1, atol=1e-6)
    assert encoded.vectors_PE.shape == (len(parts), encoder.dimension)
    return encoded.vectors_PE


def test_clip_gives_its_projections(folders: dict[str, Path]) -> None:
    model = CLIPModel.from_pretrained(folders["clip"])
    pixels = AutoImageProcessor.from_pretrained(folders["clip"], backend="pil")(picture(noise(1)), return_tensors="pt")
    text = model.get_text_features(input_ids=torch.tensor([IDS])).pooler_output
    image = model.get_image_features(**pixels).pooler_output
    found = of(folders, "clip", RED, PICTURE)
    np.testing.assert_allclose(found, [scaled(text), scaled(image)], atol=1e-5)


def test_siglip_reads_a_text_filled_to_its_full_length(folders: dict[str, Path]) -> None:
    model = SiglipModel.from_pretrained(folders["siglip"])
    filled = torch.tensor([IDS + [0] * (20 - len(IDS))])
    expected = scaled(model.get_text_features(input_ids=filled).pooler_output)
    np.testing.assert_allclose(of(folders, "siglip", RED)[0], expected, atol=1e-5)


@pytest.mark.parametrize(("kind", "model"), [("bert", BertModel), ("roberta", RobertaModel)])
def test_a_text_encoder_is_averaged_over_its_tokens_and_long_texts_are_cut(
    folders: dict[str, Path], kind: str, model: type
) -> None:
    """BERT has 20 positions; RoBERTa's start behind its padding token, so 19 are left."""
    states = model.from_pretrained(folders[kind])(input_ids=torch.tensor([IDS])).last_hidden_state[0]
    found = of(folders, kind, RED, LONG)
    np.testing.assert_allclose(found[0], scaled(states.mean(0)), atol=1e-5)
    most = 20 if kind == "bert" else 19
    cut = torch.tensor([[3] + [6] * (most - 2) + [1]])
    states = model.from_pretrained(folders[kind])(input_ids=cut).last_hidden_state[0]
    np.testing.assert_allclose(found[1], scaled(states.mean(0)), atol=1e-5)


def test_a_classifiers_vit_has_no_pooler_of_its_own_and_is_averaged(folders: dict[str, Path]) -> None:
    model = ViTModel.from_pretrained(folders["vit"], add_pooling_layer=False)
    pixels = AutoImageProcessor.from_pretrained(folders["vit"], backend="pil")(picture(noise(1)), return_tensors="pt")
    expected = scaled(model(**pixels).last_hidden_state[0].mean(0))
    np.testing.assert_allclose(of(folders, "vit", PICTURE)[0], expected, atol=1e-5)


def test_wav2vec2_is_averaged_over_frames_whatever_else_is_in_the_batch(folders: dict[str, Path]) -> None:
    model = Wav2Vec2Model.from_pretrained(folders["wav2vec2"])
    samples = wave(tone(300, 0.5), 8_000)
    standard = torch.tensor((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))[None]
    expected = scaled(model(standard).last_hidden_state[0].mean(0))
    found = of(folders, "wav2vec2", SOUND, Part("audio", (tone(500, 1.5),)))
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_clap_reads_sound_and_text_into_one_space_and_draws_nothing_by_lot(folders: dict[str, Path]) -> None:
    """The sound is longer than the two seconds at once that CLAP would take a random stretch of."""
    long = Part("audio", (np_tone_rising(),))
    first, again = of(folders, "clap", long, RED), of(folders, "clap", long, RED)
    np.testing.assert_array_equal(first, again)
    model = ClapModel.from_pretrained(folders["clap"])
    text = model.get_text_features(input_ids=torch.tensor([IDS])).pooler_output
    np.testing.assert_allclose(first[1], scaled(text), atol=1e-5)


def np_tone_rising() -> bytes:
    head = tone(100, 5.0)
    start = head.index(b"data") + 8
    time = np.arange(40_000) / 8_000
    return head[:start] + (np.sin(2 * np.pi * 100 * time**2) * 30_000).astype("<i2").tobytes()


@pytest.mark.parametrize("kind", ["clip", "resnet"])
def test_a_video_is_the_mean_of_its_frames(folders: dict[str, Path], kind: str) -> None:
    frames = tuple(noise(seed) for seed in range(3))
    video, *single = of(folders, kind, Part("video", frames), *(Part("image", (frame,)) for frame in frames))
    mean = np.mean(single, axis=0)
    np.testing.assert_allclose(video, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_does_not_depend_on_the_batch_and_survives_saving(
    folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    encoder = Encoder.load(str(folders[kind]), SETTINGS, "cpu")
    all_parts = [RED, LONG, PICTURE, Part("image", (png("red"),)), SOUND, Part("audio", (tone(99, 0.3),))]
    parts = [part for part in all_parts if part.modality in encoder.modalities]
    together = encoder.embed(parts).vectors_PE
    alone = np.concatenate([encoder.embed([part]).vectors_PE for part in parts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    encoder.save(tmp_path / "saved")
    saved = Encoder.load(str(tmp_path / "saved"), SETTINGS, "cpu")
    assert saved.fingerprint == encoder.fingerprint == Encoder.load(str(folders[kind]), SETTINGS, "cpu").fingerprint
    np.testing.assert_allclose(saved.embed(parts).vectors_PE, together, atol=1e-5)


def test_the_fingerprint_tells_weights_and_limits_apart(folders: dict[str, Path]) -> None:
    encoder = Encoder.load(str(folders["bert"]), SETTINGS, "cpu")
    shorter = Encoder.load(str(folders["bert"]), SETTINGS.model_copy(update={"tokens": 4}), "cpu")
    before = encoder.fingerprint
    with torch.no_grad():
        next(encoder.model.parameters())[0, 0] += 1e-3
    encoder.refresh()
    assert len({before, encoder.fingerprint, shorter.fingerprint}) == 3


def test_parts_that_cannot_be_read_are_problems_and_the_others_are_encoded(folders: dict[str, Path]) -> None:
    encoder = Encoder.load(str(folders["clip"]), SETTINGS, "cpu")
    encoded = encoder.embed([Part("image", (b"junk",)), RED, Part("video", (noise(1), b"junk"))])
    assert sorted(encoded.problems) == [0, 2]
    assert encoded.problems[0].startswith("image: no whole image")
    np.testing.assert_array_equal(encoded.vectors_PE[[0, 2]], 0)
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors_PE[1]), 1, atol=1e-6)


class TwoAtOnce:
    """Reads the first two pictures only while another thread reads one too."""

    def __init__(self, reader: Reader) -> None:
        self.processor, self._reader, self._both = reader.processor, reader, Barrier(2)
        self._first = iter(range(2))  # next() is one step for threads

    def views(self, part: Part) -> list[View]:
        if next(self._first, None) is not None:
            self._both.wait(timeout=30)
        return self._reader.views(part)


@pytest.mark.parametrize("more", [(), (Part("image", (noise(3),)),)], ids=["even", "odd"])
def test_pictures_are_read_at_a_time_and_stay_in_their_order(folders: dict[str, Path], more: tuple[Part, ...]) -> None:
    encoder = Encoder.load(str(folders["clip"]), SETTINGS, "cpu")
    junk = Part("image", (b"junk",))
    parts = [Part("image", (noise(0),)), RED, Part("image", (noise(1),)), junk, LONG, Part("video", (noise(2),)), *more]
    alone = np.concatenate([encoder.embed([part]).vectors_PE for part in parts])
    encoder.towers["image"] = TwoAtOnce(encoder.towers["image"])
    together = encoder.embed(parts)
    np.testing.assert_allclose(together.vectors_PE, alone, atol=1e-6)
    assert list(together.problems) == [3]


def test_a_model_that_gives_nothing_finite_is_a_problem_of_the_part(folders: dict[str, Path]) -> None:
    encoder = Encoder.load(str(folders["bert"]), SETTINGS, "cpu")
    with torch.no_grad():
        encoder.model.embeddings.word_embeddings.weight[4] = float("nan")  # red
    encoded = encoder.embed([RED, Part("text", (b"blue",))])
    assert encoded.problems == {0: "text: the model's vector is zero or not finite"}
    np.testing.assert_array_equal(encoded.vectors_PE[0], 0)


@pytest.mark.parametrize("config", [GPT2Config, T5Config, BartConfig, WhisperConfig, LlavaConfig])
def test_what_is_no_encoder_is_refused_by_name(tmp_path: Path, config: type) -> None:
    config().save_pretrained(tmp_path)
    name = config.model_type
    with pytest.raises(ModelError, match=rf"is a '{name}' model, which is no encoder .* BERT \(text\)"):
        Encoder.load(str(tmp_path), SETTINGS, "cpu")


def test_a_folder_that_is_not_whole_is_refused_by_what_it_lacks(folders: dict[str, Path], tmp_path: Path) -> None:
    for lacking, file in (
        ("neither a model folder", "config.json"),
        ("no weights", "model.safetensors"),
        ("no usable tokenizer", "tokenizer.json"),
        ("no usable image processor", "preprocessor_config.json"),
    ):
        copy = tmp_path / file
        copy.mkdir()
        for path in folders["clip"].iterdir():
            if path.name != file and not (file == "tokenizer.json" and "tokenizer" in path.name):
                (copy / path.name).write_bytes(path.read_bytes())
        with pytest.raises(ModelError, match=lacking):
            Encoder.load(str(copy), SETTINGS, "cpu")


def test_parts_of_different_models_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "clip"
    copy.mkdir()
    for path in folders["clip"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    about = json.loads((copy / "preprocessor_config.json").read_text())
    about["crop_size"] = {"height": 48, "width": 48}
    (copy / "preprocessor_config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="cannot read what its processor of image makes"):
        Encoder.load(str(copy), SETTINGS, "cpu")
    larger = tokenizer()
    larger.add_tokens([f"word{i}" for i in range(9)])
    larger.save_pretrained(copy)
    with pytest.raises(ModelError, match="21 tokens but the model embeds 16"):
        Encoder.load(str(copy), SETTINGS, "cpu")
