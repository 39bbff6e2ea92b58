"""``AtlasView``: which segment (frames, question, answer, system) every query looks at, before and after a training."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.captures import Capture
from workbench.views import colours
from workbench.views.atlas_data import KIND, MEAN, Atlas, read_atlas
from workbench.views.base import View
from workbench.views.effects_match import checkpoint_name, mismatch
from workbench.views.film import middle_time, pictures_of, sheet
from workbench.views.payload import jsonable, pack, pack_map, size_of
from workbench.views.pieces import Module
from workbench.views.provenance import of_capture

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KEPT_BYTES = 900_000  # of maps that are part of the state; the others are asked for
CARRIED_BYTES = 4_000_000  # of further maps that an exported page carries
SCOPES = ("layersheads", "heads", "layers", "single")  # what is averaged
KINDS = ("system", "frames", "question", "answer", "template")


class AtlasView(View):
    """A temporal atlas as a heat map, query x segment.

    Rows are the segments (means over their queries) or the kept text tokens one by one; columns the segments looked at.
    Layers and heads are averaged, or chosen; the chosen row stands below as bars beside the share that uniform attention
    over what the row can see would give.

    Args:
        capture: of the kind ``temporal_atlas``.
        before: the same sample, clip and architecture with other weights, for before, after and difference. Anything else
            is not compared; the view says why.

    Raises:
        WorkbenchError: ``capture`` is of another kind.
    """

    def __init__(self, capture: Capture, before: Capture | None = None) -> None:
        self.capture = capture
        self.after = read_atlas(capture)
        self.notes: list[str] = []
        self.earlier: Capture | None = None
        self.before: Atlas | None = None
        if before is not None:
            why = _other_kind(before) or mismatch(capture, before, False) or _other_part(capture, before)
            if why is None:
                self.earlier, self.before = before, read_atlas(before)
            else:
                self.notes.append(f"Not compared with {checkpoint_name(before)}: {why}.")
        if not self.after.frames:
            self.notes.append("This sample has no frames: the atlas shows its text alone.")
        if self.after.left_out:
            self.notes.append(
                f"The last {len(self.after.rows) - len(self.after.segments)} text tokens are shown one by one; "
                f"{self.after.left_out} before them are in their segments' means only."
            )
        sample = capture.meta.get("sample") or {}
        self.title = f"Temporal atlas: {sample.get('id', 'a conversation')}"

    # -- numbers ------------------------------------------------------------------------------

    @functools.cached_property
    def scales(self) -> dict[str, dict[str, float]]:
        """Ends of the colour scales by what is averaged: one for all layers and heads that are averaged alike.

        The largest mass that text gives a frame ends the scale: text at the beginning often draws most of the mass, and
        the first frame sees nothing but itself.
        """
        return {name: self._largest(name) for name in SCOPES}

    def _largest(self, averaged: str) -> dict[str, float]:
        columns = self.after.frames or list(range(len(self.after.segments)))
        rows = [r for r, row in enumerate(self.after.rows) if row.kind != "frames"]
        part = np.ix_(rows, columns)
        most, change = 0.0, 0.0
        for place in self._choices(averaged):
            after = self.after.mean(*place)[part]
            most = max(most, _top(after))
            if self.before is not None:
                before = self.before.mean(*place)[part]
                most, change = max(most, _top(before)), max(change, _top(np.abs(after - before)))
        return {"mass": most or 1.0, "change": change or 1.0}

    def _choices(self, averaged: str) -> list[tuple[int | None, int | None]]:
        layers: Sequence[int | None] = [None] if "layers" in averaged else range(len(self.after.layers))
        heads: Sequence[int | None] = [None] if "heads" in averaged else range(len(self.after.heads))
        return [(layer, head) for layer in layers for head in heads]

    def shown_map(self, layer: Any = MEAN, head: Any = MEAN) -> dict[str, Any]:
        """One choice of layer and head (places, or "mean"), packed for the browser: after, before, change, kinds."""
        place = tuple(None if choice == MEAN else int(choice) for choice in (layer, head))
        scale = self.scales[_averaged(*place)]
        after = self.after.mean(*place)
        out = {"after": pack_map(after, 0.0, scale["mass"])}
        kinds = [self._by_kind(after)]
        if self.before is not None:
            before = self.before.mean(*place)
            out["before"] = pack_map(before, 0.0, scale["mass"])
            out["change"] = pack_map(after - before, -scale["change"], scale["change"])
            kinds.append(self._by_kind(before))
        return out | {"kinds": pack(np.stack(kinds).astype(np.float32))}

    def _by_kind(self, values: np.ndarray) -> np.ndarray:
        """Sums over the segments of each kind, ``[R, kinds]``; NaN where nothing of a kind is visible."""
        found = []
        for kind in self.kinds:
            part = values[:, [segment["kind"] == kind for segment in self.after.segments]]
            found.append(np.where(np.isnan(part).all(1), np.nan, np.nansum(part, axis=1)))
        return np.stack(found, axis=1)

    @property
    def kinds(self) -> list[str]:
        """Kinds of segments there are, in the order of the table."""
        there = {segment["kind"] for segment in self.after.segments}
        return [kind for kind in KINDS if kind in there] + sorted(there - set(KINDS))

    # -- what is shown --------------------------------------------------------------------------

    def pieces(self) -> list[Module]:
        return [Module("atlas", "atlas", self._data(self._kept), answer=self._answer, carried=self._carried)]

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        return self.shown_map(question["layer"], question["head"])

    @functools.cached_property
    def _kept(self) -> dict[str, Any]:
        """Maps that are part of the state: averages first, as many as there is room for."""
        kept: dict[str, Any] = {}
        room = KEPT_BYTES
        for place in self._all():
            found = self.shown_map(*place)
            room -= size_of(found)
            if room < 0 and kept:
                break
            kept["/".join(place)] = found
        return kept

    def _carried(self) -> list[tuple[dict[str, Any], Any]]:
        """Further maps that an exported page carries."""
        carried: list[tuple[dict[str, Any], Any]] = []
        room = CARRIED_BYTES
        for layer, head in self._all():
            if f"{layer}/{head}" in self._kept:
                continue
            found = self.shown_map(layer, head)
            if (room := room - size_of(found)) < 0:
                break
            carried.append(({"layer": layer, "head": head}, found))
        return carried

    def _all(self) -> Iterator[tuple[str, str]]:
        for averaged in SCOPES:
            for layer, head in self._choices(averaged):
                yield MEAN if layer is None else str(layer), MEAN if head is None else str(head)

    def _data(self, maps: dict[str, Any]) -> dict[str, Any]:
        atlas, segments = self.after, self.after.segments
        groups = [
            {
                "key": "segments",
                "title": "segments, means over their tokens",
                "start": 0,
                "count": len(segments),
            }
        ]
        if tokens := len(atlas.rows) - len(segments):
            groups.append({"key": "tokens", "title": "text tokens", "start": len(segments), "count": tokens})
        frames = atlas.frames
        pictures = pictures_of(self.capture)
        there = bool(frames) and pictures is not None and len(pictures) >= segments[frames[-1]]["span"][1]
        chosen = (
            pictures[[segments[s]["span"][0] for s in frames]] if there and pictures is not None else None
        )
        notes = list(self.notes)
        if frames and not there:
            notes.append("This capture keeps no pictures of its frames. Make it again to see them.")
        words = {
            "layersheads": "one scale for all rows",
            "heads": "one scale for all layers",
            "layers": "one scale for all heads",
            "single": "one scale for all layers and heads",
        }
        ends = "; it ends at the most that text gives a frame, more has the last colour" if frames else ""
        return {
            "colours": colours.tables(),
            "notes": notes,
            "names": {
                "after": checkpoint_name(self.capture),
                "before": self.earlier and checkpoint_name(self.earlier),
            },
            "columns": [self._column(s, frames) for s in range(len(segments))],
            "first": self._peak(),
            "answer": next(
                (i for i, row in enumerate(atlas.rows[len(segments) :]) if row.kind == "answer"), 0
            ),
            "sheet": sheet(chosen),
            "rows": [{"name": row.name} for row in atlas.rows],
            "groups": groups,
            "layers": atlas.layers,
            "heads": atlas.heads,
            "kinds": [{"title": self._kind_title(kind)} for kind in self.kinds],
            "uniform": pack(atlas.uniform.astype(np.float32)),
            "uniform_kinds": pack(self._by_kind(atlas.uniform).astype(np.float32)),
            "scales": jsonable(self.scales) | {"words": {key: text + ends for key, text in words.items()}},
            "maps": maps,
        }

    def _kind_title(self, kind: str) -> str:
        mine = [segment for segment in self.after.segments if segment["kind"] == kind]
        return f"{len(mine)} frame{'s' if len(mine) != 1 else ''}" if kind == "frames" else kind

    def _column(self, s: int, frames: list[int]) -> dict[str, Any]:
        segment = self.after.segments[s]
        if segment["kind"] != "frames":
            return {"short": segment["kind"], "name": segment["name"], "frame": -1, "clip": -1, "clipEnd": -1}
        start, stop = segment["span"]
        times = (self.capture.meta.get("frames") or {}).get("timestamps") or []
        seconds = middle_time((start, stop), times)
        time = "" if seconds is None else f" at {seconds:.2f} s"
        short = str(start + 1) if seconds is None else f"{seconds:.1f} s"
        return {
            "short": short,
            "name": segment["name"] + time,
            "frame": frames.index(s),
            "clip": start,
            "clipEnd": stop,
        }

    # -- in words, as a table, as a picture -------------------------------------------------------

    def _row(self) -> int:
        """The row that words speak of: the answer's tokens, else the last there is."""
        kinds = [segment["kind"] for segment in self.after.segments]
        return kinds.index("answer") if "answer" in kinds else len(kinds) - 1

    def _peak(self) -> int:
        """The frame that the answer looks at most; the first segment without frames."""
        if not self.after.frames:
            return 0
        masses = np.nan_to_num(self.after.mean()[self._row()][self.after.frames], nan=-1)
        return self.after.frames[int(masses.argmax())]

    def words(self) -> str:
        row, said = self._row(), []
        averaged = f"averaged over {_many(self.after.layers, 'layer')} and {_many(self.after.heads, 'head')}"
        for name, atlas in self._sides():
            mass = atlas.mean()[row]
            frames = [s for s in atlas.frames if np.isfinite(mass[s])]
            if not frames:
                said.append(f"{name}: {atlas.rows[row].name} sees no frame.")
                continue
            total, even = float(mass[frames].sum()), float(np.nansum(atlas.uniform[row][frames]))
            most = sorted(frames, key=lambda s: -mass[s])[:3]
            listed = ", ".join(f"{atlas.segments[s]['name']} {mass[s]:.1%}" for s in most)
            said.append(
                f"{name}: {atlas.rows[row].name} gives the frames {total:.1%} of its attention ({averaged}); uniform "
                f"attention over what it can see would give {even:.1%}. Most goes to {listed}."
            )
        return " ".join([*self.notes, *said])

    def _sides(self) -> list[tuple[str, Atlas]]:
        now = (checkpoint_name(self.capture), self.after)
        if self.before is None or self.earlier is None:
            return [now]
        return [(f"Before ({checkpoint_name(self.earlier)})", self.before), (f"After ({now[0]})", self.after)]

    def data(self) -> pd.DataFrame:
        """Means over layers and heads, one line a row and segment: ``mass`` (``before``, ``change``), ``uniform``."""
        import pandas as pd

        atlas = self.after
        count = len(atlas.segments)
        table = pd.DataFrame(
            {
                "looks": np.repeat([row.name for row in atlas.rows], count),
                "queries": np.repeat([row.queries for row in atlas.rows], count),
                "segment": [segment["name"] for segment in atlas.segments] * len(atlas.rows),
                "mass": atlas.mean().ravel(),
                "uniform": atlas.uniform.ravel(),
            }
        )
        if self.before is not None:
            table["before"] = self.before.mean().ravel()
            table["change"] = table["mass"] - table["before"]
        return table

    def caption(self) -> str:
        own = of_capture(self.capture)
        return own if self.earlier is None else f"After: {own} Before: {of_capture(self.earlier)}"

    def picture(self) -> Figure:
        from workbench.views.atlas_still import draw

        return draw(self)


def _top(values: np.ndarray) -> float:
    return float(np.max(values, initial=0.0, where=np.isfinite(values)))


def _averaged(layer: int | None, head: int | None) -> str:
    return f"{'layers' if layer is None else ''}{'heads' if head is None else ''}" or "single"


def _many(listed: Sequence[Any], name: str) -> str:
    return f"{name} {listed[0]}" if len(listed) == 1 and listed[0] != MEAN else f"{len(listed)} {name}s"


def _other_kind(before: Capture) -> str | None:
    return None if before.kind == KIND else f"it is a capture of the kind {before.kind!r}, not an atlas"


def _other_part(capture: Capture, before: Capture) -> str | None:
    """Layers, heads or queries that were not asked for on both sides."""
    for name in ("layers", "heads"):
        if capture.meta[name] != before.meta[name]:
            return f"it holds the {name} {before.meta[name]}, this atlas {capture.meta[name]}"
    if not np.array_equal(capture.arrays["queries"], before.arrays["queries"]):
        return "it was asked from other positions (queries)"
    return None
