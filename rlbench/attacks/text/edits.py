"""Class names with a few typing errors: which edits an attacker may make.

The threat model is rlbench's own; Abad Rocamora et al., 2024 (Charmer, https://arxiv.org/abs/2405.04346) and 2025
(LEAF, https://arxiv.org/abs/2506.03355) edit whole captions. An attacker edits each class name by at most k insertions,
deletions and replacements of ASCII letters and spaces; templates are fixed. An edited name has no new dictionary word
(in suites: no word of the class lists that rlbench ships), and it stays nearer to its own class than to any other, so
that a reader still knows which class is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_lowercase

from rlbench.core.errors import FieldError
from rlbench.core.seeds import generator

ALPHABET = ascii_lowercase + " "
LIMIT = 500  # the most names that are drawn at each number of edits above 1


def count_edits(a: str, b: str) -> int:
    """The Levenshtein distance: the fewest insertions, deletions and replacements that turn a into b.

    Wagner & Fischer, 1974, https://doi.org/10.1145/321796.321811.
    """
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row = row, [i]
        for j, right in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def edit_once(name: str) -> list[str]:
    """All names at one edit of a name, sorted; double spaces, and spaces at an end, are left out."""
    found = set[str]()
    for i in range(len(name) + 1):
        head, tail = name[:i], name[i:]
        found |= {head + letter + tail for letter in ALPHABET}
        if tail:
            found |= {head + letter + tail[1:] for letter in ALPHABET} | {head + tail[1:]}
    return sorted(n for n in found if n and n != name and n == " ".join(n.split()))


def edit_names(
    names: Sequence[str], k: int, *, dictionary: Iterable[str] = (), seed: int = 0, limit: int = LIMIT
) -> tuple[tuple[str, ...], ...]:
    """The names that an attacker may use for each class: its own first, then those at one edit, at two, and so on.

    All names at one edit are there. Of those at more edits, `limit` are drawn for each number of edits, so a result
    with k above 1 is an upper bound of robust accuracy.

    Args:
        names: of the classes, ASCII.
        k: the most edits of a name, at least 1, and fewer than the letters of any name.
        dictionary: the words that an edited name must not contain, unless the class's own name does.
        seed: of the drawn names.
        limit: the most names that are drawn at each number of edits above 1.

    Raises:
        FieldError: k is below 1 or as large as a name, or a name is not ASCII.
    """
    check_edits(names, k)
    words = frozenset(word.lower() for word in (*dictionary, *(w for name in names for w in name.split())))
    return tuple((name, *_edit(name, [n for n in names if n != name], k, words, seed, limit)) for name in names)


def check_edits(names: Sequence[str], k: int) -> None:
    """Checks that names can have k edits. Raises: FieldError, as `edit_names`."""
    shortest = min(names, key=len)
    if k < 1:
        raise FieldError(f"edits is {k}; it must be at least 1")
    odd = next((name for name in names if not name.isascii()), None)
    if odd is not None:
        raise FieldError(f"the class name {odd!r} is not ASCII; edits are of ASCII names")
    if len(shortest) == 1:
        raise FieldError(f"the class name {shortest!r} has one letter, and no edit leaves a part of it")
    if k >= len(shortest):
        most = len(shortest) - 1
        raise FieldError(f"edits is {k}; the class name {shortest!r} has {len(shortest)} letters: at most {most}")


def _edit(name: str, others: Sequence[str], k: int, words: frozenset[str], seed: int, limit: int) -> list[str]:
    own = set(name.lower().split())
    close = [n for n in others if count_edits(n, name) <= 2 * k]  # by the triangle inequality no other can be nearer

    def is_allowed(edited: str) -> bool:
        if words.intersection(edited.lower().split()) - own:
            return False
        far = count_edits(edited, name) if close else 0
        return all(far < count_edits(edited, other) for other in close)

    found = [n for n in edit_once(name) if is_allowed(n)]
    numbers, near = generator(seed, "edits", name), found
    for far in range(2, k + 1):
        drawn = set[str]()
        for _ in range(4 * limit if near else 0):
            step = edit_once(near[int(numbers.integers(len(near)))])
            edited = step[int(numbers.integers(len(step)))]
            if len(drawn) < limit and edited not in drawn and count_edits(edited, name) == far and is_allowed(edited):
                drawn.add(edited)
        near = sorted(drawn)
        found = found + near
    return found
