"""Bytes -> what a model's processor takes: an RGB picture, a mono wave; of long things, evenly spread samples.

Pictures are read by Pillow, sounds from WAV files (integer PCM of 8, 16, 24 or 32 bits, or 32-bit float).
"""

import io
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.signal import resample_poly

from cluster.errors import SourceError

Wave = NDArray[np.float32]
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LARGEST_PIXELS = 50_000_000
MOST_STRETCHED = 20
"""The longer side over the shorter one. Models scale the shorter one to their input before they cut the longer: a file
of 471 bytes, 1 x 100,000 pixels, took 4 GB."""
LEAST_SAMPLES = 400
"""A shorter sound is lengthened by silence: the first window of wav2vec2's convolutions is 25 ms of 16 kHz."""
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN = 0xFFFFFFFF
"""The size of a chunk that was written to a pipe: all that follows."""


def picture(data: bytes) -> Image.Image:
    """The picture upright, in RGB, transparent pixels on white.

    Threads may call it at once. What Pillow only warns of, such as damaged metadata, leaves the picture whole.

    Raises SourceError where it cannot be read whole, has more than 50 million pixels, or is far longer than wide.
    """
    try:
        file = Image.open(io.BytesIO(data), formats=FORMATS)
        if file.width * file.height > LARGEST_PIXELS:
            raise SourceError(f"an image of {file.width} x {file.height}; at most {LARGEST_PIXELS:,} pixels")
        if max(file.size) > MOST_STRETCHED * min(file.size):
            raise SourceError(
                f"an image of {file.width} x {file.height}; a side may be {MOST_STRETCHED} times the other at most"
            )
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return image.convert("RGB")
    except SourceError:
        raise
    except Exception as error:  # whatever a decoder trips over, the bytes are at fault
        raise SourceError(f"no whole image of {', '.join(FORMATS)} ({type(error).__name__})") from error


def wave(data: bytes, rate_hz: int) -> Wave:
    """Mono samples in [-1, 1] at `rate_hz`, resampled where the file has another rate.

    Raises SourceError where the bytes are no WAV file of a known coding, or end early.
    """
    form, body = _chunks(data)
    coding, channels, found_hz, _, _, bits = struct.unpack("<HHIIHH", form[:16])
    if coding == _EXTENSIBLE and len(form) >= 26:
        coding = int.from_bytes(form[24:26], "little")
    if channels < 1 or not 1_000 <= found_hz <= 768_000:
        raise SourceError(f"a WAV file of {channels} channels at {found_hz} Hz; expected 1 or more, 1 to 768 kHz")
    samples = _samples(body, coding, bits)
    if len(samples) < channels:
        raise SourceError("a WAV file without samples")
    mono = samples[: len(samples) // channels * channels].reshape(-1, channels).mean(1)
    if found_hz != rate_hz:
        shared = np.gcd(found_hz, rate_hz)
        mono = resample_poly(mono, rate_hz // shared, found_hz // shared)
    padded = np.pad(mono, (0, max(0, LEAST_SAMPLES - len(mono))))
    finite: Wave = np.nan_to_num(np.clip(padded, -1, 1)).astype(np.float32)
    return finite


def windows(samples: Wave, length: int, most: int) -> list[Wave]:
    """The wave itself, or at most `most` stretches of `length` samples spread evenly over it."""
    if len(samples) <= length:
        return [samples]
    count = min(most, -(-len(samples) // length))
    starts = np.linspace(0, len(samples) - length, count).round().astype(int)
    return [samples[start : start + length] for start in starts]


def frames(video: Sequence[bytes], most: int) -> list[bytes]:
    """At most `most` of the frames, spread evenly; the first and the last are among them."""
    if len(video) <= most:
        return list(video)
    return [video[i] for i in np.linspace(0, len(video) - 1, most).round().astype(int)]


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The `fmt ` and `data` chunks of a RIFF file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise SourceError("no WAV file (RIFF/WAVE); convert the sound, for instance by `ffmpeg -i sound.mp3 sound.wav`")
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data) and not {b"fmt ", b"data"} <= found.keys():
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        size = len(data) - at - 8 if size == _UNKNOWN else size
        if at + 8 + size > len(data):
            raise SourceError(f"a WAV file cut short: chunk {name!r} has {len(data) - at - 8} of {size} bytes")
        found[name] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    if len(found.get(b"fmt ", b"")) < 16 or b"data" not in found:
        raise SourceError("a WAV file without format or samples")
    return found[b"fmt "], found[b"data"]


def _samples(body: bytes, coding: int, bits: int) -> NDArray[np.float64]:
    size = bits // 8
    body = body[: len(body) // size * size] if size else b""
    if (coding, bits) == (_FLOAT, 32):
        return np.frombuffer(body, "<f4").astype(float)
    if (coding, bits) == (_PCM, 8):
        return (np.frombuffer(body, np.uint8).astype(float) - 128) / 128
    if (coding, bits) == (_PCM, 24):
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        return wide.view("<i4").ravel() / 2.0**31
    if coding == _PCM and bits in (16, 32):
        return np.frombuffer(body, f"<i{size}") / 2.0 ** (bits - 1)
    raise SourceError(f"a WAV file of coding {coding} with {bits} bits; expected PCM of 8 to 32 bits, or 32-bit float")
