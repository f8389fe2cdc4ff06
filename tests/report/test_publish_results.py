"""Results for the hub: huggingface_hub's own classes read the entries, and a pull request holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_hub
import numpy as np
import pytest
import yaml
from commands import MINE, Call, fails
from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml, parse_eval_result_entries
from made import made

from rlbench.core import Record
from rlbench.core.errors import FieldError, StoreError, UnknownName
from rlbench.core.suite import load_suites
from rlbench.report.boards.leaderboard import freeze
from rlbench.report.publish.eval_results import (
    Benchmark,
    make_benchmark,
    make_entries,
    parse_repository,
)
from rlbench.report.publish.model_card import BEGIN, END, insert_section
from rlbench.report.publish.task_ids import list_task_ids

COLUMNS = {"clean": 90, "pgd linf 2/255": 72, "worst linf 2/255": 70, "worst linf 4/255": 50, "worst l2 0.5": 61}
SET = Benchmark("me/set", "abc123")


def records(columns: dict[str, int] = COLUMNS, model: str = "a:mini", n: int = 100, **facts: object) -> list[Record]:
    given = {"soundness": "sound", "checkpoint": "0123456789abcdef99", **facts}
    return [made(model, name, np.arange(n) < ones, **given) for name, ones in columns.items()]


def values(found: list[Record], **facts: object) -> dict[str, float]:
    made_ = make_entries(found, "a:mini", SET, **facts)
    return {one.task_id: one.value for text in made_.files.values() for one in parse(text)}


def parse(text: str) -> list[EvalResultEntry]:
    """Parses a file by the hub's classes, which must give the same file back."""
    raw = yaml.safe_load(text)
    found = parse_eval_result_entries(raw)
    assert eval_result_entries_to_yaml(found) == raw
    return found


def test_each_norm_and_eps_is_a_task_of_the_benchmark() -> None:
    found = make_entries([*records(), *records(model="b:mini", checkpoint="ff")], "a:mini", SET, "https://a.b/c")
    assert list(found.files) == [".eval_results/rlbench-thermal.yaml"] and found.left_out == []
    entries = parse(found.files[".eval_results/rlbench-thermal.yaml"])
    by_task = {entry.task_id: entry.value for entry in entries}
    expected = {"clean": 90.0, "linf_2_255": 70.0, "linf_4_255": 50.0, "l2_0.5": 61.0}
    assert by_task == {f"thermal_{name}": value for name, value in expected.items()}
    assert {(e.dataset_id, e.dataset_revision, e.source_url) for e in entries} == {
        ("me/set", "abc123", "https://a.b/c")
    }
    assert "n = 100; 95% interval 40.4 to 59.6; soundness sound" in next(
        e.notes for e in entries if e.task_id.endswith("linf_4_255")
    )


def test_a_single_attack_counts_where_no_worst_case_was_run() -> None:
    assert values(records({"clean": 90, "pgd linf 2/255": 72})) == {"thermal_clean": 90.0, "thermal_linf_2_255": 72.0}
    found = make_entries(records({"clean": 90, "pgd linf 2/255": 72, "fgsm linf 2/255": 80}), "a:mini", SET)
    assert [e.task_id for e in parse(*found.files.values())] == ["thermal_clean"]
    assert len(found.left_out) == 2 and "one of several attacks" in found.left_out[0]


def test_corruptions_are_a_mean_by_severity() -> None:
    assert values(records({"clean": 90, "fog 3": 80, "snow 3": 70})) == {
        "thermal_clean": 90.0,
        "thermal_corruptions_3": 75.0,
    }


def test_what_is_not_sound_or_failed_is_left_out() -> None:
    bad = made(
        "a:mini", "worst linf 8/255", np.arange(100) < 40, soundness="unreliable", checkpoint="0123456789abcdef99"
    )
    found = make_entries([*records(), bad], "a:mini", SET)
    assert found.left_out == ["thermal, worst linf 8/255: a soundness check failed"]
    assert "8_255" not in "".join(found.files.values())
    with pytest.raises(StoreError, match=r"no result of a:mini can be published: .*a soundness check failed"):
        make_entries([bad], "a:mini", SET)
    with pytest.raises(UnknownName, match="did you mean 'a:mini'"):
        make_entries(records(), "a:mimi", SET)


