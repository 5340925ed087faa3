"""Pictures and sounds are read as other readers read them, and what is damaged is refused by what is wrong with it."""

import io
import struct
import wave as wavefile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from actors.content.contents import Content, Part, text_of
from actors.content.views import LEAST_SAMPLES, frames, picture, wave, windows
from cluster.errors import SourceError
from tests.content_models import noise, png, tone


def wav(coding: int, bits: int, channels: int, body: bytes, rate_hz: int = 8_000) -> bytes:
    block = channels * bits // 8
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, coding, channels, rate_hz, rate_hz * block, block, bits)
    chunks = form + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize(
    ("coding", "bits", "body"),
    [
        (1, 8, bytes([0, 128, 192])),
        (1, 16, struct.pack("<3h", -(2**15), 0, 2**14)),
        (1, 24, (-(2**23)).to_bytes(3, "little", signed=True) + bytes(3) + (2**22).to_bytes(3, "little")),
        (1, 32, struct.pack("<3i", -(2**31), 0, 2**30)),
        (3, 32, struct.pack("<3f", -1.0, 0.0, 0.5)),
    ],
)
def test_every_coding_of_a_sample_gives_its_value(coding: int, bits: int, body: bytes) -> None:
    np.testing.assert_array_equal(wave(wav(coding, bits, 1, body), 8_000)[:3], [-1.0, 0.0, 0.5])


def test_a_written_wav_is_read_and_channels_are_averaged() -> None:
    file = io.BytesIO()
    with wavefile.open(file, "wb") as sound:
        sound.setparams((2, 2, 8_000, 0, "NONE", ""))
        sound.writeframes(np.tile(np.array([[8_192, 16_384]], "<i2"), (500, 1)).tobytes())
    np.testing.assert_array_equal(wave(file.getvalue(), 8_000), np.full(500, 0.375, np.float32))


def test_another_rate_is_resampled_to_the_same_tone() -> None:
    """A tone of 440 Hz made at 16 kHz, away from the ends, is the one made at 8 kHz and resampled."""
    direct, resampled = wave(tone(440, 0.5, 16_000), 16_000), wave(tone(440, 0.5, 8_000), 16_000)
    assert len(direct) == len(resampled) == 8_000
    np.testing.assert_allclose(resampled[500:-500], direct[500:-500], atol=2e-3)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"ID3 an mp3", "no WAV file"),
        (tone(440, 0.1)[:-10], "cut short"),
        (wav(1, 16, 1, b""), "without samples"),
        (wav(1, 16, 0, b"abcd"), "0 channels"),
        (wav(85, 16, 1, b"abcd"), "coding 85"),
        (tone(440, 0.1)[:36], "without format or samples"),
    ],
)
def test_a_sound_that_cannot_be_read_says_why(data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        wave(data, 8_000)


def test_a_sound_from_a_pipe_and_a_very_short_one_are_read() -> None:
    """ffmpeg writes 0xFFFFFFFF for the length of what it streams."""
    whole = tone(440, 0.1)
    at = whole.index(b"data") + 4
    np.testing.assert_array_equal(wave(whole[:at] + b"\xff" * 4 + whole[at + 4 :], 8_000), wave(whole, 8_000))
    assert len(wave(wav(1, 16, 1, b"\0\1"), 8_000)) == LEAST_SAMPLES


def test_transparent_pixels_are_white_and_a_turned_photo_stands_upright() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (2, 1), (255, 0, 0, 0)).save(file, "PNG")
    assert picture(file.getvalue()).getpixel((0, 0)) == (255, 255, 255)
    turned, exif = io.BytesIO(), Image.Exif()
    exif[274] = 6  # a camera held upright: the picture is to be turned by 90 degrees
    Image.new("RGB", (20, 10)).save(turned, "JPEG", exif=exif)
    assert picture(turned.getvalue()).size == (10, 20)


def test_damaged_metadata_leave_the_picture() -> None:
    """The number of its fields is 65,535, and there is one."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[270] = "a lamp"
    Image.new("RGB", (20, 10), "red").save(file, "JPEG", exif=exif)
    head, _, fields = file.getvalue().partition(b"MM\0*\0\0\0\x08")
    with pytest.warns(UserWarning, match="EXIF|Truncated"):
        found = picture(head + b"MM\0*\0\0\0\x08" + b"\xff\xff" + fields[2:])
    assert found.size == (20, 10)


@pytest.mark.parametrize("data", [b"", b"no picture", noise(0)[:200], b"%!PS-Adobe-3.0 EPSF", noise(0)[:-40]])
def test_a_picture_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="no whole image"):
        picture(data)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked() -> None:
    """A PNG's header alone claims 30,000 x 30,000 pixels."""
    head = png("red")
    with pytest.raises(SourceError):
        picture(head[:16] + struct.pack(">II", 30_000, 30_000) + head[24:])


@pytest.mark.parametrize("size", [(1, 100_000), (3_000, 100), (1, 21)])
def test_a_strip_is_refused_before_a_model_makes_it_wide(size: tuple[int, int]) -> None:
    file, whole = io.BytesIO(), io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    Image.new("RGB", (20, 1), "red").save(whole, "PNG")
    with pytest.raises(SourceError, match="20 times the other"):
        picture(file.getvalue())
    assert picture(whole.getvalue()).size == (20, 1)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 10))
def test_windows_and_frames_are_whole_and_spread_from_end_to_end(count: int, length: int, most: int) -> None:
    samples = np.arange(count, dtype=np.float32)
    found = windows(samples, length, most)
    assert len(found) <= most
    assert all(len(window) == min(length, count) for window in found)
    if len(found) > 1:
        assert found[0][0] == 0
        assert found[-1][-1] == count - 1
    video = [bytes([i]) for i in range(min(count, 250))]
    chosen = frames(video, most)
    assert len(chosen) == min(most, len(video))
    assert sorted(set(chosen)) == chosen
    assert chosen[0] == video[0]


def test_the_text_of_an_item_and_what_is_absent() -> None:
    assert text_of("A mug.", "Blue.") == "A mug. Blue"
    assert text_of(None, " ") == ""
    assert Content(text=" \n", video=(b"",)).parts() == []
    modalities = [part.modality for part in Content("a", b"i", b"s", (b"1", b"2")).parts()]
    assert modalities == ["text", "image", "audio", "video"]


pieces = st.lists(st.binary(max_size=4), max_size=3).map(tuple)


@given(st.tuples(pieces, st.sampled_from(["video", "image"])), st.tuples(pieces, st.sampled_from(["video", "image"])))
def test_parts_share_a_key_only_where_they_are_equal(first: tuple, second: tuple) -> None:
    one, other = Part(first[1], first[0]), Part(second[1], second[0])
    assert (one.key("model") == other.key("model")) == (one == other)
    assert one.key("model") != one.key("another")
