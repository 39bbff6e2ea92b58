"""``EffectView``: what hiding a frame does to the answer, beside the attention it gets and beside attributions."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.captures import Capture
from workbench.views import colours
from workbench.views.base import View
from workbench.views.effects_charts import curves_figure, scatter_figure
from workbench.views.effects_data import (
    ATTENTION_KINDS,
    RANKINGS,
    Looked,
    block_name,
    completeness_words,
    correlation,
    looked_at,
    read_knockout,
    refusal,
    verdict,
    window_name,
)
from workbench.views.effects_match import checkpoint_name
from workbench.views.effects_rank import Agreement, rank_agreement
from workbench.views.film import pictures_of, sheet
from workbench.views.payload import pack, pack_map
from workbench.views.pieces import Link, Module, Piece, Plot
from workbench.views.provenance import of_capture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

ONE_SAMPLE = (
    "This is one sample, and its cells are not independent (windows overlap, a frame counts in many of them): blocks are "
    "shuffled and resampled whole, and nothing follows for other samples."
)


class EffectView(View):
    """Knockout map, attention mass of the same cells, attributions of the same blocks; where they disagree.

    Args:
        knockout: a capture ``knockout`` (frame or part of a frame x window of layers).
        attention: ``attention_rows`` or ``temporal_atlas`` of the same sample, clip and weights; its mass on the same
            cells is ranked against the effect.
        attribution: ``attribution`` of the same, with the same blocks; deletion and insertion curves where it has them.
            What does not belong to the knockout is not shown, and the view says why.

    Raises:
        WorkbenchError: ``knockout`` is of another kind.
    """

    def __init__(
        self, knockout: Capture, attention: Capture | None = None, attribution: Capture | None = None
    ) -> None:
        self.knockout = knockout
        self.deltas = read_knockout(knockout)
        self.blocks: list[dict[str, Any]] = knockout.meta["blocks"]
        self.notes: list[str] = []
        self.attention = self._checked("attention", attention, ATTENTION_KINDS)
        self.attribution = self._checked("attribution", attribution, ("attribution",))
        windows = np.asarray(knockout.arrays["windows"]).tolist()
        self.windows = [window_name((a, b), knockout.meta["layers"]) for a, b in windows]
        self.widest = int(np.argmax([b - a for a, b in windows]))
        sample = knockout.meta.get("sample") or {}
        self.title = f"Effect of {'parts of ' if knockout.meta.get('grid') else ''}frames: {sample.get('id', 'a conversation')}"

    def _checked(self, what: str, capture: Capture | None, kinds: tuple[str, ...]) -> Capture | None:
        if capture is None:
            return None
        why = refusal(self.knockout, capture, kinds)
        if why is not None:
            self.notes.append(f"The {what} of {checkpoint_name(capture)} is not shown: {why}.")
        return capture if why is None else None

    # -- numbers ------------------------------------------------------------------------------

    @functools.cached_property
    def looked(self) -> Looked | None:
        """Attention on the same cells; None without it."""
        return None if self.attention is None else looked_at(self.knockout, self.attention)

    @functools.cached_property
    def rankings(self) -> dict[str, Agreement]:
        """How each ranking of the attribution capture agrees with the knockout in the widest window, over blocks."""
        if self.attribution is None:
            return {}
        scores = np.asarray(self.attribution.arrays["scores"])
        effect = -self.deltas[self.widest : self.widest + 1]
        return {
            name: rank_agreement(effect, scores[r : r + 1])
            for r, name in enumerate(self.attribution.meta["rankings"])
            if name != "knockout"
        }

    def _most(self, values: np.ndarray) -> str:
        return block_name(self.blocks[int(np.nanargmax(values))], self.knockout)

    def verdicts(self) -> list[dict[str, Any]]:
        """Sentences on what agrees with what; ``loud`` where attention must not be read as effect."""
        meta, effect, where = self.knockout.meta, -self.deltas[self.widest], self.windows[self.widest]
        if not np.isfinite(effect).any():
            return [_said("No block is visible to the text behind it.", True)]
        cost = -float(np.nanmax(effect))
        changed = f"log p(answer) changes by {cost:+.3g} nats from {meta['baseline_logprob']:.3g}."
        ranked = f"Hiding {self._most(effect)} in {where} costs most: "
        if cost >= 0:
            ranked = f"Hiding no block in {where} costs anything; {self._most(effect)} gains least: "
        said = [_said((ranked + changed).replace("-", "−"))]
        error = max(meta.get("max_error") or 0.0, meta.get("replay_error") or 0.0)
        if np.nanmax(np.abs(self.deltas)) < 10 * error:
            said.append(
                _said(f"All changes are within ten times the knockout's own error ({error:.2g} nats).", True)
            )
        if self.looked is not None:
            found, mass = self.looked.agreement, self.looked.mass[self.widest]
            text = verdict(found)
            if np.isfinite(mass).any() and self._most(mass) != self._most(effect):
                text += f" In {where} it looks most at {self._most(mass)}, not at {self._most(effect)}."
            text += f" The knockout hides a block from all text behind the video; the attention is that of {self.looked.whose}."
            said.append(_said(f"{text} {ONE_SAMPLE}", found.verdict != "agree"))
        if self.attribution is not None and (text := completeness_words(self.attribution)):
            said.append(_said(text, "Above" in text))
        return said

    def agreements(self) -> list[dict[str, str]]:
        """Rank correlations with the knockout, a row each: attention in every window, each attribution in the widest."""
        rows = []
        if self.looked is not None:
            rows += [
                ("attention mass", self.windows[w], found) for w, found in enumerate(self.looked.by_window)
            ]
        rows += [
            (f"{RANKINGS.get(name, name)} (attribution)", self.windows[self.widest], found)
            for name, found in self.rankings.items()
        ]
        return [
            {"what": what, "window": window, "rho": correlation(found), "n": str(found.blocks)}
            for what, window, found in rows
        ]

    # -- what is shown --------------------------------------------------------------------------

    def pieces(self) -> list[Piece]:
        found: list[Piece] = [Module("effects", "effects", self._data())]
        if self.looked is not None:
            found.append(Plot("scatter", scatter_figure(self, self.looked)))
        if self.attribution is not None and "curves" in self.attribution.arrays:
            found.append(Plot("curves", curves_figure(self.attribution)))
        return found

    def links(self) -> list[Link]:
        return [] if self.looked is None else [Link("scatter", "cell", "effects", "cell")]

    def _data(self) -> dict[str, Any]:
        spans = sorted({tuple(block["span"]) for block in self.blocks})
        pictures = pictures_of(self.knockout)
        there = pictures is not None and bool(spans) and len(pictures) >= spans[-1][1]
        chosen = pictures[[start for start, _ in spans]] if there and pictures is not None else None
        notes = list(self.notes)
        if chosen is None:
            notes.append("This capture keeps no pictures of its frames. Make it again to see them.")
        end = float(np.nanmax(np.abs(self.deltas), initial=0.0)) or 1.0
        flat = np.nan_to_num(self.deltas[self.widest], nan=np.inf)
        parts = (
            f", parts {'x'.join(map(str, self.knockout.meta['grid']))}"
            if self.knockout.meta.get("grid")
            else ""
        )
        return {
            "colours": colours.tables(),
            "notes": notes,
            "verdicts": self.verdicts(),
            "agreements": self.agreements(),
            "title": f"hidden: {len(spans)} frame{'s' if len(spans) != 1 else ''}{parts}, in time",
            "columns": self.columns,
            "sheet": sheet(chosen),
            "windows": self.windows,
            "first": [self.widest, int(flat.argmin())],
            "delta": pack_map(self.deltas, -end, end),
            "deltas": pack(self.deltas.astype(np.float32)),
            "end": end,
            "attention": self._attention(),
            "attribution": self._attribution(),
        }

    @functools.cached_property
    def columns(self) -> list[dict[str, Any]]:
        """Every block as a column of the maps."""
        spans = sorted({tuple(block["span"]) for block in self.blocks})
        return [self._column(block, spans) for block in self.blocks]

    def _column(self, block: dict[str, Any], spans: list[tuple[int, ...]]) -> dict[str, Any]:
        start, stop = block["span"]
        name = block_name(block, self.knockout)
        times = (self.knockout.meta.get("frames") or {}).get("timestamps") or []
        short = f"{times[start]:.1f} s" if stop <= len(times) else str(start + 1)
        grid = self.knockout.meta.get("grid")
        part = None if grid is None else [block["row"], block["col"], *grid]
        later = part is not None and (part[0] or part[1])
        return {
            "short": "" if later else short,
            "name": name,
            "frame": spans.index((start, stop)),
            "clip": start,
            "clipEnd": stop,
            "part": part,
        }

    def _attention(self) -> dict[str, Any] | None:
        if self.looked is None:
            return None
        mass = self.looked.mass
        end = float(np.nanmax(mass, initial=0.0)) or 1.0
        return {
            "map": pack_map(mass, 0.0, end),
            "values": pack(mass.astype(np.float32)),
            "end": end,
            "whose": self.looked.whose,
            "heads": self.looked.heads,
        }

    def _attribution(self) -> dict[str, Any] | None:
        if self.attribution is None:
            return None
        scores = np.asarray(self.attribution.arrays["scores"], dtype=np.float64)
        tops = np.nanmax(np.abs(scores), axis=1, initial=0.0, keepdims=True)
        names = self.attribution.meta["rankings"]
        return {
            "map": pack_map(scores / np.where(tops > 0, tops, 1.0), -1.0, 1.0),
            "values": pack(scores.astype(np.float32)),
            "names": [RANKINGS.get(name, name) for name in names],
            "units": ["%" if name == "attention" else "nats" for name in names],
        }

    # -- in words, as a table, as a picture -------------------------------------------------------

    def words(self) -> str:
        listed = [
            f"{row['what']}, {row['window']}: {row['rho']} (n = {row['n']})" for row in self.agreements()
        ]
        more = [f"Spearman with the knockout over blocks: {'; '.join(listed)}."] if listed else []
        return " ".join([*self.notes, *(found["text"] for found in self.verdicts()), *more])

    def data(self) -> pd.DataFrame:
        """A line a cell: window, block, ``delta`` (nats), ``attention`` (mass), and each ranking's score of the block."""
        import pandas as pd

        w, k = self.deltas.shape
        table = pd.DataFrame(
            {
                "window": np.repeat(self.windows, k),
                "block": [block_name(block, self.knockout) for block in self.blocks] * w,
                "delta": self.deltas.ravel(),
            }
        )
        if self.looked is not None:
            table["attention"] = self.looked.mass.ravel()
        if self.attribution is not None:
            scores = np.asarray(self.attribution.arrays["scores"])
            for name, row in zip(self.attribution.meta["rankings"], scores, strict=True):
                table[f"attribution_{name}"] = np.tile(row, w)
        return table

    def caption(self) -> str:
        parts = [of_capture(self.knockout)]
        parts += [of_capture(c) for c in (self.attention, self.attribution) if c is not None]
        checked = self.knockout.meta.get("max_error")
        how = f"Knockout: {self.knockout.meta['method']}, {self.knockout.meta['edges']}"
        how += (
            "." if checked is None else f"; largest difference from whole forward passes {checked:.2g} nats."
        )
        return " ".join([*parts, how])

    def picture(self) -> Figure:
        from workbench.views.effects_still import draw

        return draw(self)


def _said(text: str, loud: bool = False) -> dict[str, Any]:
    return {"text": text, "loud": loud}
