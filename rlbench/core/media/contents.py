"""Recognises files that are no media at all, or of a format that is not read, from how they begin."""

from __future__ import annotations

from pathlib import Path

_HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # brands of ISO base media files


def explain_content(path: Path | str) -> str:
    """Why a file can't be read, and what to do; "" if its beginning does not tell."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return ""
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file itself with: git lfs pull"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "it is HEIC, which is not read; convert it to JPEG or PNG"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        svg = b"<svg" in head
        return "it is SVG, which is not read; convert it to PNG" if svg else "it is a web page; download the file again"
    return ""
