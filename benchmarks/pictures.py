"""The embedded CLIP on products with text and photos: does a photo it never saw find its product by the text alone?

The encoder trains for 300 seconds on one CPU thread, on each product's own picture and its first photos, with title and
description. Held out are the last 4 photos of each product, in the order in which they were taken.

- photo_finds_product (chance): share of held-out photos whose nearest text among all products' is the right one.
- photo_finds_product (colour_histogram): the same share, against the nearest product by the mean colour histogram
  (8 x 8 x 8 colours, histogram intersection) of the same training photos, which knows no text.
- neighbours_of_a_kind (chance): products embedded by text and picture as `tune.embed` does; share of the 3 nearest
  others that are of the product's own kind, among products whose kind has others.

`interval` is 95 % over products, resampled 1,000 times. `--data` is a folder with `products.parquet` (class_id,
class_name, coarse_name, title, description, iconic_jpeg) and a Parquet file of photos (image_jpeg, class_id), by
default $MEDLEY_DATA/grocery.

    python -m benchmarks.pictures [--quick] [--data FOLDER] [--seconds 300] [--seed 0] [--plot FILE.jpg]

--quick trains for 30 seconds. --plot draws ten products with their nearest neighbours, by photos alone.
"""

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from actors.content.contents import Content, Part, text_of
from actors.content.contrastive import train
from actors.content.embedded import build
from actors.content.encoder import Encoder
from actors.content.examples import Examples
from actors.content.views import picture
from benchmarks._pairs import CONSOLE, Measure, finish
from cluster.clock import Clock
from cluster.config import ContentSettings

