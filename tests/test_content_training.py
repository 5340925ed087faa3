"""The embedded CLIP learns which text belongs to which picture, also where an item has only one of them."""

import numpy as np
import pytest
import torch

from actors.content.augment import plain, thinned, varied
from actors.content.contents import Content, Part
from actors.content.contrastive import Training, train
from actors.content.embedded import build
from actors.content.encoder import Encoder
from actors.content.examples import Examples
from cluster.clock import Clock
from cluster.config import ContentSettings
from cluster.errors import ModelError
from tests.content_models import png

SETTINGS = ContentSettings(hidden=32, layers=1, pixels=16, dimension=16, tokens=16)
COLOURS = ("red", "lime", "blue", "yellow", "cyan", "magenta", "black", "white", "orange", "purple")
THINGS = ("lamp", "rug", "mug", "chair", "clock", "bowl", "vase", "desk")


def catalogue() -> tuple[list[Content], list[str]]:
    """80 items: ten colours of eight things, whose picture shows the colour alone."""
    found = [(Content(f"a {c} {t}", png(c, (20, 20))), c) for c in COLOURS for t in THINGS]
    return [content for content, _ in found], [colour for _, colour in found]


def trained(contents: list[Content], products: list[str], steps: int, seed: int = 0) -> tuple[Encoder, Training]:
    encoder = build([content.text for content in contents], SETTINGS, seed)
    examples = Examples(zip(products, contents, strict=True), 20)
    return encoder, train(encoder, examples, Clock(600, steps), seed=seed, progress=False)


def parts(texts: list[str]) -> list[Part]:
    return [Part("text", (text.encode(),)) for text in texts]


def test_a_text_never_seen_finds_its_picture() -> None:
    """Ten colours told of things that no item is: chance is 1/10, and 6 right of 10 has p = 1.5e-4 under it."""
    encoder, training = trained(*catalogue(), steps=150)
    text = encoder.embed(parts([f"a {colour} kettle" for colour in COLOURS])).vectors_PE
    image = encoder.embed([Part("image", (png(colour, (16, 16)),)) for colour in COLOURS]).vectors_PE
    assert np.mean((text @ image.T).argmax(1) == np.arange(10)) >= 0.6
    assert training.best_loss < 0.5 * training.start_loss
    assert training.matched >= 0.8
    assert (training.steps, training.ended_by) == (150, "steps")


def test_equal_steps_give_equal_bits_and_another_seed_others() -> None:
    contents, products = catalogue()
    first, again, other = (trained(contents, products, 20, seed) for seed in (1, 1, 2))
    assert first[0].fingerprint == again[0].fingerprint != other[0].fingerprint
    assert first[1].best_loss == again[1].best_loss


def test_texts_alone_and_pictures_alone_are_trained_on() -> None:
    contents, products = catalogue()
    texts = [Content(content.text + " of the house") for content in contents]
    encoder, training = trained(texts, [f"p{i}" for i in range(len(texts))], steps=70)
    assert training.best_loss < 0.7 * training.start_loss
    near, anchor, far = encoder.embed(
        parts(["red lamp of the house", "a red lamp", "a blue bowl of the house"])
    ).vectors_PE
    assert anchor @ near > anchor @ far
    pictures = [Content(image=content.image) for content in contents]
    encoder, training = trained(pictures, products, steps=30)
    assert training.best_loss < training.start_loss
    assert encoder.embed([Part("image", (png("red"),))]).problems == {}


def test_what_cannot_be_read_is_left_out_of_training() -> None:
    contents = [Content("a"), Content("b", b"junk"), Content("", b"junk"), Content("c", png("red"), video=(b"x",))]
    examples = Examples(zip("1234", contents, strict=True), 20)
    assert examples.text_N.tolist() == [True, True, True]
    assert examples.picture_N.tolist() == [False, False, True]
    assert len(np.unique(examples.product_N)) == 3


@pytest.mark.parametrize("contents", [[], [Content("one lamp")], [Content(), Content(image=b"junk")]])
def test_fewer_than_two_items_cannot_be_trained_on(contents: list[Content]) -> None:
    encoder = build(["x"], SETTINGS, 0)
    examples = Examples(((str(i), content) for i, content in enumerate(contents)), 20)
    with pytest.raises(ModelError, match=r"and two are needed.*content\.model"):
        train(encoder, examples, Clock(1), seed=0, progress=False)


def test_a_varied_picture_stays_in_range_and_near_in_colour() -> None:
    pictures = torch.zeros(64, 3, 20, 20, dtype=torch.uint8)
    pictures[:, 0] = 200
    found = varied(pictures, 16, torch.Generator().manual_seed(0))
    assert found.shape == (64, 3, 16, 16)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert bool((found[:, 0] > found[:, 1] + 0.2).all()), "red stays red"
    assert float(found.std(0).max()) > 0.02, "but is not always the same"
    torch.testing.assert_close(plain(pictures, 16)[0, :, 0, 0], torch.tensor([200 / 255, 0, 0]), atol=1e-4, rtol=0)


def test_a_thinned_text_keeps_its_words_in_order_and_one_at_least() -> None:
    words = [f"w{i}" for i in range(1_000)]
    (found,) = thinned([" ".join(words)], 0.3, np.random.default_rng(0))
    kept = found.split()
    assert kept == [word for word in words if word in set(kept)]
    assert abs(len(kept) - 700) < 60, "four standard deviations of a binomial"
    assert thinned(["one"], 1.0, np.random.default_rng(0)) == ["one"]
