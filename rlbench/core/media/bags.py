"""Opens ROS bags by the package rosbags, and decodes their images and sound.

Bags are .bag files (ROS 1), .mcap and .db3 files, and folders with metadata.yaml (ROS 2), compressed or not:
https://ternaris.gitlab.io/rosbags. Times are log times in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlbench.core.errors import DataError, quote
from rlbench.core.guard import guard
from rlbench.core.media.samples import Samples, decode_samples, encode_samples

FILES = (".bag", ".mcap", ".db3")
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
PICTURES = (IMAGE, COMPRESSED)
SOUND, STAMPED = "audio_common_msgs/msg/AudioData", "audio_common_msgs/msg/AudioDataStamped"
SOUNDS = (SOUND, STAMPED)
_ZSTD = b"\x28\xb5\x2f\xfd"  # the first bytes of compressed data, which no CDR or ROS 1 image message has
_SOUND_TYPES = {SOUND: "uint8[] data", STAMPED: f"std_msgs/Header header\n{SOUND} audio"}  # not in rosbags' stores


class Layout(NamedTuple):
    """How an encoding stores a pixel: bytes a value, values a pixel, and which of them are grey, or R, G and B."""

    bytes: int
    values: int
    order: tuple[int, ...]


# https://docs.ros.org/en/api/sensor_msgs/html/image__encodings_8h_source.html; 8UC3 is BGR, as cv_bridge has it.
LAYOUTS = {
    "mono8": Layout(1, 1, (0,)),
    "8UC1": Layout(1, 1, (0,)),
    "rgb8": Layout(1, 3, (0, 1, 2)),
    "bgr8": Layout(1, 3, (2, 1, 0)),
    "8UC3": Layout(1, 3, (2, 1, 0)),
    "rgba8": Layout(1, 4, (0, 1, 2)),
    "bgra8": Layout(1, 4, (2, 1, 0)),
    "mono16": Layout(2, 1, (0,)),
    "16UC1": Layout(2, 1, (0,)),
}


def is_bag(path: Path) -> bool:
    """Whether a path is a bag by its name, or a folder with metadata.yaml."""
    return (path / "metadata.yaml").is_file() or (path.suffix.lower() in FILES and path.is_file())


def count_others(folder: Path, named: Iterable[str]) -> int:
    """Counts the bags below a folder that are none of these paths in it; the files of a folder bag are no bags."""
    known = {(folder / name).resolve() for name in named}
    found = (path for path in folder.rglob("*") if is_bag(path) and not (path.parent / "metadata.yaml").is_file())
    return sum(path.resolve() not in known for path in found)


def list_bag_files(path: Path) -> list[Path]:
    """Lists a bag's files: itself, or those of its folder."""
    return sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """Opens a bag as rosbags' AnyReader.

    Raises:
        DataError: rosbags is not installed, or the bag is missing, damaged or empty.
    """
    try:
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
    except ImportError:
        raise DataError("bags need the package rosbags: pip install 'rlbind-bench[ros]'") from None
    if not is_bag(path):
        what = "is not a bag" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; a bag is a file {', '.join(FILES)}, or a folder with metadata.yaml")
    with ExitStack() as stack:
        with guard(f"can't read the bag {path}"):
            store = get_typestore(Stores.ROS2_HUMBLE)  # for old bags, which do not have their types
            for kind, text in _SOUND_TYPES.items():
                store.register(get_types_from_msg(text, kind))
            reader = stack.enter_context(AnyReader([path], default_typestore=store))
            count = reader.message_count
        if not count:
            raise DataError(f"the bag {path} has no messages")
        yield reader


def find_topic(reader: Any, path: Path, topic: str, types: Sequence[str]) -> list[Any]:
    """Finds the connections of a topic. Raises: DataError if it is missing or of none of the types."""
    found = [one for one in reader.connections if one.topic == topic]
    if not found:
        usable = sorted({one.topic for one in reader.connections if one.msgtype in types})
        raise DataError(
            f"{path} has no topic {quote(topic)}; its topics that can be used: {', '.join(usable) or 'none'}"
        )
    for one in found:
        if one.msgtype not in types:
            raise DataError(f"{path}: the topic {topic} is {one.msgtype}; it must be {' or '.join(types)}")
    return found