HELD_OUT, NEAREST, RESAMPLED, LEVELS = 4, 3, 1_000, 8
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Product:
    name: str
    kind: str
    text: str
    picture: bytes
    photos: tuple[bytes, ...]

    @property
    def seen(self) -> tuple[bytes, ...]:
        return self.photos[:-HELD_OUT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train for 30 seconds")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDLEY_DATA", ".")) / "grocery")
    parser.add_argument("--seconds", type=float, default=300.0, help="of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="write ten products and their neighbours as a picture")
    arguments = parser.parse_args()
    products = read(arguments.data)
    encoder = trained(products, Clock(30.0 if arguments.quick else arguments.seconds), arguments.seed)
    text_PE = encoder.embed([Part("text", (p.text.encode(),)) for p in products]).vectors_PE
    photo_HE = encoder.embed([Part("image", (photo,)) for p in products for photo in p.photos[-HELD_OUT:]]).vectors_PE
    of_H = np.repeat(np.arange(len(products)), HELD_OUT)
    ours_P, theirs_P = (by_product(near_H == of_H) for near_H in ((photo_HE @ text_PE.T).argmax(1), nearest(products)))
    both_PE = text_PE + encoder.embed([Part("image", (p.picture,)) for p in products]).vectors_PE
    kind_P, kind_chance_P = alike(both_PE / np.linalg.norm(both_PE, axis=1, keepdims=True), products)
    if arguments.plot:
        photos_PE = np.stack(
            [encoder.embed([Part("image", (f,)) for f in p.seen]).vectors_PE.mean(0) for p in products]
        )
        draw(arguments.plot, products, text_PE + photos_PE / np.linalg.norm(photos_PE, axis=1, keepdims=True))
    CONSOLE.print(f"held-out photos that find their product: {ours_P.mean():.1%}; by colours: {theirs_P.mean():.1%}")
    finish(
        "pictures",
        [
            compared("photo_finds_product", ours_P, np.full(len(products), 1 / len(products)), "chance"),
            compared("photo_finds_product", ours_P, theirs_P, "colour_histogram"),
            compared("neighbours_of_a_kind", kind_P, kind_chance_P, "chance"),
        ],
    )


def read(folder: Path) -> list[Product]:
    photos = [path for path in folder.glob("*.parquet") if path.name.startswith("photos")]
    if not (folder / "products.parquet").exists() or not photos:
        raise SystemExit(f"{folder}: no products.parquet and photos*.parquet here; give --data, or set MEDLEY_DATA")
    taken: dict[int, list[bytes]] = {}
    for row in pq.read_table(photos[0], columns=["class_id", "image_jpeg"]).to_pylist():
        taken.setdefault(row["class_id"], []).append(row["image_jpeg"])
    return [
        Product(
            row["class_name"],
            row["coarse_name"],
            text_of(row["title"], row["description"]),
            row["iconic_jpeg"],
            tuple(taken[row["class_id"]]),
        )
        for row in pq.read_table(folder / "products.parquet").to_pylist()
    ]


def trained(products: list[Product], clock: Clock, seed: int) -> Encoder:
    torch.set_num_threads(1)
    settings = ContentSettings()
    shown = ((p.name, Content(p.text, image)) for p in products for image in (p.picture, *p.seen))
    examples = Examples(shown, settings.pixels)
    encoder = build([p.text for p in products], settings, seed)
    training = train(encoder, examples, clock, seed=seed, progress=True)
    CONSOLE.print(f"{time.process_time():.0f} CPU seconds since the start; {training}")
    return encoder


def nearest(products: list[Product]) -> NDArray[np.int64]:
    """The product of each held-out photo by colour histograms."""
    means_PC = np.stack([np.mean([histogram(photo) for photo in p.seen], axis=0) for p in products])
    held_HC = np.stack([histogram(photo) for p in products for photo in p.photos[-HELD_OUT:]])
    return np.array([np.minimum(row, means_PC).sum(1).argmax() for row in held_HC])


def histogram(photo: bytes) -> Floats:
    levels = np.asarray(picture(photo)).reshape(-1, 3).astype(int) * LEVELS // 256
    counts = np.bincount(levels @ [LEVELS**2, LEVELS, 1], minlength=LEVELS**3)
    return counts / counts.sum()


def by_product(right_H: NDArray[np.bool_]) -> Floats:
    return right_H.reshape(-1, HELD_OUT).mean(1)


def alike(units_PE: NDArray[np.float32], products: list[Product]) -> tuple[Floats, Floats]:
    """Share of the nearest that are of each product's kind, and by chance, where its kind has others."""
    kinds = np.array([p.kind for p in products])
    same_PP = kinds[:, None] == kinds[None]
    others_P = same_PP.sum(1) - 1
    near_PN = neighbours(units_PE)[:, :NEAREST]
    found_P = np.take_along_axis(same_PP, near_PN, 1).mean(1)
    return found_P[others_P > 0], others_P[others_P > 0] / (len(products) - 1)


def neighbours(units_PE: NDArray[np.float32]) -> NDArray[np.int64]:
    """The other products, nearest first."""
    cosine_PP = units_PE @ units_PE.T
    np.fill_diagonal(cosine_PP, -np.inf)
    return np.argsort(-cosine_PP, axis=1)[:, :-1]


def compared(name: str, ours_P: Floats, peer_P: Floats, peer_name: str) -> Measure:
    rows = np.random.default_rng(0).integers(len(ours_P), size=(RESAMPLED, len(ours_P)))
    ratios = ours_P[rows].mean(1) / peer_P[rows].mean(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    ours, peer = float(ours_P.mean()), float(peer_P.mean())
    return Measure(name, ours, peer, peer_name, ours / peer, (float(low), float(high)), "share")


def draw(path: Path, products: list[Product], vectors_PE: NDArray[np.float32]) -> None:
    """Ten products, spread over the list: a photo of each, then of its five nearest."""
    near_PN = neighbours(vectors_PE / np.linalg.norm(vectors_PE, axis=1, keepdims=True))
    side, words, columns = 88, 14, 6
    rows = np.linspace(0, len(products) - 1, 10).round().astype(int)
    sheet = Image.new("RGB", (columns * (side + 8) + 16, len(rows) * (side + words + 8)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, p in enumerate([row, *near_PN[row, : columns - 1]]):
            at = (x * (side + 8) + (16 if x else 0), y * (side + words + 8))
            sheet.paste(picture(products[p].photos[0]).resize((side, side)), at)
            pen.text((at[0], at[1] + side), products[p].name[:16], fill="black")
    sheet.save(path, quality=70)
    CONSOLE.print(f"{path}: in each row a product, then the five nearest")


if __name__ == "__main__":
    main()
