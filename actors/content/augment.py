"""Random views of an item for contrastive training: words left out of its text; crops, flips and colour of its picture.

Colours change only a little: in a catalogue they tell products apart.

Shapes: B pictures of a batch, S side of a stored picture, X side of what the model reads.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.nn.functional import affine_grid, grid_sample, interpolate

from actors.content.views import picture

LEAST_AREA = 0.5
"""Share of the picture that a crop keeps at least."""
ASPECT, LIGHT, TINT = 0.2, 0.3, 0.08
"""Reach of log aspect ratio; of brightness, contrast and saturation; of each colour's own brightness."""
Pictures = NDArray[np.uint8]


def stored(data: bytes, side: int) -> Pictures:
    """The picture's middle, (3, S, S). Raises SourceError where it cannot be read."""
    fitted = ImageOps.fit(picture(data), (side, side), Image.Resampling.BICUBIC)
    return np.asarray(fitted).transpose(2, 0, 1)


def varied(pictures_B3SS: torch.Tensor, pixels: int, random: torch.Generator) -> torch.Tensor:
    """A random crop of each, mirrored or not, in a little other light and colour: (B, 3, X, X) in [0, 1]."""
    count = len(pictures_B3SS)

    def draw(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(count, *shape, generator=random) - 1

    side_B = (LEAST_AREA + (1 - LEAST_AREA) * (draw() + 1) / 2).sqrt()
    aspect_B = torch.exp(ASPECT * draw())
    place_B23 = torch.zeros(count, 2, 3)
    place_B23[:, 0, 0] = side_B * aspect_B * draw().sign()
    place_B23[:, 1, 1] = side_B / aspect_B
    place_B23[:, :, 2] = draw(2) * (1 - side_B[:, None])
    grid = affine_grid(place_B23, [count, 3, pixels, pixels], align_corners=False)
    crop = grid_sample(pictures_B3SS.float() / 255, grid, padding_mode="reflection", align_corners=False)
    grey = crop.mean(1, keepdim=True)
    crop = grey + (crop - grey) * (1 + LIGHT * draw(1, 1, 1))
    middle = crop.mean((1, 2, 3), keepdim=True)
    crop = (middle + (crop - middle) * (1 + LIGHT * draw(1, 1, 1))) * (1 + LIGHT * draw(1, 1, 1))
    return (crop * (1 + TINT * draw(3, 1, 1))).clamp(0, 1)


def plain(pictures_B3SS: torch.Tensor, pixels: int) -> torch.Tensor:
    """The whole pictures, (B, 3, X, X) in [0, 1]."""
    small = interpolate(pictures_B3SS.float() / 255, (pixels, pixels), mode="bicubic", antialias=True)
    return small.clamp(0, 1)


def thinned(texts: Sequence[str], share: float, random: np.random.Generator) -> list[str]:
    """The texts with this share of their words left out; a text keeps one word at least."""
    kept = []
    for text in texts:
        words = text.split()
        stays = random.random(len(words)) >= share
        stays[random.integers(len(words))] = True
        kept.append(" ".join(word for word, stay in zip(words, stays, strict=True) if stay))
    return kept
