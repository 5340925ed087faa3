"""Content: what reads an item, and how its neighbours speak for it."""

from pydantic import Field

from cluster.settings.section import Count, Positive, Section


class ContentSettings(Section):
    """Embeddings of items (docs/content.md)."""

    model: str | None = Field(
        None,
        description="transformers folder or hub id of a text, image, audio, CLIP-like or CLAP-like model; null trains "
        "the embedded CLIP on the catalogue",
    )
    given: bool = Field(False, description="take the embeddings that items come with rather than encode the items")
    neighbours: Count = Field(5, description="entries of the vector store that an item is compared with, the nearest")
    temperature: Positive = Field(
        0.1, description="of the neighbours' weights, cosine: one that is nearer by it counts e times as much"
    )
    tokens: Count = Field(128, description="token budget of an item's text")
    frames: Count = Field(8, description="frames of a video, and windows of a sound, that are read at most")
    window_s: Positive = Field(10.0, description="longest stretch of a sound that is read at once, seconds")
    batch: Count = Field(32, description="texts, pictures or sounds per forward pass")
    actors: Count = Field(1, description="encoding actors")
    gpus: float = Field(0.0, ge=0, description="GPU share per encoding actor, 0 for CPU")
    threads: Count = Field(1, description="torch threads of an encoding process")
    stream_above_bytes: Count = Field(
        2**30, description="size of a catalogue's content above which Ray Data streams it to the actors, bytes"
    )
    dimension: Count = Field(64, description="size of the embedded CLIP's vectors")
    hidden: Count = Field(64, description="width of the embedded CLIP")
    layers: Count = Field(2, description="layers of the embedded CLIP's picture tower")
    pixels: Count = Field(64, description="side of the pictures that the embedded CLIP reads, a multiple of 8")
    pairs: Count = Field(20_000, description="items that the embedded CLIP trains on at most, a seeded sample")
    train_s: Positive = Field(240.0, description="training of the embedded CLIP, seconds")
    train_steps: Count | None = Field(
        None, description="training steps at most, repeats a run's bits; null goes by time alone"
    )
