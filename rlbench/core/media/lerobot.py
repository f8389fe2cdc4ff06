"""The layout of LeRobot data sets, version 3: metadata in JSON and Parquet, frames in films or in Parquet.

Cadene et al., 2024, https://github.com/huggingface/lerobot; the format: https://huggingface.co/docs/lerobot. It is read
by pyarrow, without lerobot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

from rlbench.core.documents import load_json
from rlbench.core.errors import DataError, quote
from rlbench.core.guard import guard

INFO = "meta/info.json"
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class Camera:
    """A camera of a data set.

    Attributes:
        key: such as "observation.images.front".
        film: whether its frames are in films; otherwise they are pictures in the Parquet files.
        depth: whether its frames are depth maps.
    """

    key: str
    film: bool
    depth: bool


@dataclass(frozen=True)
class Info:
    """What meta/info.json says.

    Attributes:
        root: the data set's folder.
        fps: frames a second.
        cameras: by key.
        data_path: template of the paths of Parquet files.
        video_path: template of the paths of films.
    """

    root: Path
    fps: Fraction
    cameras: dict[str, Camera]
    data_path: str
    video_path: str

    def find_data(self, episode: dict[str, Any]) -> str:
        """The path of an episode's Parquet file, relative to the root. Raises: DataError."""
        return self._fill(self.data_path, episode, "data")

    def find_film(self, episode: dict[str, Any], camera: str) -> str:
        """The path of an episode's film, relative to the root. Raises: DataError."""
        return self._fill(self.video_path, episode, f"videos/{camera}", video_key=camera)

    def _fill(self, template: str, episode: dict[str, Any], where: str, **keys: str) -> str:
        with guard(f"{self.root}: can't fill the path {quote(template)} for episode {episode['episode_index']}"):
            chunk, file = int(episode[f"{where}/chunk_index"]), int(episode[f"{where}/file_index"])
            path = PurePosixPath(template.format(chunk_index=chunk, file_index=file, **keys))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{self.root / INFO}: the path {quote(template)} leaves the folder")
        return str(path)


def is_lerobot(root: Path) -> bool:
    """Whether a folder has the metadata of a LeRobot data set."""
    return (root / INFO).is_file()


def read_info(root: Path) -> Info:
    """Reads meta/info.json. Raises: DataError if it is missing or wrong, or of a version other than 3."""
    path = root / INFO
    if not path.is_file():
        raise DataError(f"{root} has no {INFO}; a LeRobot data set has meta, data and videos")
    with guard(f"can't read {path}"):
        values = load_json(path.read_text(encoding="utf-8"))
        version = str(values["codebase_version"])
    if not version.startswith("v3."):
        raise DataError(f"{path}: the version is {quote(version)}; it must be v3.0: convert it by lerobot's scripts")
    with guard(f"can't read {path}"):
        features = {key: value for key, value in values["features"].items() if value["dtype"] in ("video", "image")}
        cameras = {key: Camera(key, one["dtype"] == "video", _is_depth(one)) for key, one in features.items()}
        fps = Fraction(values["fps"]).limit_denominator(1000)
        templates = str(values.get("data_path") or DATA), str(values.get("video_path") or VIDEO)
    if fps <= 0:
        raise DataError(f"{path}: fps is {fps}; it must be positive")
    return Info(root, fps, cameras, *templates)


def _is_depth(feature: dict[str, Any]) -> bool:
    about = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return bool(about.get("is_depth_map") or about.get("video.is_depth_map"))


def find_camera(info: Info, key: str) -> Camera:
    """Finds a camera; "" for the only one. Raises: DataError, which lists them."""
    known = [one for one in info.cameras.values() if not one.depth]
    found = info.cameras.get(key) if key else known[0] if len(known) == 1 else None
    if found is None or found.depth:
        what = f"has no camera {quote(key)}" if key else f"has {len(known)} cameras; choose one"
        raise DataError(f"{info.root} {what}; its cameras: {', '.join(one.key for one in known) or 'none'}")
    return found


def read_columns(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Any:
    """Reads columns of a Parquet file as a pyarrow table.

    Args:
        path: the file.
        columns: required.
        optional: columns that may be missing.

    Raises:
        DataError: it can't be read, or lacks a column or a value of a required one.
    """
    import pyarrow.parquet as pq

    with guard(f"can't read {path}"), path.open("rb") as file:
        known = set(pq.read_schema(file).names)
    for column in columns:
        if column not in known:
            raise DataError(f"{path} has no column {quote(column)}; a LeRobot data set of version 3 has it")
    with guard(f"can't read {path}"), path.open("rb") as file:
        table = pq.read_table(file, columns=[*columns, *(one for one in optional if one in known)])
    for column in columns:
        if table.column(column).null_count:
            row = table.column(column).is_null().to_pylist().index(True)
            raise DataError(f"{path} has no value of {quote(column)} in row {row}; every row must have one")
    return table


def read_episodes(info: Info, cameras: Sequence[Camera]) -> list[dict[str, Any]]:
    """Reads the rows of meta/episodes that say where an episode's frames are, by episode. Raises: DataError."""
    paths = sorted((info.root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{info.root} has no meta/episodes/*/*.parquet; a LeRobot data set of version 3 has them")
    places = ("chunk_index", "file_index", "from_timestamp")
    films = [f"videos/{one.key}/{place}" for one in cameras if one.film for place in places]
    columns = ["episode_index", "data/chunk_index", "data/file_index", *films]
    rows = [row for path in paths for row in read_columns(path, columns).to_pylist()]
    if not rows:
        raise DataError(f"{info.root} has no episodes")
    return sorted(rows, key=lambda row: int(row["episode_index"]))


def read_names(info: Info, kind: str) -> dict[int, str]:
    """Reads the texts of meta/tasks.parquet or meta/subtasks.parquet by index.

    Args:
        info: of the data set.
        kind: "task" or "subtask".

    Raises:
        DataError: the file can't be read, or has no column of text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = info.root / "meta" / f"{kind}s.parquet"
    with guard(f"can't read {path}"), path.open("rb") as file:
        table = pq.read_table(file)
        texts = [one.name for one in table.schema if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)]
        numbers = table.column(f"{kind}_index").to_pylist()
        # pandas stores the text as an index, whose column has one of several names.
        return dict(zip(numbers, table.column(texts[0]).to_pylist(), strict=True))
