"""Configuration of TempFlex-VL (science.md section 1): encoder, fusion, merger and language model in one JSON
file."""

# No postponed annotations here: strict validates the types it finds, and strings it would not check.
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


@strict
class TempFlexVisionConfig(PreTrainedConfig):
    """A SigLIP2-NaFlex encoder. Defaults are so400m-patch16-naflex.

    ``position_rows`` x ``position_cols`` is the table of learned positions. ``interpolation``: ``"resize"``
    (release) resizes the table to each patch grid, bilinear and antialiased; ``"extended"`` (paper: 2048
    entries, here 32 x 64) samples a table that was enlarged beforehand, bilinear without antialiasing.
    ``max_patches`` caps one frame, before merging: 8192 patches are the paper's 2048 tokens.
    ``position_std`` is the initial scale of the table.
    """

    model_type = "tempflex_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    patch_size: int = 16
    position_rows: int = 16
    position_cols: int = 16
    interpolation: Literal["resize", "extended"] = "resize"
    max_patches: int = 8192
    layer_norm_eps: float = 1e-6
    position_std: float = 0.02

    def validate_architecture(self) -> None:
        """Part of the strict validation: heads divide the width."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads"
            )


@strict
class TempFlexConfig(PreTrainedConfig):
    """The whole model.

    ``fusion_depth`` 0 leaves Temporal Fiber Fusion out; ``use_fusion`` says whether a fusion that exists is
    run (stages 1 and 2 train without it, stage 3 switches it on). ``images``: still images go ``"through"``
    the fusion (as released) or ``"bypass"`` it. ``pool_to`` averages time down to at most so many frames
    after the fusion (release: 32). ``newline`` adds a learned vector after every frame (release).
    ``merger_gain`` scales the merger's freshly drawn output weights: above 1, visual tokens keep their identity in a
    language model that is itself untrained. ``encoding`` and ``tile_size``: see ``encodings.py``.
    """

    model_type = "tempflex"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig, "vision_config": TempFlexVisionConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    text_config: Any = None  # a PreTrainedConfig once built; a dict or None when read
    vision_config: Any = None
    fusion_depth: int = 0
    fusion_variant: Literal["paper", "release"] = "paper"
    fusion_frequencies: list[int] | tuple[int, ...] = (1, 2, 4, 8, 16)
    fusion_local_hidden: int | None = None
    fusion_ffn_hidden: int | None = None
    use_fusion: bool = True
    images: Literal["through", "bypass"] = "through"
    merge: Literal["2x2", "strip4"] = "2x2"
    merger_hidden: int | None = None
    merger_gain: float = 1.0
    pool_to: int | None = None
    newline: bool = False
    encoding: Literal["native", "fixed", "tiled"] = "native"
    tile_size: int = 384
    visual_token_id: int = 151655
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.vision_config, dict):
            self.vision_config = TempFlexVisionConfig(**self.vision_config)
        elif self.vision_config is None:
            self.vision_config = TempFlexVisionConfig()
        if isinstance(self.text_config, dict):
            values = dict(self.text_config)
            self.text_config = AutoConfig.for_model(values.pop("model_type", "qwen3"), **values)
        elif self.text_config is None:
            self.text_config = AutoConfig.for_model("qwen3")
        self.fusion_frequencies = list(self.fusion_frequencies)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Part of the strict validation: sizes that the encodings can cut into whole merged cells."""
        if self.pool_to is not None and self.pool_to < 1:
            raise ValueError(f"pool_to must be at least 1 or null, found {self.pool_to}")
        if self.fusion_depth < 0:
            raise ValueError(f"fusion_depth must be 0 or more, found {self.fusion_depth}")
        if self.tile_size % (2 * self.vision_config.patch_size):
            raise ValueError(f"tile_size {self.tile_size} is not a multiple of twice the patch size")
