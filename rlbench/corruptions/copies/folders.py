"""Corrupted copies of folders: trees of pictures, sounds, films and bags, and LeRobot data sets."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlbench.core.errors import DataError
from rlbench.core.guard import guard
from rlbench.core.media import lerobot
from rlbench.core.media.bags import is_bag
from rlbench.core.media.clips import FILMS
from rlbench.core.media.samples import WRITTEN as FORMATS
from rlbench.core.media.samples import decode_samples, encode_samples
from rlbench.core.media.sounds import SOUNDS
from rlbench.core.media.stills import PICTURES
from rlbench.corruptions.copies import files, films
from rlbench.corruptions.copies.bags import copy_bag
from rlbench.corruptions.copies.corruptor import Corruptor, Unfit
from rlbench.corruptions.copies.tally import Tally

Copier = Callable[[Path, Path, Corruptor, str, Tally], int]  # writes a corrupted copy; how many frames or files


def copy_file(source: Path, target: Path, corruptor: Corruptor, tally: Tally, name: str) -> None:
    """Copies a file, corrupted where the corruption fits, and counts it.

    Args:
        source: the file.
        target: of the copy.
        corruptor: what to do.
        tally: counts it by kind.
        name: its path, which random draws and `only` depend on.

    Raises:
        DataError: it is damaged, or can't be written.
    """
    suffix = source.suffix.lower()
    if suffix in PICTURES and corruptor.pictures:
        _copy_or_leave(_copy_picture, "pictures", source, target, corruptor, name, tally)
    elif suffix in FILMS and (corruptor.pictures or corruptor.clips):
        _copy_or_leave(_copy_film, "frames of films", source, target, corruptor, name, tally)
    elif suffix in SOUNDS and corruptor.sounds:
        _copy_or_leave(_copy_sound, "sounds", source, target, corruptor, name, tally)
    else:
        _leave(source, target)
        tally.copied["files of other kinds"] += 1


def _leave(source: Path, target: Path) -> None:
    """Copies a file as it is. Raises: DataError: it can't be read or written, such as a link to nothing."""
    with guard(f"can't copy {source}"):
        shutil.copy2(source, target)


def _copy_or_leave(
    copy: Copier, what: str, source: Path, target: Path, corruptor: Corruptor, name: str, tally: Tally
) -> bool:
    """Corrupts a file, or copies it unchanged where that can't be, and counts it. Whether it was corrupted."""
    try:
        if not corruptor.chooses(name):
            raise Unfit("left out by --only")
        tally.corrupted[what] += copy(source, target, corruptor, name, tally)
    except Unfit as error:
        target.unlink(missing_ok=True)
        _leave(source, target)
        tally.copied[f"files ({error})"] += 1
        return False
    return True


def _copy_picture(source: Path, target: Path, corruptor: Corruptor, name: str, tally: Tally) -> int:
    files.copy_picture(source, target, corruptor, name)
    return 1


def _copy_sound(source: Path, target: Path, corruptor: Corruptor, name: str, tally: Tally) -> int:
    if source.suffix.lower() not in files.SOUNDS:
        raise Unfit(f"{source.suffix} is not written; convert it to {files.SOUNDS[0]}")
    files.copy_sound(source, target, corruptor, name)
    return 1


def _copy_film(source: Path, target: Path, corruptor: Corruptor, name: str, tally: Tally) -> int:
    if source.suffix.lower() not in films.WRITTEN:
        raise Unfit(f"{source.suffix} is not written; convert it to {films.WRITTEN[0]}")
    return films.copy_film(source, target, corruptor, name, lambda done: tally.advance(done, 0, "frames"))


def _list_tree(root: Path) -> list[Path]:
    """Every file, bag's folder and LeRobot data set below a folder, sorted; links are followed. Raises: DataError."""
    found = []
    for folder, names, entries in os.walk(root, onerror=_fail, followlinks=True):
        whole = {name for name in names if is_bag(Path(folder, name)) or lerobot.is_lerobot(Path(folder, name))}
        found += [Path(folder, name) for name in whole]
        names[:] = [name for name in names if name not in whole]
        found += [Path(folder, name) for name in sorted(entries)]
        if len(Path(folder).parts) - len(root.parts) > 64:
            raise DataError(f"{folder} is nested too deeply; is a link its own parent?")
    return sorted(found)


def _fail(error: OSError) -> None:
    raise DataError(f"can't read the folder {error.filename}: {error.strerror}")


