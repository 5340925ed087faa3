"""What the embedded CLIP trains on: texts and decoded pictures of items.

Shapes: N examples, S side of a stored picture.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from actors.content.augment import Pictures, stored
from actors.content.contents import Content
from cluster.errors import SourceError


class Examples:
    """Texts and decoded pictures of N items; an item may have either or both.

    Args:
        named: (product, content) of each item; examples of one product are positives of each other. What has neither
            text nor a readable picture is left out.
        side: S of the pictures kept.
    """

    def __init__(self, named: Iterable[tuple[str, Content]], side: int) -> None:
        self.texts: list[str] = []
        names: list[str] = []
        pictures: list[Pictures | None] = []
        for product, content in named:
            image = _stored(content.image or _middle(content.video), side)
            if content.text.strip() or image is not None:
                self.texts.append(content.text.strip())
                pictures.append(image)
                names.append(product)
        self.product_N = np.unique(names, return_inverse=True)[1] if names else np.zeros(0, int)
        self.text_N = np.array([bool(text) for text in self.texts], bool)
        self.picture_N = np.array([image is not None for image in pictures], bool)
        blank = np.zeros((3, side, side), np.uint8)
        filled = [blank if image is None else image for image in pictures]
        self.pictures_N3SS = torch.from_numpy(np.stack(filled)) if filled else torch.zeros(0, 3, side, side)

    def __len__(self) -> int:
        return len(self.texts)


def _middle(video: Sequence[bytes]) -> bytes:
    return video[len(video) // 2] if video else b""


def _stored(data: bytes, side: int) -> Pictures | None:
    """The picture as it is kept; none where there is none, or one that cannot be read (embedding reports it)."""
    try:
        return stored(data, side) if data else None
    except SourceError:
        return None
