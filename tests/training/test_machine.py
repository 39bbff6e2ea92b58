"""What the recipe's ``machine`` section changes about a training, and what it must not: memory and kernels, never losses."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tests.training.processes import run
from tests.training.studies import RECIPE, one_line, recipe, rows, train

ALIGN, SFT = RECIPE["stages"]
SHORT = [{**ALIGN, "steps": 2, "checkpoint_every": None}, {**SFT, "steps": 5, "checkpoint_every": None}]
EXACT = ["step", "stage", "batch", "answer_tokens", "visual_tokens"]


def count_calls(out: Path) -> None:
    """In the training process: note at its end how often a layer of each part ran with gradients, and on what kernel.

    Under checkpointing every layer runs twice a micro-batch: forward, and again in the backward pass.
    """
    import torch

    from workbench.training.loop import Trainer

    trained = Trainer.train

    def train(self: Trainer) -> None:
        # inside a layer: transformers keeps a layer's own hooks out of what is computed again
        parts = {"encoder": self.model.encoder.layers[-1].attention, "fusion": self.model.fusion}
        parts |= {"llm": self.model.language_model.layers[-1].self_attn, "merger": self.model.merger}
        calls = dict.fromkeys(parts, 0)

        def note(name: str, *_: object) -> None:
            calls[name] += self.model.training and torch.is_grad_enabled()

        for name, module in parts.items():
            module.register_forward_pre_hook(functools.partial(note, name))
        trained(self)
        kernels = {
            "encoder": self.model.encoder.config._attn_implementation,
            "llm": self.model.language_model.config._attn_implementation,
        }
        out.write_text(json.dumps({"calls": calls, "kernels": kernels}))

    Trainer.train = train  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train under a ``machine`` section: (rows, what ``count_calls`` noted); each section once."""
    folder = tmp_path_factory.mktemp("machine")

    @functools.cache
    def train(**machine: object) -> tuple:
        name = "-".join(map(str, machine.values())) or "plain"
        noted = folder / f"{name}.json"
        path = recipe(folder / name, stages=SHORT, machine=dict(machine))
        assert run(path, folder / name / "out", functools.partial(count_calls, noted)) == 0
        return rows(folder / name / "out" / "runs" / "base-s0"), json.loads(noted.read_text())

    return train


def test_gradient_checkpointing_changes_no_loss_and_runs_every_layer_twice(trained):
    expected, before = trained()
    found, after = trained(gradient_checkpointing=True)
    assert found[EXACT].equals(expected[EXACT])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found["grad_norm"], expected["grad_norm"], rtol=1e-5)
    for part in ("encoder", "fusion", "llm"):
        assert after["calls"][part] == 2 * before["calls"][part] > 0, part
    assert after["calls"]["merger"] == before["calls"]["merger"] > 0  # small: kept, not computed again


def test_eager_attention_equals_the_packed_kernel(trained):
    expected, before = trained()
    found, after = trained(attention="eager")
    assert before["kernels"] == {"encoder": "sdpa", "llm": "sdpa_packed"}
    assert after["kernels"] == {"encoder": "eager", "llm": "eager"}
    assert found[EXACT].equals(expected[EXACT])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=0, atol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="FlashAttention is installed")
def test_flash_attention_that_is_not_installed_is_one_clear_error(tmp_path):
    path = recipe(tmp_path, stages=SHORT, machine={"attention": "flash_attention_2"})
    said = one_line(train(path, tmp_path / "out"))
    assert "the package flash_attn is not installed" in said
    assert "machine.attention: sdpa" in said and "pip install --no-build-isolation" in said
    assert not (tmp_path / "out").exists()  # said before any process was started


def test_an_unknown_kernel_is_refused_with_the_line_of_the_recipe(tmp_path):
    path = recipe(tmp_path, machine={"attention": "flash"})
    said = one_line(train(path, tmp_path / "out"))
    assert said.startswith(f"{path}:") and "attention" in said and "sdpa" in said
    assert not (tmp_path / "out").exists()
