# %% [markdown]
# # Train RLBind and TeCoA, and compare them
#
# Both fine-tune the bundled backbone `mini` on the thermal world. A few steps show how it works; the bundled models
# `rlbind` and `tecoa` were trained by the whole recipes, with equal numbers of steps, and are the ones to compare.

# %%
import os
import shlex
import tempfile

from rlbench.cli.main import main

os.chdir(tempfile.mkdtemp())
STEPS, EXAMPLES = 30, 40  # without the options below, training takes the whole recipes: some minutes


def rlbench(command: str) -> None:
    """Runs a command as in a terminal."""
    print(f"$ rlbench {command}")
    if main(shlex.split(command), prog_name="rlbench", standalone_mode=False):
        raise SystemExit(f"rlbench {command} failed")


# %% [markdown]
# ## Train
#
# RLBind's second stage starts from its bundled first stage, TeCoA from the backbone: after so few steps, that head
# start is most of the difference between them. The run folders are model names.

# %%
length = f"--modality thermal --set steps={STEPS} --set examples=1500 --set lr=0.0005 --set validation=50 --quiet"
rlbench(f"train rlbind --stage 2 --out my-rlbind {length}")
rlbench(f"train tecoa --out my-tecoa {length}")

# %% [markdown]
# ## Measure
#
# The models of these short runs and the bundled ones, on the same test examples.

# %%
with open("small.yaml", "w") as file:
    file.write("""suite: small
version: 1
summary: The thermal world, attacked in Linf.
modality: thermal
task: {name: thermal-world, domain: sensor, subset: seen}
examples: 100
seed: 0
perturbations:
  - clean
  - {attack: pgd, norm: linf, eps: [2/255, 4/255]}
  - {attack: apgd-ce, norm: linf, eps: 4/255}
  - worst
""")
models = "--model my-rlbind --model my-tecoa --model rlbind --model tecoa"
rlbench(f"run --suite small.yaml {models} --examples {EXAMPLES} --workers 1 --quiet")

# %% [markdown]
# ## Compare
#
# Paired tests on the same examples: is a difference of the bundled models more than chance? With so few examples it
# seldom is; leave out `--examples`, and see the leaderboard `mini` for three rounds of 300.

# %%
rlbench("compare tecoa rlbind")
rlbench("plot rlbench-results --kind curves --kind board --out figures")