def _copy_tree(root: Path, target: Path, tally: Tally) -> Iterator[tuple[Path, Path, str]]:
    """Yields each file, the path of its copy, whose folder exists, and its name."""
    paths = _list_tree(root)
    target.mkdir()
    for done, path in enumerate(paths):
        tally.advance(done, len(paths), "files")
        name = path.relative_to(root)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        yield path, target / name, name.as_posix()


def copy_folder(source: Path, target: Path, corruptor: Corruptor, tally: Tally) -> None:
    """Copies a folder with its pictures, sounds, films, bags and LeRobot data sets corrupted; other files as they are.

    Args:
        source: the folder.
        target: of the copy, which does not exist.
        corruptor: what to do.
        tally: counts files.

    Raises:
        DataError: a file is damaged, or can't be written.
    """
    for path, copy, name in _copy_tree(source, target, tally):
        if is_bag(path):
            copy_bag(path, copy, corruptor, tally)
        elif path.is_dir():
            copy_lerobot(path, copy, corruptor, tally)
        else:
            copy_file(path, copy, corruptor, tally, name)


def copy_lerobot(source: Path, target: Path, corruptor: Corruptor, tally: Tally) -> None:
    """Copies a LeRobot data set with its cameras corrupted.

    Numbers, labels and statistics stay those of the original; info.json says the codec of the new films.

    Args:
        source: the data set.
        target: of the copy, which does not exist.
        corruptor: what to do; its `only` names cameras.
        tally: counts frames.

    Raises:
        DataError: the data set can't be read or written.
    """
    info = lerobot.read_info(source)
    cameras = [one for one in info.cameras.values() if not one.depth and corruptor.chooses(one.key)]
    fits = corruptor.pictures or corruptor.clips
    stored = [one.key for one in cameras if not one.film and corruptor.pictures]
    changed: set[str] = set()
    for path, copy, name in _copy_tree(source, target, tally):
        camera = next((one.key for one in cameras if one.film and name.startswith(f"videos/{one.key}/")), None)
        if camera is not None and fits and path.suffix == ".mp4":
            if _copy_or_leave(_copy_film, f"frames of {camera}", path, copy, corruptor, camera, tally):
                changed.add(camera)
        elif stored and name.startswith("data/") and path.suffix == ".parquet":
            _copy_stored(path, copy, corruptor, tally, stored)
        else:
            _leave(path, copy)
            tally.copied["files"] += 1
    _state_codec(target / lerobot.INFO, changed)


def _copy_stored(source: Path, target: Path, corruptor: Corruptor, tally: Tally, cameras: list[str]) -> None:
    """Copies a Parquet file with the pictures of some columns corrupted; its schema, with pandas' notes, is kept."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with guard(f"can't read {source}"), source.open("rb") as file:
        table = pq.read_table(file)
    for camera in cameras:
        if camera in table.column_names:
            column, field = table.column(camera), table.schema.field(camera)
            rows = [
                _change_row(row, f"{camera} {k}", corruptor, tally, camera) for k, row in enumerate(column.to_pylist())
            ]
            table = table.set_column(table.column_names.index(camera), field, pa.array(rows, field.type))
    with guard(f"can't write {target}"):
        pq.write_table(table, target)


def _change_row(row: Any, moment: str, corruptor: Corruptor, tally: Tally, camera: str) -> Any:
    """A row's picture, corrupted: a mapping with its bytes."""
    if not row or not row.get("bytes"):
        tally.copied[f"frames of {camera} (not in the file)"] += 1
        return row
    samples = decode_samples(f"{camera}, frame {moment}", row["bytes"])
    try:
        if samples.format not in FORMATS:
            raise Unfit(samples.format)
        pixels = corruptor.change_picture(samples.pixels, camera, moment)
    except Unfit as error:
        tally.copied[f"frames of {camera} ({error})"] += 1
        return row
    tally.corrupted[f"frames of {camera}"] += 1
    return {**row, "bytes": encode_samples(samples._replace(pixels=pixels))}


def _state_codec(path: Path, cameras: set[str]) -> None:
    """Writes the codec of new films into info.json, where it says one."""
    values = json.loads(path.read_text(encoding="utf-8"))
    for camera in cameras:
        about = values["features"][camera].get("info") or {}
        for key, value in (("video.codec", films.CODEC), ("video.pix_fmt", films.PIXELS)):
            if key in about:
                about[key] = value
    path.write_text(json.dumps(values, indent=4, ensure_ascii=False), encoding="utf-8")
