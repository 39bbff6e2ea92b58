"""The tap: an attention function that lets the model's own fast kernel compute, and shows what went in and came out.

Axes: B rows of a batch, H query heads, G key/value heads (H a multiple of G), Q queries, K keys, E channels a head.

transformers looks attention functions up by name, and the function that builds masks by the *same* name. So a tap
over ``sdpa`` is a second name, ``sdpa+workbench``, registered in both tables: in ``AttentionInterface`` as a function
that calls sdpa's and then reports the call, in ``AttentionMaskInterface`` as sdpa's mask function. Without the second
the mask would be None and the output silently wrong: padding and sliding windows would be seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from workbench.probes.common import ProbeError

MARK = "+workbench"
_taps: weakref.WeakKeyDictionary[nn.Module, AttentionTap] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call of an attention function.

    Attributes:
        layer: index in ``model.attention_layers()[where]``.
        turn: how many calls this layer had before, since the tap was opened.
        base: the implementation that computed ``output``.
        module: the attention module.
        query, key, value: ``[B, H, Q, E]``, ``[B, G, K, E]`` twice; after norms and rotation, cache included.
        mask: as the function got it: None, bool or additive ``[B, 1 or H, Q, K]``, or int ``[B, K]`` (flash).
        output: ``[B, Q, H, E]``.
        options: the other keyword arguments (``scaling``, ``sliding_window``, ``packing`` ...).
    """

    layer: int
    turn: int
    base: str
    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    output: Tensor
    options: dict[str, Any]

    @property
    def scaling(self) -> float:
        given = self.options.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if given is None else given)

    @property
    def grouped(self) -> int:
        """Query heads a key/value head."""
        return self.query.shape[1] // self.key.shape[1]


def tapped_name(base: str) -> str:
    """The name under which the implementation ``base`` runs tapped; registered in both tables on first use.

    Raises:
        ProbeError: transformers has no mask function for ``base``.
    """
    name = base + MARK
    if base not in ALL_MASK_ATTENTION_FUNCTIONS:
        raise ProbeError(
            f"look into attention computed by {base!r}",
            "no mask function is registered for it, so its masks would be lost",
            "Register one with transformers' AttentionMaskInterface, or load the model with sdpa",
        )
    AttentionInterface.register(name, _tapped(base))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base])
    return name


def _tapped(base: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        function = sdpa_attention_forward if base == "sdpa" else ALL_ATTENTION_FUNCTIONS[base]
        output, weights = function(module, query, key, value, attention_mask, **kwargs)
        tap = _taps.get(module)
        if tap is not None:
            tap._call(base, module, query, key, value, attention_mask, output, kwargs)
        return output, weights

    return attention


class AttentionTap:
    """While open, every attention call of the chosen layers is shown to ``see``; outputs stay the kernel's own.

    Args:
        model: a ``VideoLM``.
        see: called with each ``Call`` after the kernel has run, in the order of the forward pass.
        where: a part of ``model.attention_layers()``: "llm" or "encoder".
        layers: indices; None for all. Negative ones count from the end.

    Raises:
        ProbeError: the model has no such part or layer, or another probe is looking at it; on closing, a layer whose
            attention never came by (it does not use transformers' interface).
    """

    def __init__(
        self,
        model: Any,
        see: Callable[[Call], None],
        where: str = "llm",
        layers: Sequence[int] | None = None,
    ) -> None:
        self.where, self.see = where, see
        self.layers, modules = attention_modules(model, where, layers)
        self._index = {module: layer for layer, module in zip(self.layers, modules, strict=True)}
        self._turns = dict.fromkeys(self.layers, 0)
        everything = attention_modules(model, where, None)[1]
        self._configs: list[Any] = []
        for (
            module
        ) in everything:  # all of a part share their configuration: masks are built once for all layers
            config = getattr(module, "config", None)
            if config is None or not hasattr(config, "_attn_implementation"):
                raise _unregistered(where, type(module).__name__)
            if not any(config is known for known in self._configs):
                self._configs.append(config)
        self._before: list[str | None] = []

    def __enter__(self) -> AttentionTap:
        for module in self._index:
            if module in _taps:
                raise ProbeError(
                    f"look into the attention of the {self.where}",
                    "another probe is looking",
                    "Close that one first",
                )
        names = []
        for config in self._configs:
            base = config._attn_implementation
            names.append(tapped_name("sdpa" if base in (None, "eager") else base))
        for config, name in zip(self._configs, names, strict=True):
            self._before.append(config._attn_implementation)
            config._attn_implementation = name
        for module in self._index:
            _taps[module] = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for module in self._index:
            _taps.pop(module, None)
        for config, base in zip(self._configs, self._before, strict=True):
            config._attn_implementation = base
        self._before = []
        if error is None:
            silent = [layer for layer, turns in self._turns.items() if not turns]
            if silent:
                module = next(m for m, layer in self._index.items() if layer == silent[0])
                raise _unregistered(self.where, type(module).__name__)

    def _call(
        self,
        base: str,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        output: Tensor,
        options: dict[str, Any],
    ) -> None:
        layer = self._index[module]
        turn, self._turns[layer] = self._turns[layer], self._turns[layer] + 1
        self.see(Call(layer, turn, base, module, query, key, value, mask, output, options))


def _unregistered(where: str, module: str) -> ProbeError:
    return ProbeError(
        f"look into the attention of the {where}",
        f"{module} does not call transformers' AttentionInterface",
        "Only architectures that look their attention function up there can be read without changing them",
    )


def attention_modules(
    model: Any, where: str, layers: Sequence[int] | None
) -> tuple[list[int], list[nn.Module]]:
    """Chosen layer indices, ascending, and their attention modules. Raises ProbeError for what is not there."""
    parts = model.attention_layers()
    if where not in parts:
        raise ProbeError(
            f"look into the attention of {where!r}",
            f"the model has {', '.join(parts) or 'none'}",
            "Choose one",
        )
    names = parts[where]
    n = len(names)
    chosen = list(range(n)) if layers is None else [int(layer) for layer in layers]
    wrong = [layer for layer in chosen if not -n <= layer < n]
    if wrong or not chosen:
        raise ProbeError(
            f"look into layer {wrong[0] if wrong else '(none named)'} of the {where}",
            f"it has the layers 0 to {n - 1}",
            "Choose among those",
        )
    chosen = sorted({layer % n for layer in chosen})
    return chosen, [model.get_submodule(names[layer]) for layer in chosen]