def test_a_suite_of_several_tasks_has_their_mean() -> None:
    sets = {"wds/vtab/cifar10": 90, "wds/vtab/pets": 50, "wds/vtab/pcam": 10}
    one = records({"clean": 90, "worst linf 4/255": 30})
    about = {"suite": "image-wds-smoke", "modality": "image", "flags": None}
    three = [
        replace(r, task=t, key=f"{t} {r.key}", n_correct=k, provenance={**r.provenance, "data": t}, **about)
        for t, k in sets.items()
        for r in one
    ]
    found = make_entries(three, "a:mini", SET)
    (entry, _) = parse(found.files[".eval_results/rlbench-image-wds-smoke.yaml"])
    assert (entry.task_id, entry.value) == ("image-wds-smoke_clean", 50.0)
    assert "n = 100 on each of 3 tasks" in entry.notes
    with pytest.raises(StoreError, match="image-wds-smoke: 1 of its 3 tasks were not run, wds/vtab/pcam first"):
        make_entries(three[:4], "a:mini", SET)
    with pytest.raises(StoreError, match="2 of its 3 tasks were not run"):
        make_entries(three[:2], "a:mini", SET)


def test_two_results_of_a_task_are_an_error() -> None:
    with pytest.raises(StoreError, match=r"two results of thermal_clean .*n = 40.*--records of one run only"):
        make_entries([*records(), *records({"clean": 30}, n=40)], "a:mini", SET)


def fused(suite: str = "scenes") -> list[Record]:
    """The clean cells of a sensor and of two fusions, with different numbers."""
    places = [("image", "scenes:image"), *(("image+audio", f"scenes:image+audio:{name}") for name in ("sum", "mean"))]
    return [
        replace(r, suite=suite, modality=modality, task=task, key=f"{task} {r.key}")
        for ones, (modality, task) in enumerate(places, 90)
        for r in records({"clean": ones})
    ]


def test_each_part_of_a_suite_is_a_task() -> None:
    found = make_entries([*records(), *fused("own")], "a:mini", SET)
    assert list(found.files) == [f".eval_results/rlbench-{name}.yaml" for name in ("own", "thermal")]
    assert found.left_out == []
    expected = {"own_image_clean": 90.0, "own_image-audio_sum_clean": 91.0, "own_image-audio_mean_clean": 92.0}
    assert values(fused("own")) == expected
    notes = {entry.task_id: entry.notes for entry in parse(found.files[".eval_results/rlbench-own.yaml"])}
    assert "suite own:scenes:image+audio:sum v1;" in notes["own_image-audio_sum_clean"]
    assert values(fused("own")[-1:]) == {"own_clean": 92.0}  # the only part
    failed = [replace(one, n_correct=None, flags=None, error="planned") for one in fused("own")[1:]]
    assert [line.partition(",")[0] for line in make_entries([*records(), *failed], "a:mini", SET).left_out] == [
        f"own:scenes:image+audio:{name}" for name in ("mean", "sum")
    ]
    others = [replace(r, model="b:mini", key=f"b{r.key}") for r in fused("own")[:-1]]  # of which another model has more
    assert values([*others, *fused("own")[-1:]]) == {"own_image-audio_mean_clean": 92.0}
    again = [replace(r, task=f"later-{r.task}", key=f"l{r.key}") for r in fused("own")[1:]]  # another world
    assert set(values([*fused("own"), *again])) == {
        "own_image_clean",
        *(f"own_{world}_image-audio_{name}_clean" for world in ("scenes", "later-scenes") for name in ("sum", "mean")),
    }


def test_the_ids_of_a_part_are_those_of_its_whole_suite() -> None:
    """Records may lack parts of an installed suite, and a benchmark may have some of its parts."""
    assert values(fused()[:1]) == {"scenes_image_clean": 90.0}
    parts = load_suites("scenes")
    ids = list_task_ids(parts)
    assert len(ids) == len(set(ids)) and list_task_ids(load_suites("scenes:image")) == ids[:2]
    assert ids[:2] == ["scenes_image_clean", "scenes_image_linf_1_255"]
    assert next(one for one in ids if one.startswith("scenes_image-")) == "scenes_image-thermal-audio-video_sum_clean"
    assert sum(one.endswith("_on_any_1") for one in ids) == 1
    clean = {one for one in list_task_ids(load_suites("scenes-fusions")) if one.endswith("_clean")}
    assert len(clean) == 7 and "scenes-fusions_image-thermal-audio-video_majority_clean" in clean
    one = [replace(r, suite="scenes-fusions", modality=parts[-1].modality, task=parts[-1].task_name) for r in records()]
    assert f"scenes-fusions_{parts[-1].modality.replace('+', '-')}_sum_clean" in values(one)


def test_a_benchmark_has_two_suites_of_a_name_only_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MINE)
    (tmp_path / "b.yaml").write_text(MINE)
    own = [part for name in "ab" for part in load_suites(tmp_path / f"{name}.yaml")]
    with pytest.raises(StoreError, match=r"a.yaml and .*b.yaml are both named mine"):
        make_benchmark(own, "name", "about")


@pytest.mark.parametrize("text", ["set", "a/b/c", "a b/c", "a/", "a/b@", "https://huggingface.co/a/b"])
def test_a_repository_is_an_owner_and_a_name(text: str) -> None:
    with pytest.raises(FieldError, match="must be OWNER/NAME"):
        parse_repository(text)


