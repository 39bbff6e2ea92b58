"""``FusionView``: what temporal fusion (TFF) does to a clip's frames and patches, and to still images.

    FusionView(after)                  # one capture of kind "fusion" (docs/tff.md, "The lens")
    FusionView(after, before=before)   # two checkpoints, on the same scales

Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.captures import Capture, CaptureError
from workbench.probes.fusion import changes, comparison_words, table, words
from workbench.probes.fusion.read import WHOLE, of_kind
from workbench.views import colours, fusion_data, ternary
from workbench.views.base import View
from workbench.views.fusion_charts import fusion_effects
from workbench.views.pieces import Link, Module, Piece, Plot
from workbench.views.provenance import of_capture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATE_ROOM = 1_000_000  # bytes of maps that travel at once; the rest is asked for
PAGE_ROOM = 12_000_000  # bytes of maps that an exported page carries beside them
MOST_FRAMES = 64


class FusionView(View):
    """The TFF lens on one checkpoint, or on two side by side.

    Args:
        capture: kind ``fusion``.
        before: of an earlier checkpoint. Where clips, counts or models differ the view says what cannot be compared;
            a capture of another kind is left out, and named.
        titles: of the two; by default the checkpoints' names.

    Raises:
        CaptureError: ``capture`` is of another kind, or holds no map of any frame count.
    """

    def __init__(
        self, capture: Capture, before: Capture | None = None, *, titles: tuple[str, str] | None = None
    ) -> None:
        of_kind(capture)
        if not any(f"weights_{n}" in capture.arrays for n in capture.meta["frame_counts"]):
            raise CaptureError(
                "show a fusion capture", "it holds no map of any frame count", "Probe the checkpoint again"
            )
        self.notes: list[str] = []
        if before is not None and before.kind != capture.kind:
            self.notes.append(f"The capture given as before is of kind {before.kind}: it is left out.")
            before = None
        captures = [capture] if before is None else [before, capture]
        self.captures = dict(zip(_titles(captures, titles), captures, strict=True))
        self.after, self.before = capture, before
        if before is not None:
            self.notes += differences(before, capture)
        for title, one in self.captures.items():
            self.notes += [f"{title}: {line}" for line in lacking(one)]
        self.title = f"Temporal fusion: {' and '.join(self.captures)}"
        self._scales = fusion_data.scales(captures)

    @property
    def frames(self) -> int:
        """The count shown first: the largest."""
        return int(max(self.after.meta["frame_counts"]))

    def pieces(self) -> Sequence[Piece]:
        captures = list(self.captures.values())
        inline, at = fusion_data.details(captures, self._scales, STATE_ROOM)

        def carried() -> list[tuple[dict[str, Any], Any]]:
            return fusion_data.details(captures, self._scales, PAGE_ROOM, skip=at)[0]

        maps = [
            {"key": key, "title": title, "unit": unit, "kind": kind}
            for key, title, unit, _, _, kind in fusion_data.film_maps(self.after)
        ]
        data = {
            "sides": [fusion_data.side(title, capture) for title, capture in self.captures.items()],
            "maps": maps,
            "mix": {"table": ternary.table(), "corners": list(ternary.CORNERS), "steps": ternary.STEPS},
            "colours": colours.tables(),
            "notes": self.notes,
            "details": {fusion_data.key_of(question): answer for question, answer in inline},
        }
        chosen = {"frames": self.frames, "layer": 0, "map": "norm memory", "dots": "patches", "place": 0}
        chosen["at"] = f"0/{self.frames}"
        if not any(row["key"] == chosen["map"] for row in maps) and maps:
            chosen["map"] = maps[0]["key"]
        lens = Module(
            "lens",
            "fusion",
            data,
            chosen,
            answer=lambda question: fusion_data.detail(captures, self._scales, question),
            carried=carried,
        )
        numbers = Module("numbers", "table", self._numbers(), {"at": chosen["at"]})
        pieces: list[Piece] = [
            lens,
            numbers,
            Module("frequencies", "frequencies", self._frequencies(), {"frames": self.frames, "layer": 0}),
        ]
        if any("sweep" in c.arrays or "still" in c.arrays for c in captures):
            pieces.append(Plot("effects", fusion_effects(self.captures)))
        return pieces

    def links(self) -> Sequence[Link]:
        return [
            Link("lens", "at", "numbers", "at"),
            Link("lens", "frames", "frequencies", "frames"),
            Link("lens", "layer", "frequencies", "layer"),
        ]

    def data(self) -> pd.DataFrame:
        """Means with intervals (``shown`` images, videos) and the mixture of every patch of the mapped clip (``map``)."""
        parts = []
        for title, capture in self.captures.items():
            rows = table(capture)
            parts.append(rows.assign(place=None))
            for n in capture.meta["frame_counts"]:
                if f"weights_{n}" not in capture.arrays:
                    continue
                weights = np.asarray(capture.arrays[f"weights_{n}"], np.float64)
                layer, place, branch = (axis.ravel() for axis in np.indices(weights.shape))
                names = np.array([f"beta_{name}" for name in capture.meta["branches"]])
                cells = {"shown": "map", "frames": int(n), "layer": layer, "number": names[branch]}
                parts.append(pd.DataFrame(cells | {"estimate": weights.ravel(), "place": place, "n": 1}))
            for part in parts:
                if "checkpoint" not in part:
                    part.insert(0, "checkpoint", title)
        return pd.concat([part.astype(object) for part in parts if len(part)], ignore_index=True)

    def words(self) -> str:
        sentences = list(self.notes)
        for title, capture in self.captures.items():
            lead = f"{title} ({capture.meta.get('variant', 'unnamed')} variant): " if self.before else ""
            means = "sweep" in capture.arrays or "still" in capture.arrays
            found = words(capture) if means else [f"Maps of the clip {self._clip(capture)} alone."]
            sentences += [lead + found[0], *found[1:]]
        if self.before is not None:
            try:
                sentences += comparison_words(self.before, self.after)
            except CaptureError as error:
                sentences.append(f"No change is computed: {error.found}.")
        return " ".join(sentences)

    def caption(self) -> str:
        parts = []
        for title, capture in self.captures.items():
            meta = capture.meta
            shown = [
                f"{len(meta[key])} {what}"
                for key, what, array in (("videos", "clips", "sweep"), ("images", "still images", "still"))
                if meta.get(key) and array in capture.arrays
            ]
            n = f" Means and 95% intervals over {' and '.join(shown)}." if shown else ""
            lead = f"{title}: " if self.before else ""
            parts.append(
                f"{lead}{of_capture(capture)} Fusion of the {meta.get('variant', 'unnamed')} variant. Maps of one clip.{n}"
            )
        return " ".join(parts)

    def picture(self) -> Figure:
        from workbench.views.fusion_stills import draw

        return draw(self.captures, self.frames, 0)

    @staticmethod
    def _clip(capture: Capture) -> str:
        return str((capture.meta.get("sample") or {}).get("id", "without a name"))

    # -- parts -----------------------------------------------------------------------------------------

    def _numbers(self) -> dict[str, Any]:
        """Every mean of one layer and frame count, a row a number, with the paired change."""
        found = {title: table(capture) for title, capture in self.captures.items()}
        try:
            changed = changes(self.before, self.after) if self.before is not None else None
        except CaptureError:  # words() says why
            changed = None
        columns: list[dict[str, Any]] = [{"key": "number", "title": "Number"}, {"key": "on", "title": "On"}]
        columns += [{"key": f"side{s}", "title": title, "numeric": True} for s, title in enumerate(found)]
        if changed is not None:
            columns.append({"key": "change", "title": "Change, paired", "numeric": True})
        columns.append({"key": "meaning", "title": "What it is"})
        texts = [_texts(rows, "estimate") for rows in found.values()]
        moved = {} if changed is None else _texts(changed, "difference", plus=True)
        meta = self.after.meta
        counts = sorted({int(n) for capture in self.captures.values() for n in capture.meta["frame_counts"]})
        rows = []
        for layer in range(max(int(c.meta["layers"]) for c in self.captures.values())):
            for frames in counts:
                for place, number in [(WHOLE, "update"), *((layer, number) for number in meta["numbers"])]:
                    for shown, n, on in (("videos", frames, "clips"), ("images", 1, "still images")):
                        key = (shown, n, place, number)
                        cells = {f"side{s}": text.get(key, "not captured") for s, text in enumerate(texts)}
                        named = {"number": _name(number, place), "on": on, "change": moved.get(key, "")}
                        named["meaning"] = _meaning(meta, number, place)
                        rows.append({"at": f"{layer}/{frames}"} | named | cells)
        sizes = ", ".join(
            f"{title}: {len(c.meta.get('videos') or [])} clips, {len(c.meta.get('images') or [])} still images"
            for title, c in self.captures.items()
        )
        caption = f"Means with 95% intervals of the chosen layer and frame count; still images are 1 frame ({sizes})"
        empty = "Choose a layer and a frame count above."
        return {"caption": caption, "columns": columns, "rows": rows, "by": "at", "empty": empty}

    def _frequencies(self) -> dict[str, Any]:
        listed = self.after.meta["frequencies"]
        frequencies = sorted({w for group in next(iter(listed.values()))["folded"].values() for w in group})
        sides = [
            {
                "title": title,
                "variant": capture.meta.get("variant", "not named"),
                "gains": {
                    str(n): np.asarray(capture.arrays[f"gains_{n}"], np.float64).round(4).tolist()
                    for n in capture.meta["frame_counts"]
                    if f"gains_{n}" in capture.arrays
                },
            }
            for title, capture in self.captures.items()
        ]
        return {"frequencies": frequencies, "most": max(MOST_FRAMES, self.frames), "sides": sides}


def differences(before: Capture, after: Capture) -> list[str]:
    """What keeps two captures from being compared, one sentence each."""
    a, b = before.meta, after.meta
    found = []
    if (a.get("model") or {}).get("type") != (b.get("model") or {}).get("type") or a["layers"] != b["layers"]:
        found.append(
            f"The two captures are of different models ({_model(a)} and {_model(b)}): layers of one number need not "
            "correspond."
        )
    if a.get("variant") != b.get("variant"):
        found.append(
            f"The fusion is of the {a.get('variant')} variant before and of the {b.get('variant')} variant after."
        )
    ids = [(meta.get("sample") or {}).get("id") for meta in (a, b)]
    if ids[0] != ids[1]:
        found.append(
            f"The maps are of different clips ({ids[0]} and {ids[1]}): patches of one place show other things."
        )
    elif fusion_data.places(before) != fusion_data.places(after):
        found.append("The two maps have different grids of patches.")
    only = set(a["frame_counts"]) ^ set(b["frame_counts"])
    if only:
        found.append(f"Probed on one side only: {', '.join(map(str, sorted(only)))} frames.")
    return found


def lacking(capture: Capture) -> list[str]:
    """What a capture does not hold, one sentence each."""
    meta, arrays, found = capture.meta, capture.arrays, []
    if "still" not in arrays:
        found.append("no still images were probed, so the effect on them is not shown.")
    if "sweep" not in arrays:
        found.append(
            "no videos were probed: the maps are of a still image, and there are no means over clips."
        )
    if not any(f"horizon_channels_{n}" in arrays for n in meta["frame_counts"]):
        found.append(
            "the memory's horizon is not stored by channel (an older capture): its spread is over patches."
        )
    if not any(f"pictures_{n}" in arrays for n in meta["frame_counts"]):
        found.append("the frames themselves are not in the capture.")
    if meta.get("left_out"):
        rest = f" and {len(meta['left_out']) - 1} more" if len(meta["left_out"]) > 1 else ""
        found.append(f"left out: {meta['left_out'][0]}{rest}.")
    return found


def _model(meta: dict[str, Any]) -> str:
    return f"{(meta.get('model') or {}).get('type', 'a model')}, {meta['layers']} fusion layers"


def _titles(captures: list[Capture], titles: tuple[str, str] | None) -> list[str]:
    found = [(c.meta.get("checkpoint") or {}).get("name") or "a model" for c in captures]
    if titles:
        found = list(titles)[: len(captures)] if len(captures) > 1 else [titles[-1]]
    if len(found) > 1 and found[0] == found[1]:
        found = [f"{found[0]} (before)", f"{found[1]} (after)"]
    return found


def _texts(rows: pd.DataFrame, value: str, plus: bool = False) -> dict[tuple[str, int, Any, str], str]:
    """``0.081 [0.071, 0.092]`` by (shown, frames, layer, number)."""
    sign = "+" if plus else ""
    found = {}
    for row in rows.to_dict("records"):
        estimate, low, high = (float(row[name]) for name in (value, "low", "high"))
        text = "missing" if math.isnan(estimate) else f"{estimate:{sign}.3g}"
        if not math.isnan(low):
            text += f" [{low:{sign}.3g}, {high:{sign}.3g}]"
        found[row["shown"], int(row["frames"]), row["layer"], row["number"]] = text.replace("-", "\u2212")
    return found


def _name(number: str, layer: Any) -> str:
    name = number.replace("beta_", "beta, ").replace("share_", "share of update, ").replace("_", " ")
    return f"{name} (whole stack)" if layer == WHOLE else name


def _meaning(meta: dict[str, Any], number: str, layer: Any) -> str:
    if layer == WHOLE:
        return "|TFF(x) - x| / |x| over all layers"
    said = meta.get("meaning", {})
    return said.get(number) or next(
        (text for key, text in said.items() if key.endswith("_") and number.startswith(key)), ""
    )
