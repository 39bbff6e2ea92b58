"""Parameter groups: a partition, by module and by layer, that agrees with what gradients reach."""

from __future__ import annotations

import pytest

from tests.models import worlds
from tests.models.hosts.tiny import KINDS, mixed, tiny_host
from workbench.models.groups import layer_groups
from workbench.training.packing import pack


@pytest.mark.parametrize("kind", KINDS)
def test_groups_of_hosts(kind):
    model, processor = tiny_host(kind)
    names = [name for name, _ in model.named_parameters()]
    groups, layers = model.module_groups(), layer_groups(model)
    for made in (groups, layers):
        assert sorted(name for part in made.values() for name in part) == sorted(names)
    assert {"encoder", "merger", "llm"} <= set(groups)
    (batch,) = pack(mixed(processor), 400, 8, processor.pad_token_id)
    model(**batch.model_inputs()).loss.backward()
    missing = {name for name, p in model.named_parameters() if p.grad is None}
    assert missing == set(groups.get("unused", ()))
    for part, modules in model.attention_layers().items():
        for i, name in enumerate(modules):
            module = model.get_submodule(name)
            own = {f"{name}.{inner}" for inner, _ in module.named_parameters()}
            if not own & missing:
                assert own <= set(layers[f"{part}.{i}"])
    assert [key for key in layers if key.startswith("llm.")] == ["llm.0", "llm.1", "llm.2", "llm.rest"]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == (kind == "qwen3_vl")  # counted once then, as named_parameters does


def test_groups_of_our_own_models():
    model, _ = worlds.model(fusion_layers=2)
    layers = layer_groups(model)
    assert sorted(n for part in layers.values() for n in part) == sorted(
        n for n, _ in model.named_parameters()
    )
    assert {"encoder.0", "fusion.0", "fusion.1", "merger", "llm.0", "llm.rest"} <= set(layers)
    assert all(name.startswith("fusion.layers.1.") for name in layers["fusion.1"])
