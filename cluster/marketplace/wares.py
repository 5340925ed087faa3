"""The synthetic items of the marketplace: what they are, how they read, look and sound.

Style and category are told by words, colours and pitch; `quality` and `charm` are hidden, and show only in what
people do. Everything is a function of the seed. Shapes: I items, H hidden dimensions.
"""

import math
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.config import DialSettings
from cluster.records import ITEMS, encode

START = datetime(2025, 1, 6, tzinfo=UTC)
"""A Monday; the marketplace opens."""

CATEGORIES = ("lamp", "rug", "chair", "mug", "poster", "planter", "blanket", "clock")
STYLES: dict[str, tuple[str, ...]] = {
    "minimal": ("plain", "white", "slim", "quiet", "matt"),
    "rustic": ("oak", "hand-carved", "weathered", "linen", "earthen"),
    "retro": ("seventies", "walnut", "rounded", "mustard", "chrome"),
    "playful": ("striped", "bright", "bouncy", "rainbow", "cartoon"),
    "elegant": ("velvet", "gilded", "marble", "fine", "silky"),
    "industrial": ("steel", "raw", "riveted", "concrete", "wired"),
}
BRANDS = ("Alder", "Brook", "Corvo", "Dunlin", "Ember", "Fjell", "Garnet", "Hollin", "Isla", "Juno")
ROOMS = ("kitchen", "bedroom", "hallway", "study", "garden room", "studio")
HIDDEN = 3
PIXELS = 24
SAMPLE_RATE_HZ = 8_000
_PALETTE = ((235, 235, 230), (139, 94, 60), (219, 158, 38), (236, 72, 153), (88, 28, 135), (100, 116, 139))


@dataclass(frozen=True)
class Wares:
    """I items. price in money units; launch_I, leave_I: days after START between which an item is on sale."""

    seed: int
    category_I: NDArray[np.int64]
    style_I: NDArray[np.int64]
    brand_I: NDArray[np.int64]
    provider_I: NDArray[np.int64]
    price_I: NDArray[np.float64]
    quality_I: NDArray[np.float64]
    charm_IH: NDArray[np.float64]
    launch_I: NDArray[np.float64]
    leave_I: NDArray[np.float64]

    @classmethod
    def make(cls, seed: int, items: int, providers: int, days: float, dials: DialSettings) -> "Wares":
        """Items of `providers` sellers, each with its main categories; some come or go within the `days`."""
        rng = np.random.default_rng([seed, 0x3A4E5])
        category_I = rng.integers(len(CATEGORIES), size=items)
        at_home_I = rng.random(items) < 0.7
        provider_I = np.where(at_home_I, category_I % providers, rng.integers(providers, size=items))
        late_I = rng.random(items) < dials.late
        typical = rng.normal(3.2, 0.5, len(CATEGORIES))
        leaves = np.random.default_rng([seed, 0x1EAF])
        leaves_I = leaves.random(items) < dials.leaving
        return cls(
            seed,
            category_I,
            rng.integers(len(STYLES), size=items),
            rng.integers(len(BRANDS), size=items),
            provider_I,
            np.asarray(np.exp(typical[category_I] + rng.normal(0, 0.6, items)).round(2), np.float64),
            rng.normal(0, 0.4, items),
            rng.normal(0, 1, (items, HIDDEN)) / math.sqrt(HIDDEN),
            np.where(late_I, rng.uniform(0.2, 0.9, items) * days, 0.0),
            np.where(leaves_I, leaves.uniform(0.2, 0.9, items) * days, np.inf),
        )

    def __len__(self) -> int:
        return len(self.category_I)

    def ids(self) -> list[str]:
        return [f"item-{i}" for i in range(len(self))]

    def words(self, item: int) -> tuple[str, str]:
        """Title and description."""
        rng = np.random.default_rng([self.seed, 0x7E47, item])
        style = list(STYLES)[self.style_I[item]]
        first, second, third = rng.permutation(STYLES[style])[:3]
        category, brand = CATEGORIES[self.category_I[item]], BRANDS[self.brand_I[item]]
        title = f"{brand} {first} {category}".replace("  ", " ")
        room = ROOMS[rng.integers(len(ROOMS))]
        return title.capitalize(), (f"A {style} {category} for the {room}, {second} and {third}. Made by {brand}.")

    def table(self) -> pa.Table:
        """ITEMS; picture and sound are made on demand by `image` and `sound`."""
        n = len(self)
        titles, descriptions = zip(*(self.words(i) for i in range(n)), strict=True)
        columns = {
            "item_id": self.ids(),
            "provider_id": [f"provider-{p}" for p in self.provider_I],
            "title": titles,
            "description": descriptions,
            "price": self.price_I,
            "category": [CATEGORIES[c] for c in self.category_I],
            "brand": [BRANDS[b] for b in self.brand_I],
            "attributes": [encode({"style": list(STYLES)[s]}) for s in self.style_I],
            "created_at": [START + timedelta(days=float(d)) for d in self.launch_I],
        }
        return pa.table([pa.array(columns.get(f.name, [None] * n), f.type) for f in ITEMS], schema=ITEMS)

    def image(self, item: int) -> bytes:
        """A PNG of 24 x 24: the style's colour, in bands whose number is the category's."""
        rng = np.random.default_rng([self.seed, 0x96, item])
        band = (np.arange(PIXELS) * (1 + self.category_I[item]) // PIXELS) % 2
        shade = 1.0 - 0.45 * band[:, None, None] + rng.normal(0, 0.04, (PIXELS, PIXELS, 3))
        pixels = np.clip(np.array(_PALETTE[self.style_I[item]]) * shade, 0, 255).astype(np.uint8)
        return _png(pixels)

    def sound(self, item: int) -> bytes:
        """A WAV of a quarter of a second: the category's pitch, with the style's number of overtones."""
        time = np.arange(SAMPLE_RATE_HZ // 4) / SAMPLE_RATE_HZ
        pitch = 220.0 * 2 ** (self.category_I[item] / len(CATEGORIES))
        waves = [np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 2 + int(self.style_I[item]))]
        samples = np.sum(waves, axis=0) * np.exp(-6 * time)
        return _wav((samples / np.abs(samples).max() * 30_000).astype("<i2"))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """8-bit RGB, one filter byte a row (PNG, ISO/IEC 15948)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _wav(samples: NDArray[np.int16]) -> bytes:
    """16-bit mono PCM."""
    body = samples.tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE_HZ, 2 * SAMPLE_RATE_HZ, 2, 16)
    data = b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(form) + len(data)) + b"WAVE" + form + data
