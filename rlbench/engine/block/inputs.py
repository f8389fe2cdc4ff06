"""Inputs before any attack: a task's examples, clean or corrupted, with a cache of the corrupted ones.

Corrupted inputs do not depend on the model, and some cost more time than the model itself. So they are cached in a
folder, one file per block (see `input_files`). It holds plain files because SQLite is unreliable on network file
systems, and a lost file only has to be computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import RLock
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from rlbench.core import Box, Corrupted, Edited, Examples, Missing, Split, Streams, Task, registry
from rlbench.core.errors import AttackError, DataError, FieldError
from rlbench.core.seeds import ExampleStreams
from rlbench.encoders.settings import keep_settings
from rlbench.engine.block.input_files import is_usable, read_block, write_block
from rlbench.engine.cells.keys import plugin_values

LIBRARIES = ("av", "imagecorruptions-imaug", "numpy", "pillow", "scipy", "soundfile", "torch")  # of corruptions, tasks
MEMORY = 4 << 30  # bytes of blocks held in memory, not counting the newest
ALONE = 1e-4  # how far values of a corrupted example may be from those without the rest of its batch: rounding
_HELD: dict[tuple[object, ...], Examples] = {}  # the last few blocks of this process
_MAKING = RLock()  # one thread at a time makes inputs


@runtime_checkable
class Recorded(Protocol):
    """An audio task that also gives waveforms, so that corruptions can act before the front end computes the box.

    `hear(waves(box, a, b), box)` equals `load(box, a, b).x` bit for bit where no sample exceeds full scale.
    """

    def rate_of(self, box: Box) -> int:
        """Sample rate of its waveforms, in Hz."""

    def waves(self, box: Box, start: int, stop: int, split: Split = "test") -> Tensor:
        """(B, 1, samples) float64 in [0, 1], silence at 1/2: the waveforms from which `load` computes the examples."""

    def hear(self, waves: Tensor, box: Box) -> Tensor:
        """Waveforms -> (B, *box.shape) in the box, as `load` does."""


@dataclass(frozen=True)
class Inputs:
    """The test examples of a task in a box, clean and corrupted.

    Attributes:
        task: the task.
        data: the task's fingerprint.
        box: the encoder's box.
        seed: the seed of the corruptions.
        folder: the cache of corrupted inputs; None for no cache.
    """

    task: Task
    data: str
    box: Box
    seed: int
    folder: Path | None = None

    def load(self, start: int, stop: int) -> Examples:
        """Examples start..stop-1. Raises: DataError, also for inputs outside the box."""
        return self.hold(start, stop, lambda: self.task.load(self.box, start, stop))

    def hold(self, start: int, stop: int, make: Callable[[], Examples]) -> Examples:
        """Examples start..stop-1, made only if memory does not hold them; they must lie in the box."""
        name = (type(self.task).__name__, self.data, self.box, start, stop)
        if (examples := _HELD.get(name)) is not None:
            return examples
        with _MAKING:
            if name not in _HELD:
                examples = make()
                check_examples(examples, self.box, start, stop)
                while len(_HELD) >= 8 or sum(held.x.nbytes for held in _HELD.values()) > MEMORY:
                    del _HELD[next(iter(_HELD))]
                _HELD[name] = examples
            return _HELD[name]

    def prepare(self, corrupted: Corrupted | Missing | Edited | None, start: int, stop: int) -> None:
        """Loads examples start..stop-1 into memory and, where there is a cache, their corrupted ones into it."""
        self.load(start, stop)
        if isinstance(corrupted, Corrupted | Missing) and self.folder is not None and is_usable(self.folder):
            self.load_corrupted(corrupted, start, stop)

    def load_corrupted(self, corrupted: Corrupted | Missing, start: int, stop: int) -> Tensor:
        """Examples start..stop-1, corrupted: (B, *box.shape) float32 in the box, on the CPU.

        Raises: AttackError when the corruption crashes or breaks its contract, so that its cell is failed.
        """
        assert isinstance(corrupted, Corrupted)
        if self.folder is None:
            return self._corrupt(corrupted, start, stop)
        file, shape = self.folder / f"{self._key(corrupted, start, stop)}.zst", (stop - start, *self.box.shape)
        x = read_block(file, shape, self.box)
        if x is None:
            with _MAKING:
                x = read_block(file, shape, self.box)
                if x is None:
                    x = self._corrupt(corrupted, start, stop)
                    write_block(file, x, self.box)
        return x

    def _key(self, corrupted: Corrupted, start: int, stop: int) -> str:
        values = plugin_values("corruption", corrupted.corruption, corrupted.fields)
        facts = [
            type(self.task).__name__,
            self.data,
            self.box.facts(),
            start,
            stop,
            values,
            corrupted.severity,
            self.seed,
            _sources(),
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def load_sounds(self, corrupted: Corrupted, start: int, stop: int) -> tuple[list[Tensor], int] | None:
        """Corrupts waveforms; None if the corruption acts on the box instead.

        Args:
            corrupted: the corruption.
            start: index of the first example.
            stop: index after the last example.

        Returns:
            A waveform (1, 1, samples) in [0, 1] per example, since recordings may differ in length, and the rate in Hz.

        Raises:
            AttackError: the task has no waveforms, or the corruption crashes or breaks its contract.
        """
        corruption, task = self.make_corruption(corrupted), self.task
        if getattr(corruption, "acts_on", "") != "waveform":
            return None
        if not isinstance(task, Recorded):
            raise AttackError(f"{corrupted.corruption} acts on waveforms, which {type(task).__name__} does not have")
        streams = self._streams(corrupted, start, stop)
        waves = (task.waves(self.box, i, i + 1) for i in range(start, stop))
        found = [_unit(corruption, corrupted, wave, streams.take([k])) for k, wave in enumerate(waves)]
        return found, task.rate_of(self.box)

    def make_corruption(self, corrupted: Corrupted) -> Any:
        """The corruption, with the sample rate of the task's waveforms where it has a field `rate`."""
        corruption = registry.make("corruption", corrupted.corruption, corrupted.fields)
        rated = is_dataclass(corruption) and any(field.name == "rate" for field in fields(corruption))
        if not rated or not isinstance(self.task, Recorded):
            return corruption
        return replace(corruption, rate=self.task.rate_of(self.box))

    def explain_misfit(self, corrupted: Corrupted) -> str:
        """Why a corruption can't act on these inputs, or "": known before any is loaded."""
        try:
            corruption = self.make_corruption(corrupted)
        except FieldError as error:  # such as a rate that is too low
            return str(error)
        acts_on, smallest = getattr(corruption, "acts_on", ""), getattr(corruption, "smallest", 1)
        if acts_on not in ("", "waveform", self.box.unit):
            return f"{corrupted.corruption} acts on {acts_on}; the encoder's box is {self.box.unit}"
        height, width = self.box.shape[-2:]
        if min(height, width) < smallest:
            least = f"{smallest} x {smallest}"
            return f"{corrupted.corruption} needs a box of {least} pixels or more; the encoder's is {height} x {width}"
        return ""

    def _streams(self, corrupted: Corrupted, start: int, stop: int) -> Streams:
        return ExampleStreams(self.seed, self.load(start, stop).ids, str(corrupted))

    def _corrupt(self, corrupted: Corrupted, start: int, stop: int) -> Tensor:
        sounds, task = self.load_sounds(corrupted, start, stop), self.task
        if sounds is None:
            return corrupt(self.load(start, stop).x, corrupted, self.box, self._streams(corrupted, start, stop))
        assert isinstance(task, Recorded)
        x = torch.cat([task.hear(wave, self.box) for wave in sounds[0]])
        check_examples(replace(self.load(start, stop), x=x), self.box, start, stop)
        return x


