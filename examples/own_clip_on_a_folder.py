# %% [markdown]
# # Your own CLIP on your own pictures
#
# An encoder in a file, a suite over a folder, and the commands: `run`, `audit`, `check` and `leaderboard`.

# %%
import os
import shlex
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from rlbench.cli.main import main

os.chdir(tempfile.mkdtemp())


def rlbench(command: str) -> None:
    """Runs a command as in a terminal."""
    print(f"$ rlbench {command}")
    if main(shlex.split(command), prog_name="rlbench", standalone_mode=False):
        raise SystemExit(f"rlbench {command} failed")


# %% [markdown]
# ## A folder of pictures
#
# `photos/train/CLASS/*.png` and `photos/test/CLASS/*.png`. Yours is there already; this one is drawn.

# %%
torch.manual_seed(0)
CLASSES = {"stripes": 0, "columns": 1, "checks": 2}


def draw(label: int) -> torch.Tensor:
    """A picture (3, 32, 32) in [0, 1] of stripes, columns or checks in a random colour."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    phase, wave = 6.28 * torch.rand(2), 0.6 + 0.4 * torch.rand(1)
    across, down = torch.sin(wave * rows + phase[0]), torch.sin(wave * columns + phase[1])
    pattern = (across, down, across * down)[label]
    colour = 0.04 + 0.05 * torch.rand(3, 1, 1)
    return (0.5 + colour * pattern + 0.03 * torch.randn(3, 32, 32)).clamp(0, 1)


for split, n in (("train", 60), ("test", 20)):
    for name, label in CLASSES.items():
        folder = Path("photos", split, name)
        folder.mkdir(parents=True)
        for k in range(n):
            pixels = (draw(label) * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{k:03}.png")

# %% [markdown]
# ## An encoder and a suite
#
# `rlbench new` writes both files. Look at them: `mine.py` has a picture tower and a text tower, `photos.yaml` the
# classes and what to run.

# %%
rlbench("new encoder mine")
rlbench("new suite photos")
print(Path("photos.yaml").read_text())

# %% [markdown]
# The tower of `mine.py` has random weights. Train it for a moment on the training pictures, so that a picture's
# embedding is near that of its class name, and let `make` load the weights.

# %%
text = Path("mine.py").read_text()
text = text.replace(
    "return encoder.eval()",
    'encoder.load_state_dict(torch.load("mine.pt", weights_only=True))\n    return encoder.eval()',
)
torch.save({}, "mine.pt")
namespace: dict[str, object] = {"__name__": "mine"}
exec(Path("mine.py").read_text(), namespace)
encoder = namespace["make"]().requires_grad_(True)
anchors = encoder.embed_text([f"a photo of {name}." for name in CLASSES])
optimiser = torch.optim.Adam(encoder.parameters(), lr=0.003)
for _ in range(60):
    y = torch.randint(3, (64,))
    x = torch.stack([draw(int(label)) for label in y])
    loss = cross_entropy(encoder.logit_scale * encoder.embed(x, "image") @ anchors.T, y)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
torch.save(encoder.state_dict(), "mine.pt")
Path("mine.py").write_text(text)

# %% [markdown]
# ## Run it
#
# The table has the accuracy under every perturbation. The same command again continues an interrupted run.

# %%
rlbench("run --suite photos.yaml --model mine:make --examples 30 --workers 1 --quiet")

# %% [markdown]
# ## Can the numbers be trusted?
#
# `rlbench audit` without `--check` makes all 21 checks.

# %%
rlbench("audit --suite photos.yaml --model mine:make --examples 15 --check H4 --check S1 --check S9 --quiet")

# %% [markdown]
# ## Keep it from getting worse
#
# `--update` writes reference records; from then on `rlbench check` fails if a cell drops significantly.

# %%
gate = "check --suite photos.yaml --model mine:make --records rlbench-results --reference references.jsonl"
rlbench(f"{gate} --update")
rlbench(gate)

# %% [markdown]
# ## A page and a report

# %%
rlbench("leaderboard --records rlbench-results --html site")
rlbench("report mine:make --out mine.md")
print(Path("mine.md").read_text())
