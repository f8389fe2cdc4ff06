"""`rlbench push`: results, checkpoints and benchmarks to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from rlbench.cli.places import records_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rlbench.report.publish.upload import Files, RepoType

FOLDER = Path("rlbench-push")


@click.group(short_help="Publish results, checkpoints and benchmarks on the Hugging Face hub.")
def push() -> None:
    """Publish on the Hugging Face hub, as a pull request on a repository, or write the files into a folder.

    \b
    rlbench push results rlbind --repo OWNER/MODEL --benchmark OWNER/DATASET --dry-run
    rlbench push model rlbench-runs/fare-1 --repo OWNER/MODEL --dry-run
    """


def _target(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options about where the files go."""
    options = (
        click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository on the hub."),
        click.option(
            "--dry-run", is_flag=True, help="Write the files into --out instead [default without a token of the hub]."
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help=f"The folder of a dry run [default: {FOLDER}/OWNER-NAME].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _is_dry(dry_run: bool, out: Path | None) -> bool:
    """Whether to write into a folder; says so if that is only because there is no token."""
    from rlbench.report.publish.upload import find_token

    if out is not None and not dry_run:
        raise click.UsageError("--out is the folder of a dry run; add --dry-run")
    if dry_run or find_token():
        return dry_run
    click.echo("no token of the hub (hf auth login): writing the files into a folder", err=True)
    return True


def _folder(repo: str, out: Path | None) -> Path:
    return out or FOLDER / repo.replace("/", "-")


def _deliver(repo: str, files: Files, message: str, folder: Path | None, *, repo_type: RepoType = "model") -> None:
    """Writes the files into a folder, or opens a pull request if there is none; prints where they are."""
    from rlbench.report.publish.upload import open_pull_request, write_folder

    if folder is None:
        click.echo(open_pull_request(repo, files, message, repo_type=repo_type))
        return
    write_folder(folder, files)
    for name in files:
        click.echo(f"wrote {folder / name}")


@push.command(short_help="Publish a model's results on its model card and in leaderboards.")
@click.argument("model", metavar="MODEL")
@records_option
@click.option(
    "--benchmark",
    required=True,
    metavar="OWNER/DATASET[@COMMIT]",
    help="The data set whose eval.yaml lists the tasks (see `rlbench push benchmark`).",
)
@click.option("--source", default="", metavar="URL", help="A page about these results.")
@_target
def results(
    model: str, records: tuple[Path, ...], benchmark: str, source: str, repo: str, dry_run: bool, out: Path | None
) -> None:
    """Publish the results of MODEL: .eval_results/*.yaml, and a section of the model card with tables and curves.

    Each norm and eps is a task of its own, such as thermal_linf_4_255.
    """
    from rlbench.report.figures.model_report import report
    from rlbench.report.publish.eval_results import check_repository, make_entries, parse_repository
    from rlbench.report.publish.model_card import PICTURE, insert_section
    from rlbench.report.publish.upload import read_readme
    from rlbench.store.records import read_records

    check_repository(repo)
    folder = _folder(repo, out) if _is_dry(dry_run, out) else None
    found = read_records(records or (Path("rlbench-results"),))
    entries = make_entries(found, model, parse_repository(benchmark), source)
    readme = read_readme(repo) if folder is None else _read(folder / "README.md")
    section = report(found, model, PICTURE)
    files: dict[str, bytes | Path] = {name: text.encode() for name, text in entries.files.items()}
    files["README.md"] = insert_section(readme, section.text).encode()
    if section.picture is not None:
        files[PICTURE] = section.picture
    for line in entries.left_out:
        click.echo(f"left out: {line}", err=True)
    _deliver(repo, files, f"Add robustness results of {model}, measured with rlbench", folder)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@push.command(short_help="Publish a trained model for transformers and open_clip.")
@click.argument("run_folder", metavar="RUN_FOLDER", type=click.Path(path_type=Path))
@click.option("--modality", metavar="NAME", help="The tower to publish, if the run has several.")
@click.option("--license", "licence", metavar="ID", help="The licence for the model card, such as mit.")
@_target
def model(run_folder: Path, modality: Any, licence: str | None, repo: str, dry_run: bool, out: Path | None) -> None:
    """Publish the tower of a finished run and its text tower, in the files of transformers and of open_clip.

    The files are loaded back by each library that is installed; the embeddings must equal the run's within 1e-5.
    """
    from rlbench.report.publish.checkpoint import export_run
    from rlbench.report.publish.eval_results import check_repository
    from rlbench.report.publish.upload import read_readme

    check_repository(repo)
    dry = _is_dry(dry_run, out)
    with _workspace(_folder(repo, out) if dry else None) as folder:
        made = export_run(run_folder, folder, repo, modality=modality, licence=licence)
        for library in ("transformers", "open_clip"):
            off = made.differences.get(library)
            click.echo(
                f"{library}: not installed, so not checked"
                if off is None
                else f"{library}: loads it, embeddings equal within {off:.1e}"
            )
        kept = () if dry or not read_readme(repo) else ("README.md",)  # a card of its own stays
        files = {name: path for name, path in made.files.items() if name not in kept}
        _deliver(repo, files, f"Add a {made.modality} tower trained with rlbench", folder if dry else None)


@contextmanager
def _workspace(folder: Path | None) -> Iterator[Path]:
    """The folder, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


@push.command(short_help="Publish suites as the tasks of a benchmark data set.")
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@click.option("--name", default="Robustness", show_default=True, metavar="TEXT", help="The title of the benchmark.")
@_target
def benchmark(suites: tuple[str, ...], name: str, repo: str, dry_run: bool, out: Path | None) -> None:
    """Write the eval.yaml of a data set: each SUITE's clean accuracy, and each norm and eps, is a task.

    Each part of a suite has tasks of its own, such as scenes_image_clean.

    The hub ranks results only of frameworks that it lists, in huggingface.js, packages/tasks/src/eval.ts.
    """
    from rlbench.core.suite import load_suites
    from rlbench.report.publish.eval_results import check_repository, make_benchmark

    check_repository(repo)
    dry = _is_dry(dry_run, out)
    parts = [part for suite in suites for part in load_suites(suite)]
    names = ", ".join(dict.fromkeys(part.name for part in parts))
    text = make_benchmark(parts, name, f"Zero-shot accuracy under attacks, measured with rlbench: {names}")
    folder = _folder(repo, out) if dry else None
    _deliver(repo, {"eval.yaml": text.encode()}, "Add the tasks of rlbench", folder, repo_type="dataset")
