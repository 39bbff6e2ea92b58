"""``HostModel``: a stock transformers model behind the ``VideoLM`` protocol.

B rows, L positions, N real positions of all conversations laid end to end, M media, V vocabulary, D width of the
language model. The stock model is held, not changed: its parameters keep their names behind ``host.``,
``save_pretrained`` writes the folder that transformers reads, ``generate`` is its own. The forward pass over packed
rows drops padding and attends conversation by conversation (``sdpa_packed``), as for our own models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from workbench.errors import RecipeError
from workbench.models.hosts.rows import block_masks, text_positions
from workbench.models.hosts.stock import StockModel
from workbench.models.shared import answer_loss
from workbench.models.tempflex.packed import NAME as PACKED
from workbench.models.tempflex.packed import plan_packing
from workbench.models.videolm import Prepared
from workbench.samples.sample import Clip, Sample


@dataclass
class HostOutput(ModelOutput):
    """``loss`` (scalar, when labels were given), ``logits`` (``[B, L', V]``; None when labels were given and logits
    were not asked for), and what transformers' recorders return."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class HostModel(StockModel, ABC):
    """A stock model and the protocol around it. ``processor`` is attached by ``load_host``."""

    def __init__(self, host: PreTrainedModel) -> None:
        super().__init__(host)
        self.processor: Any = None

    # ------------------------------------------------------------------------------------------ what hosts differ in

    @property
    @abstractmethod
    def encoder(self) -> Any:
        """The vision tower."""

    @abstractmethod
    def encoder_layers(self) -> list[str]:
        """Names of the encoder's attention modules, in order of depth."""

    @abstractmethod
    def media_tokens(self, grids: Tensor) -> list[int]:
        """Placeholders of each medium."""

    @abstractmethod
    def visual_features(self, pixel_values: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Features of all placeholders in order ``[N_v, D]``, and those that early layers add (DeepStack)."""

    @abstractmethod
    def _merger(self, name: str) -> bool:
        """Whether a parameter of the visual half belongs to the merger (projector)."""

    def _unused(self, name: str) -> bool:
        """Whether a parameter of the visual half has no part in any output."""
        return False

    def _visual(self, name: str) -> bool:
        return name.startswith(("host.model.visual.", "host.model.vision_tower.")) or self._merger(name)

    def visual_ids(self) -> tuple[int, ...]:
        """Ids of the placeholders."""
        config = self.config
        return tuple(
            getattr(config, name)
            for name in ("image_token_id", "video_token_id")
            if getattr(config, name, None)
        )

    def rope_positions(self, input_ids: Tensor | None, grids: Tensor | None, segments: Tensor) -> Tensor:
        """Rotary positions ``[B, L]`` (or ``[3, B, L]``) that restart in every segment; 0 on padding."""
        return text_positions(segments)

    # ------------------------------------------------------------------------------------------ forward

    def embed(
        self, input_ids: Tensor, pixel_values: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Input embeddings ``[B, L, D]`` with the visual features in place; the flat places of these ``[N_v]``; and
        what early layers add there.

        Raises:
            ValueError: pixel_values without grids or the reverse, or placeholders that do not match the media.
        """
        if (pixel_values is None) != (grids is None):
            raise ValueError("pixel_values and grids belong together: one of them is missing")
        flat = input_ids.flatten()
        visual = torch.isin(flat, torch.tensor(self.visual_ids(), device=flat.device))
        places = visual.nonzero().flatten()
        counts = [] if grids is None else self.media_tokens(grids)
        if len(places) != sum(counts):
            shown = ", ".join(map(str, counts[:6])) + (", ..." if len(counts) > 6 else "")
            raise ValueError(
                f"input_ids holds {len(places)} visual placeholders, its {len(counts)} media give {sum(counts)} "
                f"features ({shown}): prepare text and frames together, and never cut a conversation inside its "
                "visual tokens"
            )
        embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is None or grids is None:
            return embeds, None, []
        features, deep = self.visual_features(pixel_values, grids)
        embeds = embeds.flatten(0, 1).index_copy(0, places, features.to(embeds.dtype)).view_as(embeds)
        return embeds, places, deep

    def _hidden(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's output."""
        if segment_ids is not None and attention_mask is not None:
            raise ValueError("give segment_ids (a packed batch) or attention_mask (a padded one), not both")
        if segment_ids is not None and position_ids is None:
            raise ValueError("a packed batch needs position_ids that restart at 0 in every segment")
        embeds, places, deep = self.embed(input_ids, pixel_values, grids)
        if segment_ids is not None:
            segments = segment_ids
        else:
            segments = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        rope = self.rope_positions(input_ids, grids, segments)
        kwargs.setdefault("use_cache", False)
        lm, name = self.language_model, self.language_model.config._attn_implementation or ""
        if segment_ids is None:
            kwargs |= self._deep(
                places, deep, torch.arange(input_ids.numel(), device=input_ids.device), input_ids
            )
            return lm(inputs_embeds=embeds, position_ids=rope, attention_mask=attention_mask, **kwargs)
        packed = name.startswith(PACKED)  # a probe's tap over it ends in a mark
        if not packed and "flash" not in name:
            kwargs |= self._deep(
                places, deep, torch.arange(input_ids.numel(), device=input_ids.device), input_ids
            )
            mask = block_masks(segment_ids, lm.config, embeds.dtype)
            return lm(inputs_embeds=embeds, position_ids=rope, attention_mask=mask, **kwargs)
        plan = plan_packing(segment_ids)
        if packed:
            kwargs["packing"] = plan
            # four dimensions: taken as a finished mask, so none is built; sdpa_packed reads the plan
            mask = embeds.new_empty((1, 1, 0, 0))
        else:
            kwargs |= {"cu_seq_lens_q": plan.cumulative, "cu_seq_lens_k": plan.cumulative}
            kwargs |= {"max_length_q": plan.longest, "max_length_k": plan.longest}
            mask = None
        flat = embeds.flatten(0, 1)
        kwargs |= self._deep(places, deep, plan.kept, input_ids)
        out = lm(
            inputs_embeds=flat.index_select(0, plan.kept)[None],
            position_ids=rope.flatten(-2)[..., plan.kept].unsqueeze(-2),
            attention_mask=mask,
            **kwargs,
        )
        hidden = out.last_hidden_state[0]
        everywhere = hidden.new_zeros(flat.shape).index_copy(0, plan.kept, hidden)
        out.last_hidden_state = everywhere.view_as(embeds)
        return out

    def _deep(
        self, places: Tensor | None, deep: list[Tensor], kept: Tensor, input_ids: Tensor
    ) -> dict[str, Any]:
        """DeepStack arguments for the positions ``kept`` of the flattened batch."""
        if not deep or places is None:
            return {}
        visual = torch.zeros(input_ids.numel(), dtype=torch.bool, device=input_ids.device)
        visual[places] = True
        shape = input_ids.shape if len(kept) == input_ids.numel() else (1, len(kept))
        return {"visual_pos_masks": visual[kept].view(shape), "deepstack_visual_embeds": deep}

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items: int | Tensor | None = None,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> HostOutput:
        """One forward pass over a packed (``segment_ids``), padded (``attention_mask``) or plain batch.

        Args:
            input_ids: ``[B, L]``; the host's placeholders mark the places of visual features.
            pixel_values, grids: media in row-major order of their conversations, as ``prepare`` gives them.
            position_ids, segment_ids: ``[B, L]``, see docs/architecture.md. The positions the host rotates by (M-RoPE
                for Qwen) are computed here, from segments and grids.
            labels: ``[B, L]``, -100 where nothing is learned. The loss is the sum of the cross-entropies of the
                labelled positions, each predicted from the position before it in its own segment, over ``num_items``
                (their number, if None). Logits are computed at those positions only.
            return_logits: force or forbid ``logits``; by default they are returned when there are no labels.
            kwargs: for the language model (``output_hidden_states``, ``use_cache`` ...).

        Raises:
            ValueError: placeholders and media disagree; inconsistent masks.
        """
        out = self._hidden(
            input_ids, pixel_values, grids, position_ids, segment_ids, attention_mask, **kwargs
        )
        hidden = out.last_hidden_state
        loss = None
        if labels is not None:
            loss = answer_loss(self.lm_head, hidden, labels, segment_ids, num_items)
        logits = None
        if return_logits or (return_logits is None and labels is None):
            logits = self.lm_head(hidden)
        return HostOutput(loss, logits, out.past_key_values, out.hidden_states, out.attentions)

    def logits_at(self, input_ids: Tensor, at: Tensor, **inputs: Any) -> Tensor:
        """Logits at chosen places only: ``at [K, 2]`` holds (row, column); returns ``[K, V]``. ``inputs`` as in
        ``forward``."""
        hidden = self._hidden(input_ids, **inputs).last_hidden_state
        return self.lm_head(hidden[at[:, 0], at[:, 1]])

    @abstractmethod
    def stock_inputs(self, input_ids: Tensor, pixel_values: Tensor, grids: Tensor) -> dict[str, Any]:
        """Media under the names of the stock model's own ``forward``, which ``generate`` calls."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        grids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """The stock model's ``generate`` on inputs of ``prepare(..., with_answers=False)``; stops at the end of an
        answer as well."""
        media = (
            {} if pixel_values is None or grids is None else self.stock_inputs(input_ids, pixel_values, grids)
        )
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.processor is not None and "eos_token_id" not in options:
            own = self.generation_config.eos_token_id
            known = own if isinstance(own, list) else [] if own is None else [own]
            options["eos_token_id"] = sorted({*known, self.processor.end_token_id})
            options.setdefault("pad_token_id", self.processor.pad_token_id)
        return self.host.generate(input_ids=input_ids, attention_mask=mask, **media, **options)

    # ------------------------------------------------------------------------------------------ VideoLM

    def prepare(
        self, sample: Sample, clip: Clip | None, turns: Sequence[int] | None = None, with_answers: bool = True
    ) -> Prepared:
        """``HostProcessor.prepare`` of the attached processor."""
        if self.processor is None:
            raise ValueError("no processor is attached: use load_host, or set model.processor")
        return self.processor.prepare(sample, clip, turns, with_answers)

    def module_groups(self) -> dict[str, list[str]]:
        """Parameter names of "encoder", "merger" (projector, newline vector, DeepStack mergers), "llm", and "unused":
        weights of the vision tower behind the layer whose features are taken. Tied weights appear once."""
        groups: dict[str, list[str]] = {"encoder": [], "merger": [], "llm": [], "unused": []}
        for name, _ in self.named_parameters():
            if not self._visual(name):
                groups["llm"].append(name)
            elif self._merger(name):
                groups["merger"].append(name)
            else:
                groups["unused" if self._unused(name) else "encoder"].append(name)
        return groups if groups["unused"] else {name: groups[name] for name in ("encoder", "merger", "llm")}

    def attention_layers(self) -> dict[str, list[str]]:
        """Attention modules in order of depth: "encoder" and "llm"."""
        layers = len(self.language_model.layers)
        return {
            "encoder": self.encoder_layers(),
            "llm": [f"host.model.language_model.layers.{i}.self_attn" for i in range(layers)],
        }

    def activate_fusion(self) -> None:
        """A stock model has no fusion to train."""
        raise RecipeError(
            "train 'fusion'",
            f"a {self.config.model_type} model has none (it has encoder, merger, llm)",
            "remove fusion from the stage's train section",
        )

    @property
    def encoder_width(self) -> int:
        """Asked for by the alignment stage, which a stock model does not take."""
        raise RecipeError(
            "align the encoder with words",
            f"a {self.config.model_type} model comes with an aligned encoder",
            "use `objective: sft` in every stage",
        )
