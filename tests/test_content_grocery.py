"""Issue 6's Show on real products: a held-out photo finds its product by text, and like products are neighbours."""

import os
from pathlib import Path

import numpy as np
import pytest

from actors.content.contents import Part
from benchmarks.pictures import HELD_OUT, Product, alike, by_product, compared, histogram, nearest, read, trained
from cluster.clock import Clock
from tests.content_models import png

DATA = Path(os.environ.get("MEDLEY_DATA", "nowhere")) / "grocery"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="MEDLEY_DATA is not set, or has no folder grocery")
def test_a_held_out_photo_finds_its_product_by_text() -> None:
    """120 steps, a twentieth of what five minutes of one core reach; ten times chance is 12 %, by 324 photos."""
    products = read(DATA)
    assert (len(products), {len(p.photos) for p in products}) == (81, {16})
    encoder = trained(products, Clock(600, 120), seed=0)
    text_PE = encoder.embed([Part("text", (p.text.encode(),)) for p in products]).vectors_PE
    photos = [Part("image", (photo,)) for p in products for photo in p.photos[-HELD_OUT:]]
    found_H = (encoder.embed(photos).vectors_PE @ text_PE.T).argmax(1)
    assert np.mean(found_H == np.repeat(np.arange(81), HELD_OUT)) >= 10 / 81
    both_PE = text_PE + encoder.embed([Part("image", (p.picture,)) for p in products]).vectors_PE
    kind_P, chance_P = alike(both_PE / np.linalg.norm(both_PE, axis=1, keepdims=True), products)
    assert kind_P.mean() > 3 * chance_P.mean()


def test_the_comparison_counts_as_by_hand() -> None:
    """Four products of two kinds at known angles, and photos whose colours are those of their products."""
    angle = np.radians([0, 10, 90, 100])
    units_PE = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    products = [
        Product(str(n), kind, "", b"", (png(colour),) * (HELD_OUT + 1))
        for n, (kind, colour) in enumerate([("a", "red"), ("a", "blue"), ("b", "lime"), ("c", "white")])
    ]
    kind_P, chance_P = alike(units_PE, products)
    np.testing.assert_allclose(kind_P, [1 / 3, 1 / 3])
    np.testing.assert_allclose(chance_P, [1 / 3, 1 / 3])
    assert nearest(products).tolist() == np.repeat(np.arange(4), HELD_OUT).tolist()
    assert by_product(np.array([True, False, False, False] * 2)).tolist() == [0.25, 0.25]
    assert histogram(png("red")).argmax() == 7 * 64
    measure = compared("x", np.array([0.5, 0.5]), np.array([0.25, 0.25]), "chance")
    assert (measure.ours, measure.ratio, measure.interval) == (0.5, 2.0, (2.0, 2.0))
