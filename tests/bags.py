"""Writes small ROS bags for tests, by the package rosbags' own writers."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags")
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

START = 1_700_000_000_123_456_789  # ns: more digits than a float64 has
SECOND = 10**9
Message = tuple[float, str, Any]  # seconds since START, topic, message


def make_store(*, ros1: bool = False) -> Any:
    """A store of types with those of sound, which are not standard."""
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    sound = "audio_common_msgs/msg/AudioData"
    store.register(get_types_from_msg("uint8[] data\n", sound))
    store.register(get_types_from_msg(f"std_msgs/Header header\n{sound} audio\n", f"{sound}Stamped"))
    return store


def _header(store: Any) -> Any:
    kind = store.types["std_msgs/msg/Header"]
    stamp = store.types["builtin_interfaces/msg/Time"](sec=7, nanosec=5)
    return kind(stamp=stamp, frame_id="", **({"seq": 0} if "seq" in kind.__dataclass_fields__ else {}))


def make_image(store: Any, pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False) -> Any:
    """An Image of (H, W) or (H, W, C) pixels, with `padding` bytes of 99 behind every row."""
    kind = pixels.dtype.newbyteorder(">" if big else "<")
    rows = np.ascontiguousarray(pixels.astype(kind)).reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return store.types["sensor_msgs/msg/Image"](
        header=_header(store),
        height=len(pixels),
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


def make_compressed(store: Any, pixels: np.ndarray, form: str) -> Any:
    """A CompressedImage; `form` is "png" or "jpeg"."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, form)
    data = np.frombuffer(file.getvalue(), np.uint8)
    return store.types["sensor_msgs/msg/CompressedImage"](header=_header(store), format=form, data=data)


def make_sound(store: Any, wave: np.ndarray, *, stamped: bool = False) -> Any:
    """An AudioData or AudioDataStamped of 16-bit samples."""
    data = store.types["audio_common_msgs/msg/AudioData"](data=wave.astype("<i2").reshape(-1).view(np.uint8))
    kind = store.types["audio_common_msgs/msg/AudioDataStamped"]
    return kind(header=_header(store), audio=data) if stamped else data


def make_text(store: Any, text: str) -> Any:
    return store.types["std_msgs/msg/String"](data=text)


def write_bag(path: Path, messages: Sequence[Message], store: Any) -> Path:
    """Writes a bag by the suffix of its path: .bag for ROS 1, .mcap or none (SQLite) for a folder of ROS 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".bag":
        writer, serialise = Writer1(path), store.serialize_ros1
    else:
        plugin = StoragePlugin.MCAP if path.suffix == ".mcap" else StoragePlugin.SQLITE3
        writer, serialise = Writer(path, version=8, storage_plugin=plugin), store.serialize_cdr
    with writer:
        topics = {}
        for seconds, topic, message in messages:
            kind = message.__msgtype__
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(topics[topic], START + round(seconds * SECOND), serialise(message, kind))
    return path
