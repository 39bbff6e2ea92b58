"""The SigLIP2-NaFlex vision tower: pictures of one patch grid at a time, dense, without padding.

T pictures, P = rows * cols patches, D channels, H heads of E channels. Grouping pictures by grid replaces the
padded batch and attention mask of the usual implementation: pictures are isolated by construction and nothing
is computed for padding. The query, key and value projections are one matrix. Weights of transformers'
``Siglip2VisionModel`` load through ``from_siglip2`` (the pooling head has no counterpart: the LLM reads
patches).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from workbench.models.tempflex.configuration import TempFlexVisionConfig


def eager_attention(
    module: nn.Module,
    q_THPE: Tensor,
    k_THPE: Tensor,
    v_THPE: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Attention spelled out: output ``[T, P, H, E]`` and the weights ``[T, H, P, P]``."""
    scores = q_THPE @ k_THPE.transpose(-1, -2) * scaling
    weights = (
        (scores if mask is None else scores + mask).softmax(dim=-1, dtype=torch.float32).to(q_THPE.dtype)
    )
    return (weights @ v_THPE).transpose(1, 2), weights


class EncoderAttention(nn.Module):
    """Full self-attention inside each picture. The function is ``config._attn_implementation``, as in
    transformers."""

    is_causal = False

    def __init__(self, config: TempFlexVisionConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.heads = config.num_attention_heads
        self.scaling = (config.hidden_size // self.heads) ** -0.5
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x_TPD: Tensor) -> Tensor:
        t, p, d = x_TPD.shape
        q, k, v = self.qkv(x_TPD).view(t, p, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.config._attn_implementation in (None, "sdpa"):
            y = F.scaled_dot_product_attention(q, k, v, scale=self.scaling).transpose(1, 2)
        else:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
            y, _ = attend(self, q, k, v, None, scaling=self.scaling, dropout=0.0, is_causal=False)
        return self.out(y.reshape(t, p, d))


class EncoderLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer: x + attention(norm1 x), then x + MLP(norm2 x), GELU in its tanh form."""

    def __init__(self, config: TempFlexVisionConfig, layer_idx: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = EncoderAttention(config, layer_idx)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_TPD: Tensor) -> Tensor:
        x_TPD = x_TPD + self.attention(self.norm1(x_TPD))
        return x_TPD + self.fc2(F.gelu(self.fc1(self.norm2(x_TPD)), approximate="tanh"))


class NaFlexEncoder(PreTrainedModel):
    """Patches of pictures that share a grid -> features.

    ``forward(patches_TPC, rows, cols)``: ``[T, rows * cols, patch * patch * 3]`` -> ``[T, rows * cols, D]``.
    A ``PreTrainedModel`` so that ``set_attn_implementation({"vision_config": name})`` and checkpointing reach
    it.
    """

    config_class = TempFlexVisionConfig
    config: TempFlexVisionConfig
    main_input_name = "patches_TPC"
    input_modalities = "image"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["EncoderLayer"]  # noqa: RUF012 - declared by transformers

    def __init__(self, config: TempFlexVisionConfig) -> None:
        super().__init__(config)
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Parameter(
            torch.empty(config.position_rows * config.position_cols, config.hidden_size)
        )
        self.layers = nn.ModuleList(EncoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Positions at their own scale; linear maps and norms as torch starts them."""
        if module is self:
            nn.init.normal_(self.position_embedding, std=self.config.position_std)
        elif isinstance(module, nn.Linear | nn.LayerNorm):
            module.reset_parameters()

    def positions(self, rows: int, cols: int) -> Tensor:
        """The position table at this grid, ``[rows * cols, D]`` (bilinear, half-pixel centres; see the
        configuration)."""
        c = self.config
        return resize_table(
            self.position_embedding,
            (c.position_rows, c.position_cols),
            (rows, cols),
            antialias=c.interpolation == "resize",
        )

    def forward(self, patches_TPC: Tensor, rows: int, cols: int) -> Tensor:
        x_TPD = self.patch_embedding(patches_TPC.to(self.patch_embedding.weight.dtype)) + self.positions(
            rows, cols
        )
        for layer in self.layers:
            x_TPD = layer(x_TPD)
        return self.post_norm(x_TPD)


def resize_table(table: Tensor, size: tuple[int, int], to: tuple[int, int], antialias: bool) -> Tensor:
    """Bilinear resize of a table ``[size[0] * size[1], D]`` to ``[to[0] * to[1], D]``; in float32 (half types
    lack antialiasing)."""
    if size == to:
        return table
    image = table.view(1, *size, -1).permute(0, 3, 1, 2).float()
    out = F.interpolate(image, size=to, mode="bilinear", align_corners=False, antialias=antialias)
    return out[0].permute(1, 2, 0).reshape(to[0] * to[1], -1).to(table.dtype)


def from_siglip2(state: dict[str, Tensor], config: TempFlexVisionConfig) -> dict[str, Tensor]:
    """Weights of transformers' ``Siglip2VisionModel`` under our names, ready for
    ``NaFlexEncoder.load_state_dict``.

    | Siglip2VisionModel | here |
    |---|---|
    | ``embeddings.patch_embedding`` | ``patch_embedding`` |
    | ``embeddings.position_embedding.weight`` | ``position_embedding`` (resized if our table is larger) |
    | ``encoder.layers.i.layer_norm1`` / ``layer_norm2`` | ``layers.i.norm1`` / ``norm2`` |
    | ``encoder.layers.i.self_attn.{q,k,v}_proj`` | ``layers.i.attention.qkv`` (stacked in this order) |
    | ``encoder.layers.i.self_attn.out_proj`` | ``layers.i.attention.out`` |
    | ``encoder.layers.i.mlp.fc1`` / ``fc2`` | ``layers.i.fc1`` / ``fc2`` |
    | ``post_layernorm`` | ``post_norm`` |
    | ``head.*`` | left out |

    A leading ``vision_model.`` is accepted. Raises KeyError naming the first weight that is missing.
    """
    state = {k.removeprefix("vision_model."): v for k, v in state.items()}
    out: dict[str, Tensor] = {}

    def copy(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            out[f"{ours}.{part}"] = state[f"{theirs}.{part}"]

    copy("patch_embedding", "embeddings.patch_embedding")
    table = state["embeddings.position_embedding.weight"]
    side = int(len(table) ** 0.5)
    to = (config.position_rows, config.position_cols)
    out["position_embedding"] = resize_table(table, (side, side), to, antialias=False)
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers.{i}", f"encoder.layers.{i}"
        for a, b in (
            ("norm1", "layer_norm1"),
            ("norm2", "layer_norm2"),
            ("attention.out", "self_attn.out_proj"),
        ):
            copy(f"{ours}.{a}", f"{theirs}.{b}")
        for part in ("weight", "bias"):
            stacked = [state[f"{theirs}.self_attn.{n}_proj.{part}"] for n in "qkv"]
            out[f"{ours}.attention.qkv.{part}"] = torch.cat(stacked)
        for fc in ("fc1", "fc2"):
            copy(f"{ours}.{fc}", f"{theirs}.mlp.{fc}")
    copy("post_norm", "post_layernorm")
    return out
