"""Robots' bags: messages of a topic as examples, labelled by intervals of time.

Of every 1 / `per_second` seconds since a bag's first message, the first message of the topic inside of an interval is
an example; a stretch without messages has none. Its id is bag, topic and log time in ns, and its source is the bag. No
standard of ROS for labels was found. Message types: https://docs.ros.org/en/api/sensor_msgs/html/index-msg.html.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlbench.core import Box, Modality, Split
from rlbench.core.errors import DataError, FieldError
from rlbench.core.media import bags, filterbank, preprocess
from rlbench.core.media.samples import lies_outside, scale_to_unit
from rlbench.core.media.sounds import RATES, Sound, fit_sound, render_waveform
from rlbench.core.media.stills import pixels
from rlbench.core.registry import register
from rlbench.tasks.hashes import hash_files
from rlbench.tasks.intervals import SECOND, Interval, check_times, describe_time, find_interval, read_intervals
from rlbench.tasks.published import Item, Source
from rlbench.tasks.robots import Robot

T = TypeVar("T")
Read = Callable[[Any, Sequence[Any], Item], T]  # reads an example of an open bag with its topic's connections
Message = tuple[int, int]  # log time in ns, and bytes of sound
TEMPLATES: Mapping[str, str] = {
    "image": "a photo of {a}.",
    "thermal": "a thermal image of {a}.",
    "audio": "a sound of {a}.",
}
_LOOKS = 8  # examples whose counts are compared with the range before a run
_WHOLE = 0.9  # share of a window of sound that its messages must fill


@dataclass(frozen=True, kw_only=True)
class Bags(Robot):
    """The task of a folder of bags.

    Attributes:
        medium: what the topic has.
        topic: of the messages.
        labels: the file of intervals, in the folder.
        clock: what the intervals' times count from: a bag's first message, or 1970.
        per_second: examples a second, at most.
        limits: the 16-bit counts that are black and white.
        channels: of sound.
    """

    medium: Modality
    topic: str
    labels: str
    clock: Literal["bag", "epoch"]
    per_second: float
    limits: tuple[float, ...] | None
    channels: int
    given: Mapping[str, str] | tuple[str, ...] | None
    prompts: tuple[str, ...]
    rate: int = 0
    seconds: float = field(default=1.0)

    source: ClassVar[Source] = Source(
        title="a folder of bags", url="your own", licence="your own", folder="", layout="bags, and their labels"
    )

    def __post_init__(self) -> None:
        limits = self.limits
        if not 0 < self.per_second <= 1000:
            raise FieldError(f"rosbag: per_second is {self.per_second}; it must be above 0, up to 1000", "per_second")
        if not 0 < self.seconds <= 600:
            raise FieldError(f"rosbag: seconds is {self.seconds}; it must be above 0, up to 600", "seconds")
        if limits is not None and (len(limits) != 2 or not limits[0] < limits[1] or self.medium == "audio"):
            must = "it must be two numbers, the smaller first, and is for images"
            raise FieldError(f"rosbag: range is {list(limits)}; {must}", "range")
        if self.medium == "audio" and not (RATES[0] <= self.rate <= RATES[1] and 1 <= self.channels <= 16):
            raise FieldError(f"rosbag: rate is {self.rate}, channels {self.channels}; give those of the sound", "rate")
        _ = self.folder  # raises DataError if it is missing

    @cached_property
    def _intervals(self) -> dict[str, list[Interval]]:
        path = self.folder / self.labels
        if not path.is_file():
            raise DataError(f"there is no {path}; its lines bag,start,end,label say what is where in the bags")
        return read_intervals(path)

    def list_labels(self) -> Iterator[str]:
        return (one.label for intervals in self._intervals.values() for one in intervals)

    def list_items(self, split: Split) -> list[Item]:
        if split != "test":
            return []
        self._unused.clear()
        self._unused[f"bags that {self.labels} does not name"] = bags.count_others(self.folder, self._intervals)
        return [item for bag, intervals in sorted(self._intervals.items()) for item in self._list_bag(bag, intervals)]

    def _list_bag(self, bag: str, intervals: Sequence[Interval]) -> Iterator[Item]:
        """Yields the examples of a bag: of every 1 / `per_second` seconds since its start, the first labelled one."""
        step, seen = Fraction(self.per_second).limit_denominator(10**6), -1
        with bags.open_bag(self.folder / bag) as reader:
            zero = reader.start_time if self.clock == "bag" else 0
            first, last = reader.start_time - zero, reader.end_time - zero
            check_times(intervals, self.folder / bag, first, last, self.clock)
            for stamp, interval in self._list_labelled(reader, bag, zero, intervals):
                turn = int((stamp - reader.start_time) * step / SECOND)
                if turn > seen:
                    seen = turn
                    item = Item(f"{bag}:{self.topic}@{stamp}", bag, interval.label, bag)
                    self._stamps[item.id] = stamp
                    yield item

    def _list_labelled(
        self, reader: Any, bag: str, zero: int, intervals: Sequence[Interval]
    ) -> Iterator[tuple[int, Interval]]:
        """Yields the log times in ns of messages inside of intervals; those of sound begin a window without gaps."""
        path = self.folder / bag
        found = bags.read_messages(reader, path, self._find_topic(reader, path))
        sound = self.medium == "audio"
        messages = [(stamp, self._count_bytes(reader, one, raw) if sound else 0) for one, stamp, raw in found]
        self._check_messages([stamp - zero for stamp, _ in messages], intervals, path)
        sums = [0, *accumulate(size for _, size in messages)]
        for k, (stamp, _) in enumerate(messages):
            interval = find_interval(intervals, stamp - zero)
            if interval is None:
                self._unused["messages outside of all intervals"] += 1
            elif not sound:
                yield stamp, interval
            elif stamp - zero + self._window > interval.end:
                self._unused["messages of sound too near to an interval's end"] += 1
            elif sums[bisect_left(messages, (stamp + self._window, 0))] - sums[k] < _WHOLE * self._window_bytes:
                self._unused["messages of sound before a gap"] += 1
            else:
                yield stamp, interval

    def _check_messages(self, stamps: Sequence[int], intervals: Sequence[Interval], path: Path) -> None:
        """Raises: DataError: a bag has no message of the topic at all, or none in any interval."""
        if not stamps:
            raise DataError(f"{path}: the topic {self.topic} has no messages; take the bag out of {self.labels}")
        if not any(find_interval(intervals, stamp) for stamp in stamps):
            raise DataError(
                f"{path}: none of the {len(stamps):,} messages of {self.topic} lies in an interval of {self.labels}: "
                f"they are from {describe_time(stamps[0])} to {describe_time(stamps[-1])}"
            )

    def _find_topic(self, reader: Any, path: Path) -> list[Any]:
        return bags.find_topic(reader, path, self.topic, bags.SOUNDS if self.medium == "audio" else bags.PICTURES)

    def _count_bytes(self, reader: Any, connection: Any, raw: bytes) -> int:
        return len(bags.get_sound(bags.parse_message(reader, connection, raw, f"a message of {self.topic}")).data)

    @property
    def _window(self) -> int:
        """ns of sound of an example."""
        return round(self.seconds * SECOND)

    @property
    def _window_bytes(self) -> int:
        return round(self.seconds * self.rate) * self.channels * 2

    @cached_property
    def _stamps(self) -> dict[str, int]:
        """Log times in ns by the examples' ids."""
        return {}

    def _visit(self, items: Sequence[Item], read: Read[T]) -> list[T]:
        """Reads examples, and opens every bag once."""
        found: dict[str, T] = {}
        for bag in sorted({item.path for item in items}):
            path = self.folder / bag
            with bags.open_bag(path) as reader:
                connections = self._find_topic(reader, path)
                for item in items:
                    if item.path == bag:
                        found[item.id] = read(reader, connections, item)
        return [found[item.id] for item in items]

    def _read_messages(self, reader: Any, connections: Sequence[Any], item: Item, length: int) -> Iterator[Any]:
        stamp, path = self._stamps[item.id], self.folder / item.path
        for one, _, raw in bags.read_messages(reader, path, connections, stamp, stamp + length):
            yield bags.parse_message(reader, one, raw, item.id)

    def _decode(self, reader: Any, connections: Sequence[Any], item: Item) -> np.ndarray:
        """The pixels (H, W, C) of an example, uint8 or uint16. Raises: DataError: 8 bits, although range is given."""
        pixels = bags.decode_picture(next(self._read_messages(reader, connections, item, 1)), item.id).pixels
        if pixels.dtype == np.uint8 and self.limits is not None:
            raise DataError(f"{item.id} has 8 bits, and range is for 16; leave range out, or name a topic of 16 bits")
        return pixels

    def _read_wave(self, reader: Any, connections: Sequence[Any], item: Item, box: Box) -> tuple[np.ndarray, int]:
        """The part of a window of sound that a box takes, (samples,), and its rate."""
        messages = self._read_messages(reader, connections, item, self._window)
        content = b"".join(bytes(bags.get_sound(message).data) for message in messages)
        wave = bags.decode_sound(content[: self._window_bytes], self.channels)
        sound: Sound = wave.mean(1), wave[:, 0], self.rate
        return fit_sound(sound, item.id, box, rate=self.rate, seconds=self.seconds)

    def _read(self, reader: Any, connections: Sequence[Any], item: Item, box: Box) -> np.ndarray:
        if self.medium == "audio":
            return render_waveform(*self._read_wave(reader, connections, item, box), box)
        unit = scale_to_unit(self._decode(reader, connections, item), self.limits, item.id)
        levels = np.round(unit * 255).astype(np.uint8)
        return pixels(Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels), box)

    def read_all(self, items: Sequence[Item], box: Box) -> list[np.ndarray]:
        """Reads examples, and opens every bag once; see `read`."""
        return self._visit(items, lambda reader, found, one: self._read(reader, found, one, box))

    def load_waves(self, box: Box, start: int, stop: int, split: Split) -> list[Tensor]:
        """Reads the waveforms of examples start..stop-1, each (1, samples) in [-1, 1]. Raises: DataError."""
        read = self._visit(
            self.items(split)[start:stop], lambda reader, found, one: self._read_wave(reader, found, one, box)
        )
        waves = [(torch.from_numpy(wave)[None], rate) for wave, rate in read]
        fbank = box.unit == "fbank"
        return [preprocess.resample(wave, rate, filterbank.RATE) if fbank else wave for wave, rate in waves]

    def notes(self) -> tuple[str, ...]:
        """Notes as of every robot. Raises: DataError, also if the first examples do not fit the range."""
        found, items = super().notes(), self.items()[:_LOOKS]
        if items and self.limits and all(lies_outside(x, self.limits) for x in self._visit(items, self._decode)):
            raise DataError(
                f"{self.folder}: the first {len(items)} examples of {self.topic} lie outside of range, "
                f"{list(self.limits)}, so that they would be black or white; give the counts of the scene"
            )
        return found

    def fingerprint(self) -> str:
        """A hash of the fields, the classes, the examples' ids and labels, and the bags' bytes."""
        values = [getattr(self, one.name) for one in fields(self) if one.name != "root"]
        digest = hashlib.sha256(f"rosbag 1 {values} {[one.label for one in self.classes]}\n".encode())
        for item in self.items():
            digest.update(f"{item.id} {item.label}\n".encode())
        files = [path for bag in sorted(self._intervals) for path in bags.list_bag_files(self.folder / bag)]
        hashes = hash_files(files)
        for path in files:
            digest.update(hashes[path])
        return digest.hexdigest()[:16]


