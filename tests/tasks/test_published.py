"""Published sets of pictures: small trees of every layout, read like the data sets; errors name what is wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from rlbench.core import Box, registry
from rlbench.core.errors import DataError, FieldError
from rlbench.core.suite import load_suite
from rlbench.encoders.heads import prompts
from rlbench.tasks.published import Published
from rlbench.tasks.trees import load_names

RGB, GREY, DEPTH = Box(shape=(3, 32, 32)), Box(shape=(1, 32, 32)), Box(shape=(1, 16, 16))
ALL = [name for name in registry.names("task") if isinstance(registry.factory("task", name), type)]
SETS = [name for name in ALL if issubclass(registry.factory("task", name), Published)]
CLASSES = {
    "imagenet": 1000,
    "cifar10": 10,
    "cifar100": 100,
    "caltech101": 102,
    "esc50": 50,
    "urbansound8k": 10,
    "llvip": 2,
    "flir-v1": 4,
    "flir-v2": 12,
    "ucf101": 101,
    "kinetics400": 400,
    "nyud": 10,
}


def _task(name: str, root: Path, **fields):
    return registry.make("task", name, {"root": str(root), **fields})


def _picture(path: Path, value: int = 100, size: tuple[int, int] = (40, 32), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path)


@pytest.mark.parametrize(("name", "count"), CLASSES.items())
def test_the_classes_are_there_without_data(name, count) -> None:
    task = registry.make("task", name)
    labels, words = [one.label for one in task.classes], [one.name for one in task.classes]
    assert len(task.classes) == len(set(labels)) == count and all(word == word.strip() for word in words)
    assert all("{}" in template for template in task.templates)


def test_names_and_templates_are_the_sources_own() -> None:
    # OpenAI's notebook: classes 0, 1, 134, 517, 999, and the first and last of the 80 templates.
    imagenet = load_names("imagenet")
    assert [imagenet[k].name for k in (0, 1, 999)] == ["tench", "goldfish", "toilet paper"]
    assert imagenet[134].name == "crane bird" and imagenet[517].name == "construction crane"
    assert [imagenet[k].label for k in (0, 999)] == ["n01440764", "n15075141"]
    task = registry.make("task", "imagenet")
    assert len(set(task.templates)) == 80
    assert (task.templates[0], task.templates[-1]) == ("a bad photo of a {}.", "a tattoo of the {}.")
    assert prompts("tench", task.templates[:1]) == ["a bad photo of a tench."]
    depth, video = (registry.make("task", name).templates for name in ("nyud", "kinetics400"))
    assert depth[0] == "a bad depth photo of a {}." and video[0] == "a bad video of a {}."
    assert [one.name for one in load_names("esc50")][10:12] == ["clock alarm", "clock tick"]


@pytest.mark.parametrize("name", SETS)
def test_without_data_the_error_tells_where_to_get_it(name, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("RLBENCH_DATA", raising=False)
    source = registry.factory("task", name).source
    with pytest.raises(DataError, match="RLBENCH_DATA") as caught:
        registry.make("task", name).size("test")
    assert source.url in str(caught.value) and source.licence in str(caught.value)
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"there is no folder {tmp_path / source.folder}; get "):
        registry.make("task", name).size("test")
    (tmp_path / source.folder).mkdir()
    with pytest.raises(DataError, match=r" has no .*; .* must contain "):
        registry.make("task", name).size("test")


def _synsets(count: int = 3) -> list[str]:
    return [one.label for one in load_names("imagenet")[:count]]


def _tree(root: Path) -> Path:
    for k, synset in enumerate(_synsets()):
        for n in range(k + 1, 13, 3):
            _picture(root / "val" / synset / f"ILSVRC2012_val_{n:08d}.JPEG", 20 * n)
    return root


def _flat(root: Path, kind: str) -> Path:
    """The same pictures in one folder, with one of the lists of labels."""
    truth = [_synsets()[(n - 1) % 3] for n in range(1, 13)]
    for n in range(1, 13):
        _picture(root / "val" / f"ILSVRC2012_val_{n:08d}.JPEG", 20 * n)
    if kind == "kaggle":
        rows = [f"ILSVRC2012_val_{n:08d},{synset} 1 2 3 4 " for n, synset in enumerate(truth, 1)]
        (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    elif kind == "synsets":
        (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(truth) + "\n")
    else:
        data = root / "ILSVRC2012_devkit_t12" / "data"
        data.mkdir(parents=True)
        kinds = [("ILSVRC2012_ID", "i4"), ("WNID", "O")]
        savemat(data / "meta.mat", {"synsets": np.array([(7 - k, s) for k, s in enumerate(_synsets())], dtype=kinds)})
        numbers = [str(7 - (n - 1) % 3) for n in range(1, 13)]
        (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(numbers) + "\n")
    return root


@pytest.mark.parametrize("kind", ["kaggle", "synsets", "devkit"])
def test_every_layout_of_imagenet_is_one_data_set(tmp_path, kind) -> None:
    tree, flat = (_task("imagenet", root) for root in (_tree(tmp_path / "tree"), _flat(tmp_path / "flat", kind)))
    one, other = tree.load(RGB, 0, 12), flat.load(RGB, 0, 12)
    assert one.ids == other.ids and torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert tree.fingerprint() == flat.fingerprint()
    assert one.y.tolist() == [0, 1, 2] * 4  # classes in turns: every prefix is balanced
    for example, y, x in zip(one.ids, one.y.tolist(), one.x, strict=True):
        n = int(example.removeprefix("ILSVRC2012_val_"))
        assert y == (n - 1) % 3 and float(x.mean()) == pytest.approx(20 * n / 255, abs=2 / 255)
    assert tree.size("train") == 0


def test_a_class_that_imagenet_does_not_have(tmp_path) -> None:
    _picture(_tree(tmp_path) / "val" / "n00000000" / "a.JPEG")
    with pytest.raises(DataError, match=r"n00000000 is none of the 1000 classes, such as 'n01440764'; remove it"):
        _task("imagenet", tmp_path).size("test")


def _cifar(root: Path, kind: str, layout: str) -> np.ndarray:
    """Six pictures in CIFAR's layouts: plane by plane, rows from the top; (6, 3072) uint8."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    labels = [k + 3 for k in range(6)]
    if layout == "binary":
        folder = root / {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[kind]
        name = {"cifar10": "test_batch.bin", "cifar100": "test.bin"}[kind]
        heads = [[y] if kind == "cifar10" else [0, y] for y in labels]
        content = b"".join(bytes(head) + row.tobytes() for head, row in zip(heads, pictures, strict=True))
    else:
        folder = root / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[kind]
        name = {"cifar10": "test_batch", "cifar100": "test"}[kind]
        content = pickle.dumps({"data": pictures, {"cifar10": "labels", "cifar100": "fine_labels"}[kind]: labels})
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return pictures


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("layout", ["binary", "python"])
def test_cifar_is_read_bit_for_bit(tmp_path, kind, layout) -> None:
    pictures = _cifar(tmp_path, kind, layout)
    task = _task(kind, tmp_path)
    examples = task.load(RGB, 0, 6)
    rows = [int(name.split("/")[1]) for name in examples.ids]
    np.testing.assert_array_equal(examples.x.numpy() * 255, pictures[rows].reshape(6, 3, 32, 32).astype(np.float32))
    assert examples.y.tolist() == [k + 3 for k in rows] and sorted(rows) == list(range(6))
    assert task.load(Box(shape=(3, 64, 64)), 0, 1).x.shape == (1, 3, 64, 64)


class _Call:
    def __reduce__(self):
        return print, ("this was run",)


def test_a_pickle_with_code_is_refused(tmp_path, capsys) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps({"data": _Call(), "labels": []}))
    with pytest.raises(
        DataError, match=r"test_batch: it asks for (builtins|__builtin__)\.print, which this file does not"
    ):
        _task("cifar10", tmp_path).size("test")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3072), "has 3072 bytes; they must be records of 3073"),
        (bytes([10]) + bytes(3072), "has labels above 9"),
        (b"", "has 0 bytes"),
    ],
)
def test_a_cut_file_of_cifar(tmp_path, content, message) -> None:
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        _task("cifar10", tmp_path).size("test")


