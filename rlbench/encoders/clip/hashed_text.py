"""A frozen text tower without weights: it hashes words and character trigrams, and knows a few hypernyms.

Feature hashing as in Weinberger et al., 2009, https://arxiv.org/abs/0902.2206. Real text towers put all prompts close
together, and related ones closer; a plain hash does not. So a prompt is the sum of three unit vectors: of its words
(.35), of their hypernyms, such as "animal" for "dog" (.25), and one that all prompts share (.40).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

OWN, KIND, COMMON = 0.35, 0.25, 0.40
TEMPLATE_WEIGHT = 0.25
_TEMPLATE_WORDS = (
    "a an the of in on at to from with is are this that it its and or for by as no some through "
    "photo picture image drawing sketch rendering camera view shot frame recording sound sounds audio noise clip "
    "video film footage thermal infrared heat aerial seen above sky showing object thing something scene spoken "
    "blurry dark bright noisy small large old grainy close up someone hear heard background moving busy"
)
_TEMPLATE = frozenset(_TEMPLATE_WORDS.split())
_KINDS = {
    "animal": "dog cat bird horse cow sheep pig fish butterfly cheetah frog rooster hen crow insect insects snake "
    "rabbit crickets owl duck elephant bear deer bark barking chirp chirping meow animal paw",
    "person": "person people man woman child baby hand hands face pedestrian footsteps walking applause clap clapping "
    "laughing laughter sneezing coughing snoring breathing voice speech",
    "vehicle": "car truck bus van bicycle bike motorcycle airplane plane aircraft helicopter drone boat ship train "
    "tractor engine motor rocket tank",
    "building": "building house tent tower bridge chimney church castle window door wall roof",
    "machine": "pipe panel solar transformer pylon lamp iron radiator kettle laptop phone computer machine washing "
    "vacuum chainsaw drill saw keyboard clock fan pump",
    "food": "cup coffee mug bottle mushroom apple pear banana bread cake pizza tea pot fruit carrot lemon",
    "nature": "tree leaf flower cactus mountain hill rain wind thunder thunderstorm waves sea river water stream "
    "drops moon star sun cloud snow lightning",
    "fire": "campfire fire candle flame torch fireworks stove oven crackling",
    "tool": "key hammer scissors umbrella anchor spoon fork knife wrench glasses hat shoe chair table ladder hourglass",
    "shape": "ball box ring cross circle square triangle heart diamond arrow spiral hexagon crescent cube",
    "signal": "siren alarm beep bell bells whistle horn doorbell ringing ring tone buzzer telephone chime",
    "music": "guitar piano drum flute violin trumpet chord",
    "translation": "moving left right up down sliding drifting diagonally upwards downwards rising falling",
    "rotation": "rotating spinning turning swinging orbiting circling rolling clockwise",
    "flicker": "blinking flashing fading flickering appearing disappearing changing",
    "scaling": "growing shrinking pulsing stretching zooming squeezing splitting merging",
    "vibration": "bouncing shaking jumping vibrating wobbling zigzagging trembling",
}
_HYPERNYMS: dict[str, tuple[str, ...]] = {}
for _kind, _words in _KINDS.items():
    for _word in _words.split():
        _HYPERNYMS[_word] = (*_HYPERNYMS.get(_word, ()), _kind)


@cache
def _hash_vector(text: str, dim: int) -> np.ndarray:
    """A unit vector with coordinates of equal size and hashed signs (seeded by crc32), the same on any machine."""
    bits = np.random.Generator(np.random.Philox(zlib.crc32(text.encode()))).integers(0, 2, dim)
    return np.asarray((2.0 * bits - 1.0) / np.sqrt(dim))


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))


@dataclass(frozen=True, kw_only=True)
class HashedText:
    """The text tower of the mini encoders.

    Attributes:
        dim: the size of the embedding.
    """

    dim: int = 64

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """(P,) -> (P, dim) float32, unit norm."""
        rows = [self._prompt(prompt) for prompt in prompts]
        return torch.from_numpy(np.stack(rows)).float() if rows else torch.empty(0, self.dim)

    def _prompt(self, prompt: str) -> np.ndarray:
        words = re.findall(r"[^\W_]+", prompt.lower())
        own = sum((self._word(word) for word in words), np.zeros(self.dim))
        kinds = sorted({kind for word in words if word not in _TEMPLATE for kind in _HYPERNYMS.get(word, ())})
        kind = sum((_hash_vector(f"kind {kind}", self.dim) for kind in kinds), np.zeros(self.dim))
        common = _hash_vector("common", self.dim)
        return _unit(OWN**0.5 * _unit(own) + KIND**0.5 * _unit(kind) + COMMON**0.5 * common)

    def _word(self, word: str) -> np.ndarray:
        marked = f"<{word}>"
        trigrams = sum((_hash_vector(marked[i : i + 3], self.dim) for i in range(len(marked) - 2)), np.zeros(self.dim))
        vector = _unit(_hash_vector(f"word {word}", self.dim) + 0.5 * _unit(trigrams))
        return TEMPLATE_WEIGHT * vector if word in _TEMPLATE else vector
