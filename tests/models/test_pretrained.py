"""Published parts land in the model unchanged (tiny random SigLIP2 and Qwen3 checkpoints saved to disk, read back)."""

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Siglip2VisionConfig, Siglip2VisionModel

from tests.training.worlds import TEXTS
from workbench.errors import CheckpointError
from workbench.models.tempflex import new_tempflex
from workbench.models.tempflex.pretrained import load_parts


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(1)
    model, _ = new_tempflex("tiny", seed=0, vocab_texts=TEXTS)
    text = model.config.text_config
    Qwen3ForCausalLM(
        Qwen3Config(**{k: v for k, v in text.to_dict().items() if k != "model_type"})
    ).save_pretrained(folder / "llm")
    vision = Siglip2VisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        patch_size=8,
        num_patches=16,
    )
    Siglip2VisionModel(vision).save_pretrained(folder / "siglip2")
    return folder


def test_parts_are_copied(parts):
    model, _ = new_tempflex("tiny", seed=0, vocab_texts=TEXTS)
    load_parts(model, str(parts / "siglip2"), str(parts / "llm"))
    llm = Qwen3ForCausalLM.from_pretrained(parts / "llm")
    ids = torch.randint(3, 20, (2, 9))
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids).logits, llm(input_ids=ids).logits, atol=1e-5, rtol=1e-5
        )
        theirs = Siglip2VisionModel.from_pretrained(parts / "siglip2")
        pixels = torch.randn(1, 12, 192)
        out = theirs(pixels, torch.ones(1, 12), torch.tensor([[3, 4]])).last_hidden_state
        torch.testing.assert_close(model.encoder(pixels, 3, 4), out, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder, llm", [("llm", None), (None, "siglip2"), ("nowhere", None)])
def test_the_wrong_part_is_named(parts, encoder, llm):
    model, _ = new_tempflex("tiny", seed=0, vocab_texts=TEXTS)
    with pytest.raises(CheckpointError, match=r"cannot take the (encoder|language model) from"):
        load_parts(model, encoder and str(parts / encoder), llm and str(parts / llm))
