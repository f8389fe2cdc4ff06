"""Renders reports of the gate, comparisons and verifications: terminal, Markdown, GitHub annotations, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlbench.core.markdown import escape, grid
from rlbench.core.stats.metrics import format_p
from rlbench.gate.compare import Contrast
from rlbench.gate.regression import FLIPS, POWER, Report, Verdict
from rlbench.gate.verify import ClaimResult, Verification

WIDE = 200  # characters per line of a log
SHOWN = 8  # the most examples that a list of flips names
WORDS = {0: "PASS", 1: "FAIL", 2: "ERROR"}
STYLES = {"PASS": "green", "FAIL": "bold red", "MISSING": "bold red", "INCONCLUSIVE": "yellow"}
MEASURES = ("before", "now", "change", "lost:gained", "p", "drop at most", "detectable")
Row = Mapping[str, str]  # a row of a table: text by column


def _percent(k: int | None, n: int) -> str:
    return "-" if k is None else f"{100 * k / n:.1f}"


def rows(report: Report) -> list[Row]:
    """One row per cell: the verdict, accuracies in %, the change in points, the flips and their p-value."""
    return [_row(verdict) for verdict in report.verdicts]


def _row(v: Verdict) -> Row:
    row = {"verdict": v.status + (" (gain)" if v.gain else ""), "suite": v.suite, "model": v.model}
    if v.pairs is None:
        return row | {"cell": v.perturbation} | dict.fromkeys(MEASURES, "-")
    n = v.pairs.n
    numbers = _percent(v.before, n), _percent(v.after, n), f"{0 - v.pairs.drop:+.1f}"
    flips = f"{v.pairs.lost}:{v.pairs.gained}", format_p(v.p), f"{v.upper:.1f}", f"{v.detectable:.1f}"
    return row | {"cell": v.perturbation} | dict(zip(MEASURES, (*numbers, *flips), strict=True))


def summary(report: Report) -> str:
    """The overall verdict and the number of cells with each status, in one line."""
    counts = [f"{len(report.of(s))} {s}" for s in ("PASS", "FAIL", "INCONCLUSIVE", "MISSING") if report.of(s)]
    gains = sum(v.gain for v in report.verdicts)
    counts += [f"{gains} with a gain"] if gains else []
    policy = f"margin {report.policy.margin:g} points, alpha {report.policy.alpha:g}"
    strict = ", strict" if report.policy.strict else ""
    return f"{WORDS[report.exit_code]}: {', '.join(counts) or 'nothing was compared'} ({policy}{strict})"


def describe_power(report: Report) -> str:
    """A sentence about the power of the gate; "" if no cell was compared."""
    if not report.n:
        return ""
    if report.blind:
        cells = sum(v.pairs is not None for v in report.verdicts)
        return (
            f"No drop can fail: n = {report.n} is so small that the loss of all examples is not significant "
            f"(cells: {cells}); use more examples, or fewer perturbations."
        )
    return (
        f"Power: with n = {report.n}, a cell that drops by {POWER:g} points fails with probability {report.power:.2f} "
        f"while {FLIPS:g}% of its examples flip."
    )


def reasons(report: Report) -> list[tuple[Verdict, str]]:
    """The verdicts other than PASS and the gains, with the reason and the examples that flipped."""
    return [(v, f"{v.reason}{_flips(v)}") for v in report.verdicts if v.status != "PASS" or v.gain]


def _flips(v: Verdict) -> str:
    """`; lost 3 of thermal-world/test/: 8, 21, 28; gained ...`: a folder that all ids share is written once."""
    folders = {name[: name.rfind("/") + 1] for name in (*v.lost, *v.gained)}
    shared = folders.pop() if len(folders) == 1 else ""

    def list_ids(kind: str, ids: Sequence[str]) -> str:
        names = [name.removeprefix(shared) for name in ids[:SHOWN]]
        more = [f"and {len(ids) - SHOWN} more"] if len(ids) > SHOWN else []
        return f"; {kind} {len(ids)}{shared and f' of {shared}'}: {', '.join([*names, *more])}" if ids else ""

    return list_ids("lost", v.lost) + list_ids("gained", v.gained)


def table(found: Iterable[Row], out: Console) -> None:
    """Prints rows with the same columns; the first column has the colour of its verdict."""
    found = list(found)
    grid = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in found[0] if found else ():
        left = name in ("verdict", "suite", "model", "cell", "claim")
        grid.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in found:
        style = STYLES.get(next(iter(row.values())).split()[0], "")
        grid.add_row(*(Text(value, style=style if i == 0 else "") for i, value in enumerate(row.values())))
    out.print(grid)


def text(report: Report, against: str, out: Console) -> None:
    """Prints a report.

    Args:
        report: of the gate.
        against: the path of the references.
        out: where to print.
    """
    out.print(f"against {against}; accuracies in %, drops in points")
    table(rows(report), out)
    for verdict, reason in reasons(report):
        name = f"{verdict.status} {verdict.suite} {verdict.model} {verdict.perturbation}"
        out.print(Text(f"{name}: {reason}", style=STYLES[verdict.status]), soft_wrap=True)
    for note in report.notes:
        out.print(Text(f"note: {note}", style="dim"), soft_wrap=True)
    out.print(describe_power(report), soft_wrap=True)
    out.print(summary(report), style="bold", soft_wrap=True)


def plain(report: Report, against: str = "the reference records") -> str:
    """The output of `text` as a string without colours, for a log."""
    out = Console(file=StringIO(), width=WIDE, highlight=False, markup=False, emoji=False)
    with out.capture() as captured:
        text(report, against, out)
    return captured.get()


def markdown(report: Report, against: str) -> str:
    """A report as Markdown, for a pull request; arguments as `text`."""
    parts = [f"### {summary(report)}", f"Against {against}. Accuracies in %, drops in points."]
    parts += [grid(rows(report))] if report.verdicts else []
    lines = [
        f"- **{v.status}** {escape(f'{v.suite} {v.model} {v.perturbation}: {reason}')}" for v, reason in reasons(report)
    ]
    notes = [f"- note: {note}" for note in report.notes]
    return "\n\n".join(part for part in (*parts, "\n".join([*lines, *notes]), describe_power(report)) if part) + "\n"


def workflow_commands(report: Report) -> str:
    """Workflow commands, which GitHub shows as annotations of the pull request.

    https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands
    """
    kinds = {"PASS": "notice", "FAIL": "error", "MISSING": "error", "INCONCLUSIVE": "warning"}
    lines = []
    for verdict, reason in reasons(report):
        kind = "error" if report.policy.strict and report.exit_code else kinds[verdict.status]
        title = f"{verdict.status}: {verdict.suite} {verdict.model} {verdict.perturbation}"
        lines.append(f"::{kind} title={_escape(title, ':,')}::{_escape(reason)}\n")
    worst = "notice" if report.exit_code == 0 else "error"
    return "".join([*lines, f"::{worst} title=rlbench check::{_escape(summary(report))}\n"])


def _escape(message: str, further: str = "") -> str:
    for sign in ("%", "\r", "\n", *further):
        message = message.replace(sign, f"%{ord(sign):02X}")
    return message


def as_json(report: Report) -> str:
    """A report as a JSON object."""
    facts = {"exit_code": report.exit_code, "power": round(report.power, 4), "notes": report.notes}
    cells = [asdict(verdict) for verdict in report.verdicts]
    return json.dumps({**facts, "policy": asdict(report.policy), "cells": cells}, ensure_ascii=False)


def contrasts(found: Iterable[Contrast], names: tuple[str, str]) -> list[Row]:
    """One row per contrast; the difference is B - A in points, with its 95% interval.

    Args:
        found: of `compare`.
        names: the headings of A and B.
    """
    return [_contrast(one, names) for one in found]


def _contrast(one: Contrast, names: tuple[str, str]) -> Row:
    words = one.verdict().replace("B", names[1], 1) if one.pairs else one.verdict()
    row = {"verdict": words, "suite": one.suite, "cell": str(one.perturbation)}
    if len(set(one.models)) == 1:
        row["model"] = one.models[0]
    if one.pairs is None:
        return row | {"n": "-", names[0]: "-", names[1]: "-", "difference": one.apart, "only one right": "-", "p": "-"}
    n, (low, high) = one.pairs.n, one.pairs.interval()
    most = "≤ " * one.bound
    accuracies = {names[0]: most + _percent(one.a, n), names[1]: most + _percent(one.b, n)}
    if one.bound:
        return row | {"n": str(n), **accuracies, "difference": "of bounds", "only one right": "-", "p": "-"}
    difference = f"{0 - one.pairs.drop:+.1f} [{0 - high:+.1f}, {0 - low:+.1f}]"
    return (
        row
        | {"n": str(n), **accuracies, "difference": difference}
        | {"only one right": f"{one.pairs.lost}:{one.pairs.gained}", "p": format_p(one.p)}
    )


def claims(verification: Verification) -> list[Row]:
    """One row per claim."""
    return [_claim(result) for result in verification.results]


def _claim(f: ClaimResult) -> Row:
    found = f"{f.correct} of {f.k} ({100 * f.correct / f.k:.1f})"
    claimed = f"{100 * f.claimed / f.n:.1f}"
    return {
        "verdict": "refuted" if f.refuted else "holds",
        "claim": f.perturbation,
        "claimed": claimed,
        "found": found,
        "lost:gained": "-" if f.lost is None else f"{f.lost}:{f.gained}",
        "test": f.test,
        "p": format_p(f.p),
        "would refute": f"{f.detectable:.1f}",
    }


def describe_verification(found: Verification) -> str:
    """The result of a verification in two sentences."""
    about, k = found.submission, len(found.rows)
    refuted = [result.perturbation for result in found.results if result.refuted]
    head = f"{about.model} on {about.suite}: {k} of {found.results[0].n} examples run again (seed {found.seed}). "
    if refuted:
        return f"{head}REFUTED: {', '.join(refuted)}."
    return (
        f"{head}The claims hold; a claim {found.detectable:.1f} points too high would have been refuted "
        "with probability .95."
    )
