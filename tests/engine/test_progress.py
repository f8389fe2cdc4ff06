"""What a run reports while it computes: bounds that fall to the final accuracies and never pass them."""

from collections import deque
from pathlib import Path

import pytest
from pool_jobs import repeat
from tiny_suite import counts, suite_file

from rlbench.core import Adversarial, Clean, Threat, executor
from rlbench.core.executor import Work
from rlbench.core.stats.metrics import wilson
from rlbench.engine.attack.schedule import Standing
from rlbench.engine.run.progress import CellProgress, Progress, Standings
from rlbench.engine.run.runner import execute, plan
from rlbench.executors.local import Local

PGD = Adversarial("pgd", Threat("linf", 4))  # type: ignore[arg-type]


def cell(decided: int, wrong: int, *, searching: bool = True, finished: bool = False) -> CellProgress:
    return CellProgress("s", "t", "m", PGD if searching else Clean(), 100, decided, wrong, searching, finished)


def test_a_cell_under_attack_has_a_bound_over_all_examples() -> None:
    """30 of 100 examples are decided, 20 of them wrong: the final accuracy is between 10% and 80%."""
    one = cell(30, 20)
    assert one.is_bound and one.share == 0.8
    assert one.interval == (wilson(10, 100)[0], wilson(80, 100)[1])


def test_without_an_attack_the_share_is_of_the_decided_examples() -> None:
    one = cell(50, 10, searching=False)
    assert not one.is_bound and one.share == 0.8 and one.interval == wilson(40, 50)


def test_a_decided_cell_has_its_accuracy_and_an_unknown_one_has_none() -> None:
    assert not cell(100, 40).is_bound and cell(100, 40).share == 0.6
    assert cell(100, 40, finished=True).interval == wilson(60, 100)
    assert cell(0, 0).share is None


def test_standings_never_fall_and_a_worst_case_has_the_errors_of_its_worst_member() -> None:
    standings = Standings()
    standings.update({(0, PGD, (0, 50)): Standing(50, 20, 10), (0, PGD, (50, 80)): Standing(30, 5, 5)})
    standings.update({(0, PGD, (0, 50)): Standing(50, 8, 8), (0, Clean(), (0, 50)): Standing(50, 50, 3)})
    assert standings.whole([(0, PGD)]) == Standing(0, 25, 15)
    assert standings.whole([(0, PGD), (0, Clean())]) == Standing(0, 15, 15)
    assert standings.whole([(1, PGD)]) == Standing(0, 0, 0)


@pytest.mark.parametrize("size", [1, 2])
def test_a_job_sends_passes_and_the_newest_news_of_every_key(size: int) -> None:
    passes, news = [], {}

    def tick(n: int, new: dict) -> None:
        passes.append(n)
        news.update(new)

    work = Work(perform=repeat, shared=3, devices=("cpu",) * size, tick=tick)
    with Local().open(work) as pool:
        assert sorted(result for _, result in pool.run(deque([10, 20]))) == [10, 20]
    assert sum(passes) == 6 and news == {10: 2, 20: 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"workers": 2}, {"workers": 1, "mode": "cascade"}, {"workers": 1, "mode": "descending"}]
)
def test_bounds_fall_to_the_final_accuracies(options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "PERIOD", 0.0)
    seen: list[Progress] = []
    made = plan(suite_file(tmp_path, 300, "apgd-ce"), "linear", store=tmp_path / "out", batch_size=16, **options)
    records = execute(made, seen.append)
    final = {str(r.perturbation): r for r in records}
    between = set()
    for row in zip(*(progress.cells for progress in seen), strict=True):
        known = [one for one in row if one.share is not None]
        record = final[str(row[0].perturbation)]
        accuracy = (record.n_correct or 0) / record.n
        assert row[-1].finished and row[-1].share == pytest.approx(accuracy)
        if row[0].searching:
            shares = [one.share for one in known]
            assert shares == sorted(shares, reverse=True)
            assert all(
                one.interval[0] <= row[-1].interval[0] <= row[-1].interval[1] <= one.interval[1] for one in known
            )
            between.update(shares[:-1])
    if options["workers"] == 1:
        assert len(between) > 5  # the bounds fall while attacks run, not at their end
    assert counts(records)["clean"] is not None


def test_a_resumed_run_begins_with_what_is_stored(tmp_path: Path) -> None:
    path, seen = suite_file(tmp_path, 300), list[Progress]()

    def stop(progress: Progress) -> None:
        if any(one.finished and one.searching for one in progress.cells):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(plan(path, "linear", store=tmp_path / "out", workers=1), stop)
    execute(plan(path, "linear", store=tmp_path / "out", workers=1), seen.append)
    assert seen[0].cells[0].finished and seen[0].cells[0].decided == 300
