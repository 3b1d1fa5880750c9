"""Realistic inputs for the trained networks of docs/evidence/files.md, one .npz file for each kind of network.

``python tests/bench/realistic_inputs.py IMAGES OUT``

IMAGES is a folder with the pictures of scikit-image's wheel (``skimage/data``): photographs and scanned text. Pages and
lines of text are drawn with Pillow, and speech is spoken by ``espeak-ng``; both read the words of a licence text that
Debian installs. Each array has eight samples (the layout network four), preprocessed as the network's own package does.
"""

from __future__ import annotations

import io
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WORDS = Path("/usr/share/common-licenses/GPL-3").read_text().split()
FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "hubble_deep_field.jpg",
    "coins.png",
)
SCANS = ("page.png", "text.png")
VOICES = (("en", 150), ("de", 140), ("fr", 170), ("en-us", 120), ("it", 160), ("es", 180), ("en", 200), ("de", 110))
SAMPLE_RATE = 16_000
CLIP_SAMPLES = 144_160
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def draw_page(font_size: int, seed: int) -> Image.Image:
    """Draw a page of 640 x 640 pixels with lines of text and some noise."""
    rng = np.random.default_rng(seed)
    page = Image.new("RGB", (640, 640), (242, 240, 232))
    draw, font, start = ImageDraw.Draw(page), ImageFont.truetype(FONT, font_size), int(rng.integers(0, 4000))
    for row, y in enumerate(range(12, 640 - font_size, int(font_size * 1.5))):
        draw.text((10, y), " ".join(WORDS[start + 8 * row : start + 8 * row + 6]), fill=(30, 30, 40), font=font)
    noisy = np.asarray(page, np.float32) + rng.normal(0, 4, (640, 640, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def draw_line(index: int) -> Image.Image:
    """Draw three words on a line of 320 x 48 pixels."""
    line = Image.new("RGB", (320, 48), (250, 250, 250))
    words = " ".join(WORDS[100 + 3 * index : 103 + 3 * index])
    ImageDraw.Draw(line).text((4, 8), words, fill=(20, 20, 40), font=ImageFont.truetype(FONT, 26))
    return line


def as_input(pictures: list[Image.Image], width: int, height: int, mean: object, std: object) -> np.ndarray:
    """Give pictures as one float32 array [samples, 3, height, width], ``(pixel / 255 - mean) / std``."""
    resized = np.stack([np.asarray(picture.resize((width, height)), np.float32) for picture in pictures])
    return np.ascontiguousarray(((resized / 255 - mean) / std).transpose(0, 3, 1, 2), dtype=np.float32)


def speak(index: int) -> np.ndarray:
    """Speak 45 words with a voice of espeak-ng: float32 [CLIP_SAMPLES] at 16 kHz, in -1 to 1, with noise."""
    voice, words_a_minute = VOICES[index]
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(words_a_minute), " ".join(WORDS[50 * index :][:45])]
    with wave.open(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout)) as clip:
        rate = clip.getframerate()
        sound = np.frombuffer(clip.readframes(10**8), np.int16).astype(np.float32) / 32768
    times = np.arange(0, len(sound) / rate, 1 / SAMPLE_RATE)
    sound = np.resize(np.interp(times, np.arange(len(sound)) / rate, sound), CLIP_SAMPLES)
    rng = np.random.default_rng(index)
    return (sound * rng.uniform(0.3, 0.9) + rng.normal(0, 10 ** rng.uniform(-4, -2), CLIP_SAMPLES)).astype(np.float32)


def mel_power(sound: np.ndarray, *, window: int, bands: int, frames: int) -> np.ndarray:
    """Compute the power in mel bands, one frame each 10 ms: [frames, bands]."""
    padded = np.pad(sound, (0, window))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::160][:frames]
    power = np.abs(np.fft.rfft(pieces * np.hanning(window))) ** 2
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 1400), bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(window, 1 / SAMPLE_RATE)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    filters = np.minimum((frequencies - low) / (centre - low), (high - frequencies) / (high - centre)).clip(0)
    return np.maximum(power @ filters.T, 1e-10)


def decibel_features(sound: np.ndarray) -> np.ndarray:
    """Compute DNSMOS's features: decibels below the loudest, scaled: float32 [900, 120]."""
    decibels = 10 * np.log10(mel_power(sound, window=321, bands=120, frames=900))
    return ((np.maximum(decibels - decibels.max(), -80) + 40) / 40).astype(np.float32)


def log_mel_features(sound: np.ndarray) -> np.ndarray:
    """Compute Whisper's features: log10 of mel power, scaled: float32 [80, 800]."""
    logs = np.log10(mel_power(sound, window=400, bands=80, frames=800))
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).T.astype(np.float32)


def main(images: Path, out: Path) -> None:
    """Write the .npz files into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    photographs = [Image.open(images / name).convert("RGB") for name in PHOTOGRAPHS]
    pages = [Image.open(images / name).convert("RGB") for name in SCANS]
    pages += [draw_page(size, seed) for seed, size in enumerate((16, 20, 24, 28, 32, 40))]
    turned = [page.rotate(90 * turn, expand=True) for turn, page in enumerate(pages)]
    lines = [draw_line(index) for index in range(8)]
    upside_down = [line.rotate(180 * (index % 2)) for index, line in enumerate(lines)]
    clips = np.stack([speak(index) for index in range(8)])
    arrays = {
        "text_detector": {"x": as_input(pages, 320, 320, IMAGENET_MEAN, IMAGENET_STD)},
        "orientation": {"x": as_input(turned, 224, 224, IMAGENET_MEAN, IMAGENET_STD)},
        "layout": {"image": as_input(pages[:4], 608, 800, IMAGENET_MEAN, IMAGENET_STD)},
        "body_detector": {"images": as_input(photographs, 320, 320, 0, 1)},
        "line_direction": {"x": as_input(upside_down, 192, 48, 0.5, 0.5)},
        "recogniser": {"x": as_input(lines, 320, 48, 0.5, 0.5)},
        "speech_quality": {"input_1": clips},
        "speech_quality_features": {"input_1": np.stack([decibel_features(clip) for clip in clips])},
        "turn_detector": {"input_features": np.stack([log_mel_features(clip) for clip in clips])},
    }
    for name, inputs in arrays.items():
        np.savez_compressed(out / f"{name}.npz", **inputs)
        sys.stdout.write(f"{name}.npz: { ({key: array.shape for key, array in inputs.items()}) }\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
