"""The trials of `benchmarks/sensor_terms.py` by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BACKBONE = "mini-scenes"


@dataclass(frozen=True)
class Trial:
    """A method with fields that replace its recipe's; `bundled`: only measure its bundled checkpoint."""

    method: str
    stage: int | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    bundled: bool = False


ALONE = {"objective.means": 0, "objective.fused": 0}
EXTRAS = ("joint", "negatives", "prototypes", "teacher")
TRIALS = {
    **{f"bundled {name}": Trial(name, bundled=True) for name in ("languagebind", "fare", "tecoa", "rlbind")},
    "tecoa": Trial("tecoa"),
    "fare-tecoa": Trial("fare-tecoa"),
    "rlbind-alone": Trial("rlbind", 2, ALONE),
    "rlbind": Trial("rlbind", 2),
    **{f"rlbind-alone + {name}": Trial("rlbind", 2, {**ALONE, f"extras.{name}": 1.0}) for name in EXTRAS},
    **{f"fare-tecoa + {name}": Trial("fare-tecoa", None, {f"extras.{name}": 1.0}) for name in EXTRAS},
    **{f"tecoa + {name}": Trial("tecoa", None, {f"extras.{name}": 1.0}) for name in EXTRAS},
    **{f"{name}, n-fgsm": Trial(name, None, {"adversary": "n-fgsm"}) for name in ("tecoa", "fare-tecoa")},
    "rlbind-alone, n-fgsm": Trial("rlbind", 2, {**ALONE, "adversary": "n-fgsm"}),
    **{f"{name}, awp": Trial(name, None, {"awp": 0.005}) for name in ("tecoa", "fare-tecoa")},
    "rlbind-alone, awp": Trial("rlbind", 2, {**ALONE, "awp": 0.005}),
    "ucat": Trial("ucat"),
    "tecoa, continued": Trial("tecoa", None, {"init": f"tecoa:{BACKBONE}", "lr": 0.001}),
    "tecoa, continued + joint": Trial("tecoa", None, {"init": f"tecoa:{BACKBONE}", "lr": 0.001, "extras.joint": 1.0}),
    "fare": Trial("fare"),
    "rlbind-alone, seen only": Trial("rlbind", 2, {**ALONE, "objective.original": 0, "prompts": "subset"}),
    "rlbind-alone, s = 10": Trial("rlbind", 2, {**ALONE, "objective.scale": 10.0}),
    "fare-tecoa, s = 10": Trial("fare-tecoa", None, {"objective.scale": 10.0}),
}
