"""Labels of bags that can't be right: in another unit, of another bag, in two spellings, or beside all messages."""

import pytest

pytest.importorskip("rosbags")
from bag_folder import GREY, LABELS, STORE, levels_of, make_film, make_task, write_folder
from bags import START, make_text, write_bag

from rlbench.core.errors import DataError


@pytest.mark.parametrize(
    ("scale", "offset", "clock", "advice"),
    [
        (10**9, 0, "bag", "set clock: epoch"),
        (10**5, 0, "bag", "set clock: epoch"),
        (1, START // 10**9, "bag", "set clock: epoch"),
        (1, 0, "epoch", "leave out clock: epoch"),
    ],
)
def test_intervals_in_another_unit_or_from_another_zero(tmp_path, scale, offset, clock, advice) -> None:
    edges = [round(scale * second) + offset for second in (0, 1, 2)]
    labels = f"bag,start,end,label\nrun,{edges[0]},{edges[1]},cat\nrun,{edges[1]},{edges[2]},dog\n"
    with pytest.raises(DataError, match=rf"labels.csv:[23]: the interval from .* lies outside of .*run, .*{advice}"):
        make_task(write_folder(tmp_path, make_film(), labels), clock=clock).load(GREY, 0, 1)


def test_a_bag_without_a_labelled_message_is_named(tmp_path) -> None:
    write_folder(tmp_path, make_film())
    labels = LABELS + "late,0,2,cat\n"
    write_bag(
        tmp_path / "late", [(0, "/note", make_text(STORE, "x")), *((5 + s, t, m) for s, t, m in make_film())], STORE
    )
    (tmp_path / "labels.csv").write_text(labels)
    with pytest.raises(
        DataError, match=r"late: none of the 30 messages of /camera lies in .* from 5.000 s to 7.900 s$"
    ):
        make_task(tmp_path).load(GREY, 0, 1)


@pytest.mark.parametrize("bag", ["../run", "/run", "a/../run"])
def test_a_bag_has_one_spelling_in_the_folder(tmp_path, bag) -> None:
    folder = write_folder(tmp_path, make_film(), LABELS.replace("run,1.5", "./run,1.5"))
    assert len(levels_of(make_task(folder))) == 20
    (tmp_path / "labels.csv").write_text(LABELS.replace("run,1.5", "./run,1.4"))
    with pytest.raises(DataError, match=r"labels.csv:3: the interval of 'big_dog' overlaps that of 'cat'"):
        make_task(folder).load(GREY, 0, 1)
    (tmp_path / "labels.csv").write_text(LABELS.replace("run,1.5", f"{bag},1.5"))
    with pytest.raises(DataError, match=r"labels.csv:3: the bag .* must be a path in the labels' folder"):
        make_task(folder).load(GREY, 0, 1)


@pytest.mark.parametrize("other", ["Cat", "c_at", " C  at "])
def test_labels_of_one_name_are_refused(tmp_path, other) -> None:
    labels = LABELS.replace("big_dog", other).replace(",cat", ",cat" if other == "Cat" else ",c at")
    with pytest.raises(DataError, match=r"the classes .* and .* have one name, .*; spell the labels"):
        make_task(write_folder(tmp_path, make_film(), labels)).load(GREY, 0, 1)


def test_a_bag_that_the_labels_do_not_name_is_counted(tmp_path) -> None:
    task = make_task(write_folder(tmp_path, make_film()))
    assert not any("does not name" in note for note in task.notes())
    write_bag(tmp_path / "other" / "forgotten", make_film(), STORE)
    task = make_task(tmp_path)
    assert "1 bags that labels.csv does not name are left out" in task.notes()
