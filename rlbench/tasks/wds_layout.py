"""Reads CLIP_benchmark's layout of a webdataset: lists of classes and templates, and shards of pictures and labels.

    classnames.txt                          line i names class i; a blank line is a class without a name
    zeroshot_classification_templates.txt   one a line, {c} stands for the class name
    dataset_type.txt                        classification (also if the file is missing), retrieval or multilabel
    test/nshards.txt                        the number of shards
    test/0.tar, test/1.tar, ...             s0000000.webp, s0000000.cls, ...: a picture and what belongs to it

A label (.cls) is a number from 0 on, captions (.txt) are one a line, where a backslash and n stand for a line break.
Nothing is unpickled or extracted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlbench.core import Label
from rlbench.core.errors import DataError, find_hidden, quote
from rlbench.core.media.stills import list_suffixes
from rlbench.tasks.lists import read_lines, read_text
from rlbench.tasks.tar_index import Index, Member, index_tars
from rlbench.tasks.wds_sets import Kind

SHARDS = 100_000  # at most
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_ENDINGS: dict[Kind, str] = {"classification": "cls", "retrieval": "txt"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture in a shard, and the text of its label or captions.

    Attributes:
        key: what the names of its members have in common.
        shard: path of the tar, relative to the folder.
        picture: its member.
        text: contents of the member with the label or captions, and its name.
    """

    key: str
    shard: str
    picture: Member
    text: str
    text_name: str


def read_kind(folder: Path) -> Kind:
    """Reads what the labels are. Raises: DataError."""
    path = folder / "dataset_type.txt"
    kind = read_text(path).strip().lower() if path.is_file() else "classification"
    if kind not in (*_ENDINGS, "multilabel"):
        raise DataError(f"{path} is {quote(kind)}; it must be classification, retrieval or multilabel")
    return kind


def check_kind(folder: Path, kind: Kind) -> None:
    """Raises: DataError if a folder's labels are of another kind than `kind`, or multilabel."""
    found = read_kind(folder)
    if "multilabel" in (found, kind):
        raise DataError(
            f"{folder} is multilabel: a picture has several classes, so that the accuracy of one answer is not defined "
            "(CLIP_benchmark reports mean average precision); choose another data set"
        )
    if found != kind:
        raise DataError(f"{folder / 'dataset_type.txt'} says {found}; the task is {kind}")


def read_class_names(folder: Path) -> tuple[Label, ...]:
    """Reads the classes, whose labels are their numbers. Raises: DataError for fewer than two."""
    path = folder / "classnames.txt"
    lines = read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if find_hidden(line.replace("\t", " ")):
            raise DataError(f"{path}:{number}: a control character; save the list as plain text")
    if len(lines) < 2:
        raise DataError(f"{path} has {len(lines)} class; there must be two or more, one a line")
    return tuple(Label(str(k), line.strip()) for k, line in enumerate(lines))


def read_prompt_templates(folder: Path) -> tuple[str, ...]:
    """Reads the prompt templates, with `{}` in place of `{c}`. Raises: DataError."""
    path = folder / "zeroshot_classification_templates.txt"
    lines = read_lines(path)
    for line in lines or [""]:
        if "{c}" not in line or set("{}") & set(line.replace("{c}", "")):
            raise DataError(f"{path}: {quote(line)} must contain {{c}}, the class name, and no other braces")
    return tuple(line.replace("{c}", "{}") for line in lines)


def list_samples(folder: Path, split: str, kind: Kind, left_out: Counter[str]) -> list[Sample]:
    """Lists the samples of a split, in the order of the shards.

    Args:
        folder: of the data set.
        split: "test" or "train".
        kind: of the labels.
        left_out: counts the members that are neither pictures nor labels, by suffix.

    Raises: DataError, naming the tar and the member at fault.
    """
    shards = _list_shards(folder / split)
    indices = index_tars([folder / split / shard for shard in shards])
    return [
        sample
        for shard, index in zip(shards, indices, strict=True)
        for sample in _group(folder / split / shard, f"{split}/{shard}", index, _ENDINGS[kind], left_out)
    ]


def _list_shards(place: Path) -> list[str]:
    """Lists a split's shards. Raises: DataError unless they are those that nshards.txt counts."""
    path = place / "nshards.txt"
    text = read_text(path).strip()
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= SHARDS:
        raise DataError(f"{path} is {quote(text)}; it must be the number of shards, 1 to {SHARDS:,}")
    shards = [f"{k}.tar" for k in range(int(text))]
    found = {one.name for one in place.glob("*.tar")}
    missing, more = [one for one in shards if one not in found], sorted(found - set(shards))
    if missing:
        raise DataError(
            f"{place / missing[0]} is missing: {path} counts {text} shards, and {len(missing)} are not there"
        )
    if more:
        raise DataError(f"{place / more[0]} is one too many: {path} counts {text} shards, from 0.tar on")
    return shards


def _group(path: Path, shard: str, index: Index, ending: str, left_out: Counter[str]) -> Iterator[Sample]:
    """Joins each picture with its label. Raises: DataError if one of them is missing or there are two pictures."""
    pictures: dict[str, Member] = {}
    texts: dict[str, Member] = {}
    for member in index:
        key, suffix = _split_name(member.name)
        if suffix == ending:
            texts[key] = member
        elif f".{suffix.rpartition('.')[2]}" not in list_suffixes():
            left_out[f".{suffix}"] += 1
        elif pictures.setdefault(key, member) != member:
            raise DataError(f"{path}: {key} has two pictures, {pictures[key].name} and {member.name}")
    if bare := next((key for key in pictures if key not in texts), ""):
        raise DataError(f"{path}: {pictures[bare].name} has no label; there must be {bare}.{ending}")
    if bare := next((key for key in texts if key not in pictures), ""):
        raise DataError(f"{path}: {texts[bare].name} has no picture, such as {bare}.webp")
    for key, member in pictures.items():
        yield Sample(key, shard, member, texts[key].text, texts[key].name)


def _split_name(name: str) -> tuple[str, str]:
    """A member's key, up to the first dot of its file name, and its suffix in lower case."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def parse_label(folder: Path, sample: Sample, classes: int) -> str:
    """The number of a sample's class, as text. Raises: DataError unless it is 0 to classes - 1."""
    text = sample.text.strip()
    if not _NUMBER.fullmatch(text) or int(text) >= classes:
        raise DataError(
            f"{folder / sample.shard}: {sample.text_name} is {quote(text)}; it must be the number of a class, "
            f"0 to {classes - 1}"
        )
    return str(int(text))


def parse_captions(folder: Path, sample: Sample) -> tuple[str, ...]:
    """A sample's captions. Raises: DataError if there are none."""
    captions = tuple(line.strip().replace("\\n", "\n") for line in sample.text.splitlines() if line.strip())
    if not captions:
        raise DataError(f"{folder / sample.shard}: {sample.text_name} has no captions; it must have one a line")
    return captions
