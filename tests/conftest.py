"""One thread for every test: two on a busy machine can be a hundred times slower at batch 1."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
