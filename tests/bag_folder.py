"""A folder with one bag of a grey camera, whose levels are the numbers of its messages, and the task that reads it."""

import numpy as np
from bags import make_image, make_store, write_bag

from rlbench.core import Box, registry

GREY = Box(shape=(1, 8, 8))
STORE = make_store()
LABELS = "bag,start,end,label\nrun,0.5,1.5,cat\nrun,1.5,2.5,big_dog\n"


def make_level(value: int, encoding: str = "mono8", **more):
    return make_image(STORE, np.full((8, 8), value, np.uint16 if "16" in encoding else np.uint8), encoding, **more)


def make_task(folder, modality="image", **fields):
    values = {"data": str(folder), "topic": "/camera", "modality": modality, "per_second": 10.0, **fields}
    return registry.make("task", "rosbag", values)


def write_folder(folder, messages, labels=LABELS, name="run"):
    write_bag(folder / name, messages, STORE)
    (folder / "labels.csv").write_text(labels)
    return folder


def make_film(count=30):
    """Ten images a second; the grey level is the number of the message."""
    return [(k / 10, "/camera", make_level(k)) for k in range(count)]


def levels_of(task, box=GREY):
    """The number of the message of each example, and its label."""
    examples = task.load(box, 0, 1000)
    numbers = (examples.x.flatten(1).mean(1) * 255).round().int().tolist()
    return sorted(zip(numbers, [task.classes[y].label for y in examples.y], strict=True))
