"""What was encoded once is not encoded again, whatever happens to the files; contents are combined as stated."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from actors.content.cache import FILES, Cache, Recent
from actors.content.contents import Content, Part
from actors.content.embedding import Embedder, Encoded
from actors.content.encoder import Encoder
from actors.content.given import given
from cluster.config import ContentSettings
from cluster.errors import SchemaError, StateError
from tests.content_models import folder, noise

SIZE = 3


def vector(key: int) -> np.ndarray:
    return np.array([key, key + 0.5, -key], np.float32)


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


class TwoProcesses(RuleBasedStateMachine):
    """Two writers on one folder, each restarted at will, files damaged at will: never a wrong vector, and none that a
    writer added is lost to it while its file is whole."""

    @initialize(at=st.just(None))
    def start(self, at: None) -> None:
        import tempfile

        self.folder = Path(tempfile.mkdtemp())
        self.caches = [Cache(self.folder, "f" * 64), Cache(self.folder, "f" * 64)]
        self.added: set[int] = set()

    @rule(who=st.integers(0, 1), keys=st.lists(st.integers(0, 30), min_size=1, max_size=5, unique=True))
    def add(self, who: int, keys: list[int]) -> None:
        self.caches[who].add([key_of(k) for k in keys], np.stack([vector(k) for k in keys]))
        self.added |= set(keys)

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        self.caches[who] = Cache(self.folder, "f" * 64)

    @rule(who=st.integers(0, 1))
    def look(self, who: int) -> None:
        found = self.caches[who].find([key_of(k) for k in range(31)])
        assert set(found) == {key_of(k) for k in self.added}
        for key, value in found.items():
            np.testing.assert_array_equal(value, vector(int.from_bytes(key, "big")))


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = hypothesis_settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_a_damaged_file_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "model")
    for key in range(3):
        cache.add([key_of(key)], vector(key)[None])
    short, flipped, _ = sorted((tmp_path / "model").iterdir())
    short.write_bytes(short.read_bytes()[:-7])
    body = bytearray(flipped.read_bytes())
    body[-1] ^= 1
    flipped.write_bytes(body)
    assert len(Cache(tmp_path, "model").find([key_of(k) for k in range(3)])) == 1
    assert Cache(tmp_path, "another model").find([key_of(0)]) == {}


def test_many_files_become_one(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "model")
    for key in range(FILES + 5):
        cache.add([key_of(key)], vector(key)[None])
    assert len(list((tmp_path / "model").iterdir())) < 10
    assert len(Cache(tmp_path, "model").find([key_of(k) for k in range(FILES + 5)])) == FILES + 5


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="set MEDLEY_HOME"):
        Cache(tmp_path / "file", "model").add([key_of(1)], vector(1)[None])


def test_memory_keeps_the_last_that_were_asked_for() -> None:
    recent = Recent(2)
    recent.add([b"a", b"b"], np.stack([vector(1), vector(2)]))
    recent.find([b"a"])
    recent.add([b"c"], vector(3)[None])
    assert set(recent.find([b"a", b"b", b"c"])) == {b"a", b"c"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(str(folder("clip", tmp_path_factory.mktemp("clip"))), ContentSettings(batch=2), "cpu")


def embedder(encoder: Encoder, at: Path) -> Embedder:
    cache = Cache(at, encoder.fingerprint)
    return Embedder(encoder.embed, encoder.modalities, encoder.dimension, encoder.fingerprint, cache)


def test_an_unchanged_part_is_read_once_and_a_changed_one_alone(encoder: Encoder, tmp_path: Path) -> None:
    """Forward passes are counted: batches of two, texts of one length and pictures of one size together."""
    contents = [Content("red lamp", noise(0)), Content("blue rug", noise(1)), Content("red lamp", noise(0))]
    passes = encoder.passes
    first = embedder(encoder, tmp_path).embed(contents)
    assert (encoder.passes - passes, first.encoded) == (2, 4)
    again = embedder(encoder, tmp_path).embed(contents)
    assert (encoder.passes - passes, again.encoded) == (2, 0)
    np.testing.assert_array_equal(again.vectors_NE, first.vectors_NE)
    changed = embedder(encoder, tmp_path).embed([Content("green lamp", noise(0)), *contents[1:]])
    assert (encoder.passes - passes, changed.encoded) == (3, 1)
    np.testing.assert_array_equal(changed.vectors_NE[1:], first.vectors_NE[1:])
    assert abs(changed.vectors_NE[0] - first.vectors_NE[0]).max() > 0.01


def test_modalities_are_averaged_and_scaled(encoder: Encoder, tmp_path: Path) -> None:
    text, image = encoder.embed([Part("text", (b"red lamp",)), Part("image", (noise(0),))]).vectors_PE
    found = embedder(encoder, tmp_path).embed(
        [Content("red lamp", noise(0)), Content("red lamp"), Content("", noise(0))]
    )
    np.testing.assert_allclose(found.vectors_NE[0], (text + image) / np.linalg.norm(text + image), atol=1e-6)
    np.testing.assert_allclose(found.vectors_NE[1:], [text, image], atol=1e-6)


def test_what_cannot_be_read_is_told_and_an_item_lives_on_the_rest(encoder: Encoder, tmp_path: Path) -> None:
    contents = [Content("red lamp", b"junk"), Content("", b"junk"), Content(), Content(audio=b"sound")]
    found = embedder(encoder, tmp_path).embed(contents)
    assert found.there_N.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(found.vectors_NE[1:], 0)
    rows, reasons = zip(*found.problems, strict=True)
    assert rows == (0, 1, 2, 3)
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("image: no whole image")
    assert reasons[2].endswith("the model reads text or image or video, the item has no content")
    assert reasons[3].endswith("the item has audio")


def test_one_encoder_call_takes_all_that_is_new(tmp_path: Path) -> None:
    calls: list[int] = []

    def encode(parts: Sequence[Part]) -> Encoded:
        calls.append(len(parts))
        return Encoded(np.tile(np.array([[0.6, 0.8]], np.float32), (len(parts), 1)), {})

    own = Embedder(encode, ("text",), 2, "f", Recent(100))
    own.embed([Content(f"text {i}") for i in range(50)])
    own.embed([Content(f"text {i}") for i in range(60)])
    assert calls == [50, 10]


def test_given_embeddings_are_scaled_and_those_of_another_size_are_told() -> None:
    column = pa.array([[3.0, 4.0], [1.0], None, [0.0, 0.0], [float("nan"), 1.0], [0.0, -2.0]], pa.list_(pa.float32()))
    found = given(pa.table({"embedding": column}))
    np.testing.assert_allclose(found.vectors_NE[[0, 5]], [[0.6, 0.8], [0, -1]], atol=1e-7)
    assert found.there_N.tolist() == [True, False, False, False, False, True]
    assert [row for row, _ in found.problems] == [1, 2, 3, 4]
    said = [reason for _, reason in found.problems]
    assert said[0] == "embedding: of size 1, and most items have 2"
    assert [s.split(": ")[1] for s in said[1:]] == ["none is given", "all zero", "a number that is not finite"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        far = given(pa.table({"embedding": pa.array([[3e30, 4e30], [3e-40, 4e-40]], pa.list_(pa.float32()))}))
    np.testing.assert_allclose(far.vectors_NE, [[0.6, 0.8], [0.6, 0.8]], atol=1e-4)
    with pytest.raises(SchemaError, match="none of the 1 items has an embedding"):
        given(pa.table({"embedding": pa.nulls(1, pa.list_(pa.float32()))}))
