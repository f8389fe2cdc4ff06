"""A campaign of three short training runs, two of which start from the first."""

from pathlib import Path

from rlbench.training.campaign_file import CampaignRun, read_campaign

SMALL = "examples: 64, batch: 32, validation: 16, epochs: 1, attack_steps: 1"
FILE = f"""
modalities: [thermal]
rounds: {{"1": {{seed: 0}}, "2": {{seed: 1}}}}
set: {{{SMALL}}}
jobs:
  languagebind: {{method: languagebind, rounds: ["1"]}}
  fare: {{method: fare, set: {{init: "@1/languagebind", original: "@1/languagebind"}}}}
"""


def campaign(tmp_path: Path, text: str = FILE) -> list[CampaignRun]:
    (tmp_path / "c.yaml").write_text(text)
    return read_campaign(tmp_path / "c.yaml", tmp_path / "out")