def test_caltech_and_its_folders(tmp_path) -> None:
    for k, label in enumerate(("BACKGROUND_Google", "Faces_easy", "yin_yang")):
        _picture(tmp_path / "101_ObjectCategories" / label / "image_0001.jpg", 60 * k)
    task = _task("caltech101", tmp_path)
    examples = task.load(RGB, 0, 9)
    assert [task.classes[y].name for y in examples.y] == ["background", "centered face", "yin and yang symbol"]
    assert examples.ids[2] == "yin_yang/image_0001.jpg" and task.size("test") == 3


def test_depth_is_in_metres_of_ten(tmp_path) -> None:
    for label, millimetres in (("home_office", 2500), ("Kitchen", 60_000)):
        place = tmp_path / "data" / "val" / label
        place.mkdir(parents=True)
        Image.fromarray(np.full((24, 32), millimetres, dtype=np.uint16)).save(place / "00001.png")
    task = _task("nyud", tmp_path)
    examples = task.load(DEPTH, 0, 2)
    assert [task.classes[y].name for y in examples.y] == ["home office", "kitchen"]
    assert torch.allclose(examples.x[0], torch.tensor(0.25)) and torch.allclose(examples.x[1], torch.tensor(1.0))
    assert torch.equal(task.load(Box(shape=(3, 16, 16)), 0, 1).x[0, 2], examples.x[0, 0])
    _picture(tmp_path / "data" / "val" / "office" / "grey.png", mode="L")
    with pytest.raises(DataError, match=r"grey.png is L; a depth picture has 16 bits"):
        _task("nyud", tmp_path).load(DEPTH, 0, 3)
    with pytest.raises(DataError, match="depth is for square boxes"):
        task.load(Box(shape=(1, 16, 24)), 0, 1)