@register("task", "rosbag")
def rosbag(
    *,
    data: str,
    topic: str,
    modality: Literal["image", "thermal", "audio"],
    labels: str = "labels.csv",
    clock: Literal["bag", "epoch"] = "bag",
    per_second: float = 1.0,
    range: tuple[float, ...] | None = None,
    rate: int = 0,
    channels: int = 1,
    seconds: float = 1.0,
    classes: Mapping[str, str] | tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
) -> Bags:
    """A folder of ROS bags (ROS 1 and 2; .bag, .mcap, .db3), labelled by intervals of time; needs the package rosbags.

    Args:
        data: the folder of the bags and of `labels`.
        topic: of messages of type Image or CompressedImage, or, for sound, AudioData or AudioDataStamped.
        modality: what the topic has.
        labels: a CSV or YAML file of intervals [start, end) in seconds, bag,start,end,label; `bag` is a path in `data`.
        clock: what times count from: "bag", a bag's first message of any topic; "epoch", 1970, as log times do.
        per_second: examples a second, at most.
        range: two counts, which a 16-bit image shows as black and as white; between them are 256 levels.
        rate: samples a second of sound, signed 16-bit little-endian; AudioData does not say it.
        channels: of sound, interleaved.
        seconds: the length of an example of sound, which must lie in one interval.
        classes: names by label, or labels, whose names have spaces for underscores; default: the labels, sorted.
        templates: prompt templates; default: one for the modality.

    Raises:
        FieldError, DataError: a value is not allowed, or there is no such folder; bags are checked when they are read.
    """
    return Bags(
        root=data,
        medium=modality,
        topic=topic,
        labels=labels,
        clock=clock,
        per_second=per_second,
        limits=range,
        rate=rate,
        channels=channels,
        seconds=seconds,
        given=classes,
        prompts=templates or (TEMPLATES[modality],),
    )
