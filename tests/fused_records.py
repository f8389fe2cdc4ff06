"""Records of two sensors, alone and fused, with made flags."""

from dataclasses import replace
from fractions import Fraction

from rlbench.core import Adversarial, Clean, Missing, Perturbation, Record, Threat
from rlbench.core.sensors import join_fingerprints
from rlbench.store.flags import pack

EPS = (Fraction(1, 255), Fraction(2, 255))
EACH = [Adversarial("pgd", Threat("linf", eps, (s,))) for s, eps in zip(("image", "audio"), EPS, strict=True)]
ANY, ALL = (
    Adversarial("pgd", Threat("linf", EPS[1], ("image", "audio"), reach=reach, by_sensor=EPS))
    for reach in ("any 1", "all")
)
FLAGS: dict[tuple[str, Perturbation], str] = {
    ("image", Clean()): "11110000",
    ("audio", Clean()): "11111100",
    ("image", replace(EACH[0], threat=replace(EACH[0].threat, sensors=()))): "10000000",
    ("image+audio", Clean()): "11111110",
    ("image+audio", Missing(("image",))): "11111000",
    ("image+audio", Missing(("audio",))): "11110000",
    ("image+audio", EACH[0]): "11100110",
    ("image+audio", EACH[1]): "01111110",
    ("image+audio", ANY): "01100110",
    ("image+audio", ALL): "01000000",
}


DATA = {name: f"{name} 0" for name in ("image", "thermal", "audio")}


def fused_records(
    fusion: str = "sum", flags: dict = FLAGS, data: dict[str, str] = DATA, **more: object
) -> list[Record]:
    """A model's records on 8 examples.

    Args:
        fusion: name of the fusion of the tasks with several sensors.
        flags: by modality and perturbation, whether each example is right.
        data: by sensor, its data hash.
        more: provenance of the fused clean record.
    """
    found = []
    for k, ((modality, p), text) in enumerate(flags.items()):
        correct = [bit == "1" for bit in text]
        task = f"scenes:{modality}:{fusion}" if "+" in modality else f"scenes:{modality}"
        of = {name: data[name] for name in modality.split("+")}
        joint = join_fingerprints(of, "paired") if len(of) > 1 else data[modality]
        facts = {"protocol": f"p{p}", "data": joint, "anchors": "a", "seed": 0, "checkpoint": "c", "seen": 2}
        facts |= more if "+" in modality and p == Clean() else {}
        key = f"{k:08x}{len(fusion):08x}"
        found.append(
            Record(
                key=key,
                suite="made",
                suite_version=1,
                task=task,
                modality=modality,
                model="m:mini",
                backbone="mini",
                perturbation=p,
                n=8,
                n_correct=sum(correct),
                error=None,
                forwards=0,
                backwards=0,
                flags=pack(correct),
                provenance=facts,
            )
        )
    return found
