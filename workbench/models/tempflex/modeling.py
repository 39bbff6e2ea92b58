"""TempFlex-VL: NaFlex encoder -> Temporal Fiber Fusion -> patch merger -> Qwen3 or Gemma3 (science.md section
1).

B rows, L positions, T patches of all media, M media, N visual positions, V vocabulary, D width of the
language model. A packed batch is specified in docs/architecture.md; padded batches with an ``attention_mask``
serve ``generate``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput, logging

from workbench.models.shared import answer_loss
from workbench.models.tempflex.configuration import TempFlexConfig
from workbench.models.tempflex.encoder import NaFlexEncoder
from workbench.models.tempflex.fusion import TemporalFiberFusion
from workbench.models.tempflex.masks import packed_masks
from workbench.models.tempflex.merger import PatchMerger
from workbench.models.tempflex.packed import NAME as PACKED
from workbench.models.tempflex.packed import plan_packing
from workbench.models.tempflex.visual import VisualPath, as_grids, repeat_media
from workbench.models.videolm import Prepared
from workbench.samples.sample import Clip, Sample


@dataclass
class TempFlexOutput(ModelOutput):
    """``loss`` (scalar, when labels were given), ``logits`` (``[B, L', V]``; None when labels were given and
    logits were not asked for), and what transformers' caches and recorders return."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class TempFlexForConditionalGeneration(VisualPath, PreTrainedModel, GenerationMixin):
    """The whole model. ``processor`` may be attached; ``prepare`` then delegates to it."""

    config_class = TempFlexConfig
    config: TempFlexConfig
    encoder: NaFlexEncoder
    language_model: Any  # Qwen3Model or Gemma3TextModel
    lm_head: nn.Linear
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ["image", "video", "text"]  # noqa: RUF012 - these are declared by transformers
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _tied_weights_keys = {"lm_head.weight": "language_model.embed_tokens.weight"}  # noqa: RUF012
    _no_split_modules = ["EncoderLayer", "PaperLayer", "ReleaseLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    def __init__(self, config: TempFlexConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.encoder = NaFlexEncoder(vision)
        self.fusion = make_fusion(config) if config.fusion_depth else None
        self.merger = PatchMerger(vision.hidden_size, text.hidden_size, config.merge, config.merger_hidden)
        self.newline = nn.Parameter(torch.zeros(text.hidden_size)) if config.newline else None
        self.language_model = AutoModel.from_config(text)
        if text._attn_implementation in (None, "sdpa"):
            self.language_model.set_attn_implementation(PACKED)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.softcap = getattr(text, "final_logit_softcapping", None)
        self.gradient_checkpointing = False
        self.processor: Any = None
        self.post_init()

    # ------------------------------------------------------------------------------------------ language

    def embed(
        self, input_ids: Tensor, pixel_values: Tensor | None = None, grids: Tensor | None = None
    ) -> Tensor:
        """Input embeddings ``[B, L, D]`` with the visual features in place.

        Raises:
            ValueError: pixel_values without grids or the reverse, or placeholders that do not match the
            media.
        """
        embeds = self.language_model.embed_tokens(input_ids)
        if pixel_values is None and grids is None:
            return embeds
        if pixel_values is None or grids is None:
            raise ValueError("pixel_values and grids belong together: one of them is missing")
        places = (input_ids.flatten() == self.config.visual_token_id).nonzero().flatten()
        counts = self.media_tokens(grids)
        if len(places) != sum(counts):
            raise ValueError(
                f"input_ids holds {len(places)} visual placeholders (id {self.config.visual_token_id}); "
                f"its {len(counts)} media give {sum(counts)} features ({_short(counts)}): prepare text and "
                "frames together, and never cut a conversation inside its visual tokens"
            )
        features = self.visual_features(pixel_values, grids).to(embeds.dtype)
        return embeds.flatten(0, 1).index_copy(0, places, features).view_as(embeds)

    def _hidden(
        self,
        inputs_embeds: Tensor,
        position_ids: Tensor | None,
        segment_ids: Tensor | None,
        attention_mask: Any,
        **kwargs: Any,
    ) -> Any:
        """The language model's output; with ``segment_ids`` under the packed mask."""
        lm = self.language_model
        if segment_ids is None:
            if position_ids is None and isinstance(attention_mask, Tensor) and attention_mask.dim() == 2:
                columns = attention_mask.long().cumsum(-1).sub_(1).clamp_(min=0)
                position_ids = columns[:, -inputs_embeds.shape[1] :]
            return lm(
                inputs_embeds=inputs_embeds,
                position_ids=position_ids,
                attention_mask=attention_mask,
                **kwargs,
            )
        if attention_mask is not None:
            raise ValueError("give segment_ids (a packed batch) or attention_mask (a padded one), not both")
        if position_ids is None:
            raise ValueError("a packed batch needs position_ids that restart at 0 in every segment")
        kwargs["use_cache"] = False
        name = lm.config._attn_implementation or ""
        packed = name.startswith(PACKED)  # a probe's tap over it ends in a mark
        if not packed and "flash" not in name:
            mask = packed_masks(segment_ids, lm.config, inputs_embeds.dtype)
            return lm(inputs_embeds=inputs_embeds, position_ids=position_ids, attention_mask=mask, **kwargs)
        plan = plan_packing(segment_ids)
        if packed:
            kwargs["packing"] = plan
        else:
            kwargs |= {"cu_seq_lens_q": plan.cumulative, "cu_seq_lens_k": plan.cumulative}
            kwargs |= {"max_length_q": plan.longest, "max_length_k": plan.longest}
        flat = inputs_embeds.flatten(0, 1)
        out = lm(
            inputs_embeds=flat.index_select(0, plan.kept)[None],
            position_ids=position_ids.flatten()[plan.kept][None],
            attention_mask=dict.fromkeys(lm.config.layer_types),
            **kwargs,
        )
        hidden = out.last_hidden_state[0]
        everywhere = hidden.new_zeros(flat.shape).index_copy(0, plan.kept, hidden)
        out.last_hidden_state = everywhere.view_as(inputs_embeds)
        return out

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.lm_head(hidden)
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        attention_mask: Any = None,
        labels: Tensor | None = None,
        num_items: int | Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> TempFlexOutput:
        """One forward pass over a packed (``segment_ids``), padded (``attention_mask``) or plain batch.

        Args:
            input_ids: ``[B, L]``; ``config.visual_token_id`` marks the places of visual features.
            pixel_values, grids: ``[T, patch_dim]`` and ``[M, 3]``, media in row-major order of their
                conversations.
            position_ids, segment_ids: ``[B, L]``, see docs/architecture.md.
            labels: ``[B, L]``, -100 where nothing is learned. The loss is the sum of the cross-entropies of
                the labelled positions, each predicted from the position before it in its own segment, over
                ``num_items`` (their number, if None). Logits are computed at those positions only.
            logits_to_keep: as in transformers: the last so many positions, or indices; 0 keeps all.
            return_logits: force or forbid ``logits`` in the output; by default they are returned when there
                are no labels.

        Raises:
            ValueError: placeholders and media disagree; inconsistent masks.
        """
        if inputs_embeds is None:
            assert input_ids is not None, "give input_ids or inputs_embeds"
            inputs_embeds = self.embed(input_ids, pixel_values, grids)
        if labels is not None and use_cache is None:
            use_cache = False
        out = self._hidden(
            inputs_embeds,
            position_ids,
            segment_ids,
            attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = out.last_hidden_state
        loss = None
        if labels is not None:
            loss = answer_loss(self._logits, hidden, labels, segment_ids, num_items)
        logits = None
        if return_logits or (return_logits is None and labels is None):
            keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self._logits(hidden if isinstance(keep, slice) and keep.start == 0 else hidden[:, keep])
        return TempFlexOutput(loss, logits, out.past_key_values, out.hidden_states, out.attentions)

    def logits_at(self, input_ids: Tensor, at: Tensor, **inputs: Any) -> Tensor:
        """Logits at chosen places only: ``at [K, 2]`` holds (row, column); returns ``[K, V]``. ``inputs`` as
        in ``forward``."""
        embeds = self.embed(input_ids, inputs.pop("pixel_values", None), inputs.pop("grids", None))
        masks = (inputs.pop(name, None) for name in ("position_ids", "segment_ids", "attention_mask"))
        hidden = self._hidden(embeds, *masks, use_cache=False, **inputs).last_hidden_state
        return self._logits(hidden[at[:, 0], at[:, 1]])

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Visual features enter once, with the prompt; later steps find them in the cache."""
        first = kwargs.get("is_first_iteration") or not kwargs.get("use_cache", True)
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[misc]
        if not first:
            inputs["pixel_values"] = inputs["grids"] = None
        return inputs

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **inputs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Beams and several answers: media are repeated with their rows (transformers would repeat single
        patches)."""
        pixels, grids = inputs.pop("pixel_values", None), inputs.pop("grids", None)
        expanded, inputs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, is_encoder_decoder, input_ids, **inputs
        )
        if grids is not None and expand_size > 1:
            pixels, grids = repeat_media(
                pixels, as_grids(grids), self._media_rows(input_ids, grids), expand_size
            )
        return expanded, inputs | ({} if grids is None else {"pixel_values": pixels, "grids": grids})

    def _media_rows(self, input_ids: Tensor, grids: Tensor) -> list[int]:
        """The row of each medium, from the placeholders of the rows."""
        room = (input_ids == self.config.visual_token_id).sum(1).tolist()
        rows, row = [], 0
        for count in self.media_tokens(grids):
            while row < len(room) - 1 and room[row] == 0:
                row += 1
            rows.append(row)
            room[row] -= count
        return rows

    # ------------------------------------------------------------------------------------------ VideoLM

    def prepare(
        self, sample: Sample, clip: Clip | None, turns: Sequence[int] | None = None, with_answers: bool = True
    ) -> Prepared:
        """``TempFlexProcessor.prepare`` of the attached processor."""
        if self.processor is None:
            raise ValueError(
                "no processor is attached: use load_tempflex or new_tempflex, or set model.processor"
            )
        return self.processor.prepare(sample, clip, turns, with_answers)

    def module_groups(self) -> dict[str, list[str]]:
        """Parameter names of "encoder", "fusion", "merger" (with the newline) and "llm"; tied weights appear
        once."""
        groups: dict[str, list[str]] = {"encoder": [], "fusion": [], "merger": [], "llm": []}
        part = {"encoder": "encoder", "fusion": "fusion", "merger": "merger", "newline": "merger"}
        for name, _ in self.named_parameters():
            groups[part.get(name.split(".", 1)[0], "llm")].append(name)
        return groups

    def attention_layers(self) -> dict[str, list[str]]:
        """Attention modules in order of depth: "encoder" and "llm"."""
        return {
            "encoder": [f"encoder.layers.{i}.attention" for i in range(len(self.encoder.layers))],
            "llm": [f"language_model.layers.{i}.self_attn" for i in range(len(self.language_model.layers))],
        }

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers, without its progress bar: a checkpoint in the middle of training should not
        redraw the terminal."""
        with without_bars():
            super().save_pretrained(*args, **kwargs)

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """As in transformers; where "sdpa" is asked for, the language model takes the form of it that needs
        no mask."""
        super().set_attn_implementation(*args, **kwargs)
        if self.language_model.config._attn_implementation == "sdpa":
            self.language_model.set_attn_implementation(PACKED)

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings  # type: ignore[assignment]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Our parts start as torch starts them; the language model initialises itself
        (``initializer_range``)."""
        if module is self.lm_head:
            nn.init.normal_(module.weight, std=self.config.text_config.initializer_range)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()


# so that transformers' Auto classes read our checkpoints
AutoConfig.register(TempFlexConfig.model_type, TempFlexConfig, exist_ok=True)
AutoModelForImageTextToText.register(TempFlexConfig, TempFlexForConditionalGeneration, exist_ok=True)


def make_fusion(config: TempFlexConfig) -> TemporalFiberFusion:
    """The fusion a configuration asks for."""
    return TemporalFiberFusion(
        config.vision_config.hidden_size,
        config.fusion_depth,
        config.fusion_local_hidden,
        config.fusion_ffn_hidden,
        tuple(config.fusion_frequencies),
        config.fusion_variant,
    )


def _short(counts: Sequence[int]) -> str:
    text = ", ".join(map(str, counts[:6]))
    return text + (", ..." if len(counts) > 6 else "")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars of transformers inside: ours are of training, and these models load in
    milliseconds."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
