"""A corrupted copy of a bag: the same connections, times and messages, with other pixels and samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media import bags
from rlbench.core.media.samples import WRITTEN
from rlbench.corruptions.copies.corruptor import Corruptor, Unfit
from rlbench.corruptions.copies.tally import Tally

Sounds = dict[str, list[np.ndarray]]  # the corrupted data of the messages of each topic of sound, in order


def copy_bag(source: Path, target: Path, corruptor: Corruptor, tally: Tally) -> None:
    """Copies a bag of ROS 1 or 2, with its images or its sound corrupted.

    Args:
        source: the bag.
        target: of the copy; a bag of ROS 2 keeps its storage (MCAP or SQLite), and is a file if `source` is one.
        corruptor: what to do.
        tally: counts messages.

    Raises:
        DataError: the bag can't be read or written.
    """
    with bags.open_bag(source) as reader:
        sounds = _corrupt_sounds(reader, source, corruptor, tally)
        with _open_writer(reader, source, target) as (writer, connections):
            count = reader.message_count
            for done, (connection, stamp, raw) in enumerate(bags.read_messages(reader, source), 1):
                data = _change(reader, connection, stamp, raw, corruptor, tally, sounds)
                with guard(f"can't write the bag {target}"):
                    writer.write(connections[id(connection.owner), connection.id], stamp, data)
                tally.advance(done, count, "messages")


def _change(
    reader: Any, connection: Any, stamp: int, raw: bytes, corruptor: Corruptor, tally: Tally, sounds: Sounds
) -> bytes:
    """A message with its image or sound corrupted, or as it is, counted."""
    topic, kind = connection.topic, connection.msgtype
    picture = corruptor.pictures and kind in bags.PICTURES
    if not (picture or (corruptor.sounds and kind in bags.SOUNDS)):
        tally.copied["messages of other types"] += 1
        return raw
    if not corruptor.chooses(topic):
        tally.copied["messages of topics that --only leaves out"] += 1
        return raw
    name = f"{topic}@{stamp}"
    message = bags.parse_message(reader, connection, raw, name)
    try:
        if picture:
            changed = _change_picture(message, name, topic, stamp, corruptor)
        elif topic in sounds:
            sound = replace(bags.get_sound(message), data=sounds[topic].pop(0))
            changed = replace(message, audio=sound) if kind == bags.STAMPED else sound
        else:
            raise Unfit("no samples, or of unknown rate; give --rate")
    except Unfit as error:
        tally.copied[f"messages of {topic} ({error})"] += 1
        return raw
    tally.corrupted[f"messages of {topic}"] += 1
    with guard(f"can't write {name}"):
        store = reader.typestore
        return bytes(store.serialize_cdr(changed, kind) if reader.is2 else store.serialize_ros1(changed, kind))


def _change_picture(message: Any, name: str, topic: str, stamp: int, corruptor: Corruptor) -> Any:
    if getattr(message, "encoding", "mono8") not in bags.LAYOUTS:
        raise Unfit(f"encoding {message.encoding}")
    if "compressedDepth" in getattr(message, "format", ""):
        raise Unfit("compressed depth")
    samples = bags.decode_picture(message, name)
    if samples.format and samples.format not in WRITTEN:
        raise Unfit(samples.format)
    changed = corruptor.change_picture(samples.pixels, topic, stamp)
    return replace(message, data=bags.encode_picture(message, samples._replace(pixels=changed), name))


def _corrupt_sounds(reader: Any, source: Path, corruptor: Corruptor, tally: Tally) -> Sounds:
    """Corrupts the sound of each topic as a whole, since filters and echoes reach over messages."""
    if not corruptor.sounds or not corruptor.rate:
        return {}
    kinds = [one for one in reader.connections if one.msgtype in bags.SOUNDS and corruptor.chooses(one.topic)]
    whole: dict[str, list[bytes]] = {}
    for connection, stamp, raw in bags.read_messages(reader, source, kinds) if kinds else ():
        message = bags.parse_message(reader, connection, raw, f"{connection.topic}@{stamp}")
        whole.setdefault(connection.topic, []).append(bytes(bags.get_sound(message).data))
    sounds: Sounds = {}
    for topic, parts in whole.items():
        wave = bags.decode_sound(b"".join(parts), corruptor.channels)
        if not len(wave):
            continue
        try:
            data = bags.encode_sound(corruptor.change_sound(wave, corruptor.rate, topic))
        except Unfit as error:
            raise DataError(f"can't corrupt {topic}: {error}") from None
        ends = np.cumsum([len(part) for part in parts])
        sounds[topic] = np.split(np.pad(data, (0, int(ends[-1]) - len(data))), ends[:-1])
    return sounds


@contextmanager
def _open_writer(reader: Any, source: Path, target: Path) -> Iterator[tuple[Any, dict[tuple[int, int], Any]]]:
    """Opens a bag like `source` for writing, with the same connections. Raises: DataError."""
    with guard(f"can't write the bag {target}"):
        writer = _make_writer(reader, source, target)
        writer.open()
    try:
        with guard(f"can't write the bag {target}"):
            connections = {(id(one.owner), one.id): _add(reader, writer, one) for one in reader.connections}
        yield writer, connections
    except BaseException:
        with suppress(Exception):
            writer.close()
        raise
    with guard(f"can't write the bag {target}"):
        writer.close()
    if reader.is2 and source.is_file():  # rosbags writes folders
        storage = next(path for path in target.iterdir() if path.suffix == source.suffix)
        bare = storage.replace(target.with_name(f"{target.name}.bare"))
        (target / "metadata.yaml").unlink()
        target.rmdir()
        bare.replace(target)


def _make_writer(reader: Any, source: Path, target: Path) -> Any:
    if not reader.is2:
        from rosbags.rosbag1 import Writer as Writer1

        return Writer1(target)
    from rosbags.rosbag2 import StoragePlugin, Writer

    mcap = any(path.suffix in (".mcap", ".zstd") and ".mcap" in path.name for path in bags.list_bag_files(source))
    return Writer(target, version=8, storage_plugin=StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3)


def _add(reader: Any, writer: Any, connection: Any) -> Any:
    """Adds a connection like another bag's."""
    ext, text = connection.ext, connection.msgdef.data
    if not reader.is2:
        about = {"callerid": ext.callerid, "latching": ext.latching}
        return writer.add_connection(
            connection.topic, connection.msgtype, msgdef=text, md5sum=connection.digest, **about
        )
    return writer.add_connection(
        connection.topic,
        connection.msgtype,
        typestore=reader.typestore,
        serialization_format=ext.serialization_format,
        offered_qos_profiles=ext.offered_qos_profiles,
    )