def test_the_fingerprint_depends_on_names_labels_and_sizes(tmp_path) -> None:
    task = _task("imagenet", _tree(tmp_path))
    seen = {task.fingerprint()}
    assert _task("imagenet", tmp_path).fingerprint() in seen
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    assert _task("imagenet", tmp_path / "elsewhere").fingerprint() in seen
    first = tmp_path / "val" / _synsets()[0] / "ILSVRC2012_val_00000001.JPEG"
    first.write_bytes(first.read_bytes() + b" ")
    seen.add(_task("imagenet", tmp_path).fingerprint())
    first.rename(tmp_path / "val" / _synsets()[1] / first.name)
    seen.add(_task("imagenet", tmp_path).fingerprint())
    (tmp_path / "val" / _synsets()[1] / first.name).unlink()
    seen.add(_task("imagenet", tmp_path).fingerprint())
    assert len(seen) == 4


def test_a_suite_names_the_copy_relative_to_itself(tmp_path, monkeypatch) -> None:
    _tree(tmp_path / "tree")
    head = "suite: mine\nversion: 1\nsummary: S.\nmodality: image\n"
    text = head + "task: {name: imagenet, root: ROOT}\nperturbations: [clean]\n"
    path = tmp_path / "mine.yaml"
    monkeypatch.chdir("/")
    path.write_text(text.replace("ROOT", "tree"))
    near = load_suite(path)
    monkeypatch.setenv("RLBENCH_DATA", str(tmp_path))
    path.write_text(text.replace("ROOT", '"${RLBENCH_DATA}/tree"'))
    assert near.task_name == "imagenet" and near.task.size("test") == 12
    assert load_suite(path).task.fingerprint() == near.task.fingerprint()


@pytest.mark.parametrize(("name", "fields"), [("esc50", {"folds": [6]}), ("urbansound8k", {"folds": []})])
def test_invalid_folds_are_refused(name, fields) -> None:
    with pytest.raises(FieldError, match=f"{name}: folds is .*; it must be one or more of 1 to"):
        registry.make("task", name, fields)