def read_messages(
    reader: Any, path: Path, connections: Sequence[Any] = (), start: int | None = None, stop: int | None = None
) -> Iterator[tuple[Any, int, bytes]]:
    """Reads messages in the order of log time.

    Args:
        reader: of `open_bag`.
        path: of the bag, for messages.
        connections: which; empty for all.
        start: the first log time in ns.
        stop: the log time in ns before which messages end.

    Yields:
        Connection, log time in ns, and bytes.

    Raises:
        DataError: the bag is damaged.
    """
    messages = reader.messages(connections, start, stop)
    while True:
        with guard(f"can't read the bag {path}"):
            found = next(messages, None)
        if found is None:
            return
        yield found


def parse_message(reader: Any, connection: Any, raw: bytes, name: str) -> Any:
    """Deserialises a message; `name` is for messages. Raises: DataError."""
    if raw[:4] == _ZSTD:
        raise DataError(f"{name} is compressed; give the whole folder of the bag, whose metadata.yaml says how")
    with guard(f"can't read {name}"):
        return reader.deserialize(raw, connection.msgtype)


def _split_rows(message: Any, name: str) -> tuple[np.ndarray, Layout, np.dtype[Any], int]:
    """Rows (H, step) uint8 of an Image, its layout, type, and the bytes of a row that are pixels. Raises: DataError."""
    layout = LAYOUTS.get(message.encoding)
    if layout is None:
        raise DataError(f"{name} has the encoding {quote(message.encoding)}; allowed: {', '.join(LAYOUTS)}")
    used, size = message.width * layout.values * layout.bytes, message.step * message.height
    if not used or not size or message.step < used or len(message.data) < size:
        raise DataError(
            f"{name} is cut: {message.width} x {message.height} {message.encoding} pixels in rows of {message.step} "
            f"bytes do not fit into {len(message.data):,} bytes"
        )
    rows = np.array(message.data[:size], np.uint8).reshape(message.height, message.step)
    kind = np.dtype(f"{'>' if message.is_bigendian else '<'}u{layout.bytes}")
    return rows, layout, kind, used


def decode_picture(message: Any, name: str) -> Samples:
    """Decodes an Image or CompressedImage.

    Returns:
        (H, W, 3) uint8 in RGB, or (H, W, 1) uint8 or uint16; the format is "" for an Image.

    Raises:
        DataError: the encoding is unknown, or the message is cut or damaged.
    """
    if hasattr(message, "format"):
        if "compressedDepth" in message.format:
            raise DataError(f"{name} is {quote(message.format)}; allowed: JPEG, PNG and other pictures")
        return decode_samples(name, bytes(message.data))
    rows, layout, kind, used = _split_rows(message, name)
    values = np.ascontiguousarray(rows[:, :used]).view(kind).reshape(message.height, message.width, layout.values)
    return Samples(values[..., layout.order].astype(kind.newbyteorder("=")), "")


def encode_picture(message: Any, samples: Samples, name: str) -> np.ndarray:
    """The `data` of a message with other pixels of the same shape and type: a flat uint8 array. Raises: DataError."""
    if samples.format:
        return np.frombuffer(encode_samples(samples), np.uint8)
    rows, layout, kind, used = _split_rows(message, name)
    values = np.ascontiguousarray(rows[:, :used]).view(kind).reshape(message.height, message.width, layout.values)
    values[..., layout.order] = samples.pixels
    rows[:, :used] = values.reshape(message.height, -1).view(np.uint8)
    return rows.reshape(-1)


def get_sound(message: Any) -> Any:
    """The AudioData of a message: itself, or that of an AudioDataStamped."""
    return getattr(message, "audio", message)


def decode_sound(content: bytes | np.ndarray, channels: int) -> np.ndarray:
    """Signed 16-bit little-endian samples, channels interleaved -> (samples, channels) float32 in [-1, 1]."""
    values = np.frombuffer(bytes(content), "<i2")
    return (values[: len(values) // channels * channels].reshape(-1, channels) / 32768).astype(np.float32)


def encode_sound(wave: np.ndarray) -> np.ndarray:
    """(samples, channels) in [-1, 1] -> signed 16-bit little-endian bytes, a flat uint8 array."""
    return np.clip(np.round(wave * 32768), -32768, 32767).astype("<i2").reshape(-1).view(np.uint8)