def test_the_ids_of_a_suite_are_those_of_its_results() -> None:
    found = list_task_ids(load_suites("thermal"))
    assert found[0] == "thermal_clean" and set(values(records())) <= set(found)


def test_a_section_replaces_an_earlier_one() -> None:
    header = "---\nlicense: mit\n---\n\n# A model\n"
    once = insert_section(header, "first")
    assert once == f"{header}\n{BEGIN}\nfirst\n{END}\n"
    assert insert_section(f"{once}\n## More\n", "second") == f"{header}\n{BEGIN}\nsecond\n{END}\n\n## More\n"
    torn = insert_section(f"{BEGIN}\nmine\n", "first")  # the end of the comment is lost
    assert insert_section(torn, "second") == f"{BEGIN}\nmine\n\n{BEGIN}\nsecond\n{END}\n"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    (tmp_path / "remote").mkdir()
    with fake_hub.serve(tmp_path / "cache", monkeypatch) as hub:
        hub.repos["me/model"] = hub.repos["me/set"] = (tmp_path / "remote", ["c" * 40])
        yield hub


def arguments(tmp_path: Path) -> list[object]:
    (tmp_path / "r.jsonl").write_text(freeze(records()))
    return ["push", "results", "a:mini", "--records", "r.jsonl", "--repo", "me/model", "--benchmark", "me/set"]


def test_a_pull_request_keeps_the_rest_of_the_card(hub, call: Call, tmp_path: Path) -> None:
    (tmp_path / "remote" / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    result = call(*arguments(tmp_path))
    assert result.exit_code == 0 and result.stdout.strip().endswith("/me/model/discussions/1")
    [files] = hub.commits
    assert set(files) == {".eval_results/rlbench-thermal.yaml", "README.md", "rlbench-robustness.png"}
    card = files["README.md"].decode()
    assert card.startswith("---\nlicense: mit\n---\n# A model\n") and "**Soundness: sound**" in card
    assert "](rlbench-robustness.png)" in card and files["rlbench-robustness.png"].startswith(b"\x89PNG")
    assert len(parse(files[".eval_results/rlbench-thermal.yaml"].decode())) == 4
    result = call("push", "benchmark", "thermal", "smoke", "--repo", "me/set", "--name", "Heat")
    assert result.exit_code == 0
    whole = yaml.safe_load(hub.commits[1]["eval.yaml"])
    assert call("push", "benchmark", "scenes", "--repo", "me/set").exit_code == 0
    assert "scenes_video_clean" in hub.commits[2]["eval.yaml"].decode()
    assert whole["name"] == "Heat" and {"id": "smoke_clean", "config": "default", "split": "test"} in whole["tasks"]


def test_without_a_card_there_is_a_new_one(hub, call: Call, tmp_path: Path) -> None:
    assert call(*arguments(tmp_path)).exit_code == 0
    assert hub.commits[0]["README.md"].decode().startswith(BEGIN)


def test_what_the_hub_refuses_is_one_line(hub, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(tmp_path)
    hub.refused = 403
    fails(call(*given), "the token may not open a pull request on me/model (403)", "--dry-run")
    hub.refused = 0
    del hub.repos["me/model"]
    fails(call(*given), "there is no repository me/model", "hf repos create me/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fails(call(*given), "the hub can't be reached", "--dry-run")
    assert hub.commits == []


def test_an_unreachable_hub_is_one_line(hub, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    fails(call("push", "benchmark", "thermal", "--repo", "me/set"), "the hub can't be reached", "--dry-run")


def test_a_dry_run_writes_the_files_into_a_folder(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(tmp_path)
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "README.md").write_text("# Mine\n")
    result = call(*given, "--dry-run", "--out", "clone")
    assert result.exit_code == 0 and "wrote clone/.eval_results/rlbench-thermal.yaml" in result.stdout.replace(
        "\\", "/"
    )
    assert (tmp_path / "clone" / "README.md").read_text().startswith(f"# Mine\n\n{BEGIN}\n## Robustness")
    monkeypatch.setattr("rlbench.report.publish.upload.find_token", lambda: None)
    result = call(*given)
    assert result.exit_code == 0 and "no token of the hub" in result.stderr
    assert (tmp_path / "rlbench-push" / "me-model" / "rlbench-robustness.png").is_file()
    fails(call(*given, "--out", "clone"), "add --dry-run")
    result = call("push", "benchmark", "image-clip13", "--repo", "me/set", "--dry-run", "--out", "set")
    assert result.exit_code == 0 and "image-clip13_linf_2_255" in (tmp_path / "set" / "eval.yaml").read_text()
    fails(call("push", "benchmark", "smoke", "--repo", "me/set@abc"), "a pull request goes to OWNER/NAME")
    (tmp_path / "file").write_text("")
    fails(call(*given, "--dry-run", "--out", "file/x"), "can't write", "choose another --out")
