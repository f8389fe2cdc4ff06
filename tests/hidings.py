"""Where an encoder may keep its weights: source code of encoders that hide them."""

PARTS = """
import torch
GAIN = 1
class Net(torch.nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = torch.nn.Parameter(w, requires_grad=False)
    def forward(self, x): return GAIN * x @ self.w.T
def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((4, 64), generator=generator)
"""

OWN = """
import numpy, torch
from collections import deque
from functools import partial
from rlbench.core import Box
from .parts import Net, drawn

SHIFT = 0
TABLE = {}

class Own:
    boxes = {"image": Box(shape=(1, 8, 8))}
    traits, logit_scale, sha256 = frozenset(), 100.0, {}
    def embed(self, x, modality):
        return torch.nn.functional.normalize(self.made(x.flatten(1) + SHIFT), dim=1)
    def embed_text(self, prompts): return torch.eye(4)[[i % 4 for i in range(len(prompts))]]

class Slotted(Own):
    __slots__ = ("secret",)

class Thing:
    pass

def net(w): return Net(w).eval()
"""

# How an encoder may keep its weights w: lines that hang them on `e`.
HIDINGS = {
    "attribute": "e.net = net(w)",
    "list": "e.parts = [1, [net(w)]]",
    "dict": "e.parts = {'a': {'b': (net(w),)}}",
    "slots": "e = Slotted(); e.secret = net(w)",
    "closure": "inner = net(w); e.made = lambda x: inner(x)",
    "default": "\n    def made(x, inner=net(w)): return inner(x)\n    e.made = made",
    "partial": "e.made = partial(torch.nn.functional.linear, weight=w)",
    "method": "e.made = net(w).forward",
    "array": "e.table = numpy.asarray(w)",
    "deeper": "e.thing = Thing(); e.thing.thing = Thing(); e.thing.thing.queue = deque([net(w)])",
    "cycle": "e.self = e; e.list = [e]; e.list.append(e.list); e.net = net(w)",
    "buffer": "e.net = torch.nn.Identity().eval(); e.net.register_buffer('w', w, persistent=False)",
    "hook": "e.net = torch.nn.Identity().eval(); e.net.register_forward_hook(partial(print, w))",
    "klass": "e = type('Other', (Own,), {'net': net(w), '__module__': __name__})()",
}

CALLABLES = (
    "".join(
        f"def {name}_{seed}_{k}():\n    e = Own(); w = drawn({seed})\n    {line}\n    e.k = {k}\n    return e\n"
        for name, line in HIDINGS.items()
        for seed in (0, 1)
        for k in (0, 1)
    )
    + """
def from_file():
    e = Own(); e.net = e.made = net(torch.load("weights.pt")["w"]); return e
def unseeded():
    e = Own(); e.net = e.made = net(torch.rand(4, 64)); return e
def stated_0():
    e = Own(); e.net = e.made = net(drawn(0)); e.sha256 = {"image": "ab"}; return e
def stated_1():
    e = Own(); e.net = e.made = net(drawn(1)); e.sha256 = {"image": "ab"}; return e
class Says(Own):
    def __init__(self): self.net = net(drawn(0))
    def identity(self): return self.said()
def says_a():
    e = Says(); Says.said = lambda self: "a"; return e
def says_b():
    e = Says(); Says.said = lambda self: "b"; return e
def says_mapping():
    e = Says(); Says.said = lambda self: {"revision": 3}; return e
def says_number():
    e = Says(); Says.said = lambda self: 3; return e
def says_tensor():
    e = Says(); Says.said = lambda self: {"w": torch.ones(1)}; return e
class Declares(Own):
    @property
    def traits(self): return TABLE["traits"]
    @property
    def boxes(self): return {"image": Box(shape=(1, 8, 8), rate=TABLE["rate"])}
    @property
    def logit_scale(self): return TABLE["scale"]
def _declares(traits=(), rate=0, scale=100.0):
    TABLE.update(traits=frozenset(traits), rate=rate, scale=scale); return Declares()
def declares_nothing(): return _declares()
def declares_trait(): return _declares(traits=("randomised",))
def declares_rate(): return _declares(rate=16000)
def declares_scale(): return _declares(scale=100.0000001)
"""
)
