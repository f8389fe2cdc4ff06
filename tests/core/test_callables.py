"""MODULE:CALLABLE: found in the working directory, shadows nothing, mistakes are one line; cards name no code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from commands import Call, fails

from rlbench.core import callables, sources
from rlbench.core.errors import CheckpointError, RLBenchError, UnknownName
from rlbench.encoders.cards import read_card
from rlbench.encoders.models import resolve, resolve_plain
from rlbench.gate.check import list_models
from rlbench.training.campaign_file import read_campaign

OWN = "import near\nfrom rlbench.encoders.linear import Linear\ndef make(): return near.made(Linear)\n"
NEAR = "def made(kind):\n    import later\n    one = kind(); one.sha256_of = later.X\n    return one\n"


def _command(folder: Path, *arguments: str, module: bool = False) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, *(["-m", "rlbench"] if module else ["-P", "-m", "rlbench"])]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*start, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
@pytest.mark.parametrize("module", [False, True])
def test_workers_find_a_module_of_the_working_directory(tmp_path: Path, module: bool) -> None:
    (tmp_path / "beside.py").write_text(OWN)
    (tmp_path / "near.py").write_text(NEAR)
    (tmp_path / "later.py").write_text("X = 1\n")
    (tmp_path / "yaml.py").write_text("open('RAN', 'w')\n")  # hides no installed module
    (tmp_path / "flash_attn.py").write_text("open('RAN', 'w')\n")  # what a library may look for
    done = _command(
        tmp_path,
        *["run", "--suite", "smoke", "--model", "beside:make", "--examples", "8", "--workers", "2", "--json"],
        module=module,
    )
    assert done.returncode == 0, done.stderr
    assert '"model": "beside:make"' in done.stdout and not (tmp_path / "RAN").exists()


MISTAKES = {
    "absent:make": ("'absent' can't be imported: there is no module 'absent'", "working directory or on PYTHONPATH"),
    "absent.inner:make": ("there is no module 'absent'",),
    "pack.inner:make": ("'pack.inner' can't be imported: pack has no module 'inner'",),
    "needs:make": ("ModuleNotFoundError: No module named 'no_such_library' (needs.py, line 1)",),
    "wrong:make": ("SyntaxError", "(wrong.py, line 2)"),
    "exits:make": ("'exits' can't be imported: SystemExit: 3 (exits.py, line 2)",),
    "good.py:make": ("name the module without .py",),
    "good:nothing": ("good.py) has no callable 'nothing'",),
    "good:number": ("has no callable 'number'",),
    "good:asks": ("good:asks needs size, and is called without arguments",),
    "good:raises": ("good:raises raised ValueError: out of range (good.py, line 3)",),
    "good:empty": ("good:empty raised KeyError",),
    "good:none": ("returned NoneType, which is not an encoder",),
    "good:unknown": ("good:unknown: no model named 'fair'",),
    "./good:make": ("go to its folder and give MODULE:CALLABLE",),
    "__main__:make": ("can't be made in another process; write it to a file",),
    "json:make": ("json", "has no callable 'make'"),
    "click:make": ("has no callable 'make'; it hides the module of that name in the working directory: rename that",),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_line(tmp_path: Path, call: Call, name: str) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "needs.py").write_text("import no_such_library\n")
    (tmp_path / "wrong.py").write_text("x = 1\ndef make(:\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "click.py").write_text("def make(): ...\n")
    (tmp_path / "good.py").write_text(
        "number = 3\ndef asks(size, more=1): ...\ndef raises(): raise ValueError('out of range')\n"
        "def empty(): return {}['a']\ndef none(): ...\n"
        "def unknown():\n    import rlbench\n    return rlbench.load_encoder('fair')\n"
    )
    result = call("run", "--suite", "smoke", "--model", name, "--out", tmp_path / "out")
    fails(result, *MISTAKES[name], untouched=tmp_path / "out")


def test_another_working_directory_has_modules_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin.py").write_text(f"def make(): return {name!r}\n")
        monkeypatch.chdir(tmp_path / name)
        assert callables.call("twin:make") == name
    assert str(tmp_path) not in " ".join(sys.path)


def test_a_module_on_pythons_path_stays_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its folder lies in the working directory, as a virtual environment or a folder of tests does."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "stays_imported.py").write_text("def make(): return 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "place")
    callables.call("stays_imported:make")
    module = sys.modules["stays_imported"]
    monkeypatch.chdir(tmp_path / "place")
    callables.call("stays_imported:make")
    assert sys.modules["stays_imported"] is module


def test_a_misspelt_baseline_is_not_taken_for_a_module() -> None:
    with pytest.raises(UnknownName, match="did you mean 'rlbind:mini'"):
        resolve("rlbnd:mini")


def _card(folder: Path, file: str | None = None, **backbone: object) -> Path:
    entry = {} if file is None else {"file": file}
    whole = {"family": "mini", "modalities": {"thermal": entry}, **backbone}
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump({"baseline": "x", "summary": "s", "backbones": {"mini": whole}}))
    return path


@pytest.mark.parametrize("family", ["MODULE:CALLABLE", "beside:make", "hf:ID", "hf:x/y", "open_clip:ARCH/TAG", "a:b"])
def test_a_card_can_not_name_module_and_callable(tmp_path: Path, family: str) -> None:
    with pytest.raises(CheckpointError, match="a card may name languagebind, linear, mini; names with a colon"):
        read_card(_card(tmp_path, family=family))


@pytest.mark.parametrize("family", ["pgd", "beside", "rlbench.encoders.mini", "os", ""])
def test_a_card_names_a_registered_family(tmp_path: Path, family: str) -> None:
    with pytest.raises(UnknownName, match="no encoder named"):
        read_card(_card(tmp_path, family=family))


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "beside:make"},
        {"text": "/etc"},
        {"text": "../other"},
        {"text": "~/x"},
        {"text": "."},
        {"files": {"thermal": "x"}},
        {"fresh": ["a/b"]},
        {"a": {"b": ["C:\\x"]}},
    ],
)
def test_a_cards_fields_can_not_name_files_or_code(tmp_path: Path, fields: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="the fields of a card must not name files or folders"):
        read_card(_card(tmp_path, fields=fields))


@pytest.mark.parametrize("file", ["/etc/passwd", "../x.safetensors", "a/../../x", "..\\x"])
def test_a_cards_files_lie_in_its_folder(tmp_path: Path, file: str) -> None:
    with pytest.raises(CheckpointError, match="must lie in the card's folder"):
        read_card(_card(tmp_path, file=file))


def test_modules_in_a_cards_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("yaml", "beside", "torch", "numpy", "click", "rlbench_extra", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('RAN', 'w').close()\ndef make(): ...\n")
    _card(tmp_path, family="MODULE:CALLABLE", fields={"source": "beside:make"})
    done = _command(tmp_path, "run", "--suite", "thermal", "--model", str(tmp_path), module=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "RAN").exists()


def test_a_callable_named_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole) -> None:
    from dataclasses import replace

    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside.py").write_text("open('RAN', 'w').close()\ndef make(): ...\n")
    with pytest.raises(RLBenchError, match="names the encoder beside:make, which would run code; if you trust it"):
        resolve_plain("beside:make", "the entry")
    with pytest.raises(RLBenchError, match="which would run code"):
        list_models([replace(whole[0], model="beside:make+jpeg")], [(whole[0].suite, "image")])
    campaign = tmp_path / "campaign.yaml"
    campaign.write_text(
        "modalities: [image]\nrounds: {'1': {}}\njobs: {a: {method: tecoa, set: {init: 'beside:make'}}}\n"
    )
    with pytest.raises(RLBenchError, match="the campaign names the encoder beside:make"):
        read_campaign(campaign, tmp_path)
    assert not (tmp_path / "RAN").exists() and resolve_plain("rlbind", "x").name == "rlbind:mini"


def test_the_modules_of_pythons_library_are_not_followed() -> None:
    """Reading all that json imports from its folder, the whole library, took seconds."""
    assert sources.find_local_modules("json") == {}
