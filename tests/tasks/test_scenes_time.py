"""The time that scenes take to render."""

import os
import subprocess
import sys

SPEED = """
import time
from rlbench.encoders.mini import BOXES
from rlbench.tasks.scenes import Scenes
worlds = {sensor: Scenes(modality=sensor, subset="all") for sensor in ("image", "thermal", "audio", "video")}
for k in (2, 66):
    before = time.process_time()
    for sensor, world in worlds.items():
        world.load(BOXES[sensor], 2 * k // 66, k)
print(time.process_time() - before)
"""


def test_a_thousand_scenes_in_four_sensors_take_ten_seconds_of_one_core() -> None:
    """Measured for 64, with a factor of three for slow machines."""
    one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    seconds = float(subprocess.check_output([sys.executable, "-c", SPEED], env=one_core))
    assert seconds < 3 * 10 * 64 / 1000
