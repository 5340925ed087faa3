"""What an item is made of, and the parts of it that a model reads.

A *part* is one modality of one item as bytes or text: the unit that is read, embedded and cached.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pyarrow as pa

Modality: TypeAlias = Literal["text", "image", "audio", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "image", "audio", "video")
COLUMNS = ("item_id", "title", "description", "image", "audio", "video")
"""The columns of ITEMS that content is made from."""


@dataclass(frozen=True)
class Part:
    """`payload`: UTF-8 text, or one encoded picture or sound; a video is its encoded frames in order."""

    modality: Modality
    payload: tuple[bytes, ...]

    def key(self, fingerprint: str) -> bytes:
        """32 bytes that two parts share only where the model of this fingerprint gives them the same vector."""
        digest = hashlib.sha256(f"{fingerprint} {self.modality}".encode())
        for piece in self.payload:
            digest.update(len(piece).to_bytes(8, "big") + piece)
        return digest.digest()


@dataclass(frozen=True)
class Content:
    """One item's text, picture, sound and film; empty is absent."""

    text: str = ""
    image: bytes = b""
    audio: bytes = b""
    video: tuple[bytes, ...] = ()

    def parts(self) -> list[Part]:
        """What is there, in the order of MODALITIES. A text of white space alone is not."""
        found = [
            Part("text", (self.text.strip().encode(errors="replace"),)),
            Part("image", (self.image,)),
            Part("audio", (self.audio,)),
            Part("video", self.video),
        ]
        return [part for part in found if any(part.payload)]


def contents(items: pa.Table) -> Iterator[Content]:
    """The content of each row of a table with the columns of COLUMNS, in order."""
    for row in items.select(COLUMNS[1:]).to_pylist():
        yield Content(text_of(row["title"], row["description"]), *_media(row["image"], row["audio"], row["video"]))


def text_of(title: str | None, description: str | None) -> str:
    """Title and description as one text; either may be absent."""
    return ". ".join(text.strip().removesuffix(".") for text in (title, description) if text and text.strip())


def _media(
    image: bytes | None, audio: bytes | None, video: Sequence[bytes | None] | None
) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    return image or b"", audio or b"", tuple(frame for frame in video or () if frame)
