"""Catalogues of the built-in marketplace's kind at any size, made in seconds: same words, brands, rooms and prices."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.marketplace.wares import BRANDS, CATEGORIES, ROOMS, START, STYLES
from cluster.records import ITEMS, encode


def synthetic_items(count: int, seed: int) -> pa.Table:
    """`count` items whose style, category, brand, room and words are drawn, and prices log-normal by category."""
    rng = np.random.default_rng([seed, 0xCA7])
    style_I, category_I = rng.integers(len(STYLES), size=count), rng.integers(len(CATEGORIES), size=count)
    brand_I, room_I = rng.integers(len(BRANDS), size=count), rng.integers(len(ROOMS), size=count)
    order_I3 = rng.random((count, 5)).argsort(axis=1)[:, :3]
    words = np.array(list(STYLES.values()))
    first, second, third = (pa.array(words[style_I, order_I3[:, n]]) for n in range(3))
    style, category = _named(tuple(STYLES), style_I), _named(CATEGORIES, category_I)
    brand, room = _named(BRANDS, brand_I), _named(ROOMS, room_I)
    typical = np.random.default_rng([seed, 0x9A1]).normal(3.2, 0.5, len(CATEGORIES))
    price_I = np.exp(typical[category_I] + rng.normal(0, 0.6, count)).round(2)
    attributes = pa.array([encode({"style": name}) for name in STYLES], ITEMS.field("attributes").type)
    columns = {
        "item_id": pc.binary_join_element_wise("big", pc.cast(pa.array(np.arange(count)), pa.string()), "-"),
        "provider_id": _named(tuple(f"provider-{p}" for p in range(20)), category_I),
        "title": pc.binary_join_element_wise(brand, first, category, " "),
        "description": pc.binary_join_element_wise(
            "A", style, category, "for the", room, second, "and", third, "made by", brand, " "
        ),
        "price": pa.array(price_I),
        "category": category,
        "brand": brand,
        "attributes": attributes.take(pa.array(style_I)),
        "created_at": pa.array([START]).take(pa.array(np.zeros(count, np.int64))),
    }
    return pa.table(
        [columns[f.name].cast(f.type) if f.name in columns else pa.nulls(count, f.type) for f in ITEMS], schema=ITEMS
    )


def _named(names: tuple[str, ...], number_I: NDArray[np.int64]) -> pa.Array:
    return pa.array(names).take(pa.array(number_I))
