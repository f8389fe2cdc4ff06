"""Writes small LeRobot data sets of version 3 for tests: Parquet by pandas and pyarrow, films by PyAV."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from films import write_film
from PIL import Image

FPS = 10  # of `write_film`
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
TASKS = ("pick up the cube", "open the drawer")


def draw_frame(number: int, side: int = 32) -> np.ndarray:
    """A grey (side, side, 3) frame whose level is five times the number, below 255."""
    return np.full((side, side, 3), 5 * (number % 50), np.uint8)


def write_set(
    root: Path,
    lengths: Sequence[int] = (20, 10),
    *,
    cameras: Sequence[str] = (FRONT,),
    stored: str = "video",
    side: int = 32,
    subtasks: Sequence[tuple[float, str]] = (),
) -> Path:
    """Writes a data set whose episodes share one Parquet file and one film per camera.

    Args:
        root: its folder.
        lengths: frames of each episode; the tasks alternate.
        cameras: their keys. The level of a frame counts through the episodes; see `draw_frame`.
        stored: "video" or "image".
        side: of a frame, in pixels.
        subtasks: (seconds, text) of each episode's `language_persistent`; none for no such column.
    """
    total = sum(lengths)
    for folder in ("data/chunk-000", "meta/episodes/chunk-000"):
        (root / folder).mkdir(parents=True)
    frames = [draw_frame(k, side) for k in range(total)]
    rows = [(e, k) for e, length in enumerate(lengths) for k in range(length)]
    columns: dict[str, Any] = {
        "timestamp": pa.array([k / FPS for _, k in rows], pa.float32()),
        "frame_index": [k for _, k in rows],
        "episode_index": [e for e, _ in rows],
        "index": list(range(total)),
        "task_index": [e % len(TASKS) for e, _ in rows],
    }
    if subtasks:
        said = [
            {"role": "assistant", "content": text, "style": "subtask", "timestamp": at, "camera": None}
            for at, text in subtasks
        ]
        columns["language_persistent"] = [[*said, {**said[0], "style": "plan", "content": "no subtask"}]] * total
    if stored == "image":
        for key in cameras:
            columns[key] = [{"bytes": _encode(frame), "path": None} for frame in frames]
    else:
        for key in cameras:
            path = root / "videos" / key / "chunk-000" / "file-000.mp4"
            write_film(path, frames, "libx264", pix_fmt="yuv420p")
    pq.write_table(pa.table(columns), root / "data/chunk-000/file-000.parquet")
    _write_meta(root, lengths, cameras, stored, side)
    return root


def _encode(frame: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def _write_meta(root: Path, lengths: Sequence[int], cameras: Sequence[str], stored: str, side: int) -> None:
    feature = {"dtype": stored, "shape": [side, side, 3], "names": ["height", "width", "channels"]}
    info = {"codebase_version": "v3.0", "fps": FPS, "features": dict.fromkeys(cameras, feature)}
    if stored == "video":
        for key in cameras:
            info["features"][key] = {**feature, "info": {"video.codec": "av1", "video.pix_fmt": "yuv420p"}}
    (root / "meta/info.json").write_text(json.dumps(info))
    pd.DataFrame({"task_index": range(len(TASKS))}, index=list(TASKS)).to_parquet(root / "meta/tasks.parquet")
    starts = np.cumsum([0, *lengths])
    episodes: dict[str, Any] = {
        "episode_index": list(range(len(lengths))),
        "length": list(lengths),
        "data/chunk_index": [0] * len(lengths),
        "data/file_index": [0] * len(lengths),
    }
    if stored == "video":
        for key in cameras:
            episodes[f"videos/{key}/chunk_index"] = [0] * len(lengths)
            episodes[f"videos/{key}/file_index"] = [0] * len(lengths)
            episodes[f"videos/{key}/from_timestamp"] = (starts[:-1] / FPS).tolist()
            episodes[f"videos/{key}/to_timestamp"] = (starts[1:] / FPS).tolist()
    pq.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
