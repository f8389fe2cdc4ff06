"""Sheets of several sensors: one block per sensor, of the same examples."""

from io import BytesIO

import pytest
import sensor_oracle as oracle
import torch
from PIL import Image

from rlbench.core.errors import FieldError
from rlbench.core.suite import load_suite
from rlbench.report.figures import sheets
from rlbench.report.figures.sensor_sheets import draw_sheet, split_sheet

ENTRY = "{attack: pgd, norm: linf, eps: 0.03, steps: 3, sensors: %s}"


def test_a_sheet_has_each_sensor_in_its_own_box(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RLBENCH_PLUGINS", "sensor_oracle")
    suite = load_suite(oracle.suite_file(tmp_path, ENTRY % "any 1", ENTRY % "thermal"))
    column = sheets.choose(suite)
    assert str(column) == "pgd(steps=3) linf 0.03 on thermal"  # any 1 is no single attack
    with pytest.raises(FieldError, match="is the worst case over several attacks"):
        sheets.choose(suite, "pgd(steps=3) linf 0.03 on any 1")
    sheet = sheets.collect(suite, "sensor_oracle:linear_sensors", column, 6)
    parts = {part.modality: part for part in split_sheet(sheet)}
    for sensor, part in parts.items():
        x = oracle.Dots(modality=sensor).load(oracle.BOXES[sensor], 0, 6).x
        assert torch.allclose(part.x, x, atol=1e-6) and part.box == oracle.BOXES[sensor]
        assert torch.equal(part.x, part.x_adv) == (sensor != "thermal")
    width, height = Image.open(BytesIO(draw_sheet(sheet))).size
    assert height > width