def corrupt(x: Tensor, corrupted: Corrupted, box: Box, streams: Streams) -> Tensor:
    """x (B, *shape) in the box, perturbed in the unit box and mapped back. Raises: AttackError."""
    corruption = registry.make("corruption", corrupted.corruption, corrupted.fields)
    acts_on = getattr(corruption, "acts_on", "") or box.unit
    if acts_on != box.unit:
        raise AttackError(f"{corrupted.corruption} acts on {acts_on}; the encoder's box is {box.unit}")
    span = box.high - box.low
    out = _unit(corruption, corrupted, ((x - box.low) / span).clamp(0, 1), streams)
    return (box.low + span * out).clamp(box.low, box.high)


def _unit(corruption: Any, corrupted: Corrupted, x: Tensor, streams: Streams) -> Tensor:
    """Corrupts x in [0, 1], and checks the result; of another package's corruption, also that it is the same alone.

    Raises: AttackError.
    """
    out = _call(corruption, corrupted, x, streams)
    own = type(corruption).__module__.partition(".")[0] != __name__.partition(".")[0]
    if own and len(x):
        last = len(x) - 1
        alone = _call(corruption, corrupted, x[last:], streams.take([last]))
        if not torch.allclose(alone, out[last:], rtol=0, atol=ALONE):
            raise AttackError(
                f"{corrupted.corruption} changes an example in another way when it is alone: it may not depend on the "
                "batch, and its random numbers must come from streams"
            )
    return out


def _call(corruption: Any, corrupted: Corrupted, x: Tensor, streams: Streams) -> Tensor:
    """What a corruption makes of x in [0, 1]. Raises: AttackError: it crashes, or breaks its contract."""
    name = corrupted.corruption
    try:
        with keep_settings(name):
            out = corruption(x.clone(), corrupted.severity, streams)
    except (Exception, SystemExit) as error:
        raise AttackError(f"{name} crashed: {type(error).__name__}: {error}") from error
    if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != x.dtype:
        shape = f"{tuple(out.shape)} {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        raise AttackError(f"{name} returned {shape}; x is {tuple(x.shape)} {x.dtype}")
    if not torch.isfinite(out).all() or out.min() < 0 or out.max() > 1:
        raise AttackError(f"{name} left the box or is not finite")
    return out


def check_examples(examples: Examples, box: Box, start: int, stop: int) -> None:
    """Raises: DataError: they are not examples start..stop-1, or leave the box."""
    x = examples.x
    if x.shape != (stop - start, *box.shape) or len(examples.ids) != stop - start:
        raise DataError(f"the task returned {tuple(x.shape)} for examples {start} to {stop} of {box.shape}")
    if not (torch.isfinite(x).all() and x.min() >= box.low and x.max() <= box.high):
        raise DataError(f"inputs {start} to {stop} leave the box [{box.low}, {box.high}] or are not finite")


@cache
def _sources() -> str:
    """A hash of rlbench's corruptions and tasks and their libraries' versions, so that cached inputs are current."""
    root = Path(__file__).parents[2]
    files = sorted(path for part in ("corruptions", "tasks") for path in (root / part).rglob("*.py"))
    data = [path.read_bytes() for path in files]
    data += [f"{library} {_version_of(library)}".encode() for library in LIBRARIES]
    return hashlib.sha256(b"".join(data)).hexdigest()[:16]


def _version_of(library: str) -> str:
    """The version of a library; "" if it is installed under another name."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""
