"""Flips against a slow count by hand, what the front end is told of them, and pictures of the samples."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.study.studies import loaded
from tests.training.studies import world
from workbench.errors import WorkbenchError
from workbench.evaluation.statistics import flips as counted_by_statistics
from workbench.frames import midpoint_indices
from workbench.samples.reader import FrameReader
from workbench.samples.source import load_source
from workbench.study.results import StudyResults
from workbench.views import flips_pictures as pictures
from workbench.views.flips import LOST, WON, flips_at, points_of
from workbench.views.flips_piece import PAGE_ROWS, FlipsPiece
from workbench.views.payload import jsonable, size_of


def by_hand(results: StudyResults, arm: str, step: int) -> dict[tuple[str, ...], dict[str, list[int]]]:
    """question -> {"lost": seeds, "won": seeds, "asked": seeds}, from dictionaries and loops only."""
    base, found = {}, {}
    rows = results.scores.to_dict("records")
    for row in rows:
        if row["arm"] == "base" and row["condition"] == "own":
            base[row["seed"], row["suite"], row["sample_id"], row["question"]] = row["correct"]
    for row in rows:
        at = (row["seed"], row["suite"], row["sample_id"], row["question"])
        if (row["arm"], row["step"], row["condition"]) == (arm, step, "own") and at in base:
            entry = found.setdefault(at[1:], {LOST: [], WON: [], "asked": []})
            entry["asked"].append(row["seed"])
            if row["correct"] != base[at]:
                entry[WON if row["correct"] else LOST].append(row["seed"])
    return found


@pytest.mark.parametrize(("kind", "arm", "step"), [("effect", "fixed-16", 240), ("unfinished", "hybrid", 60)])
def test_flips_are_those_counted_by_hand(kind, arm, step):
    if kind == "unfinished":
        arm = "fixed-16"  # seed 1 stopped at step 60, seed 0 went on
    results = loaded(kind)
    flips, truth = flips_at(results, arm, step), by_hand(results, arm, step)
    counts = flips.counts()
    assert counts["pairs"] == sum(len(entry["asked"]) for entry in truth.values())
    assert counts["questions"] == len(truth)
    for way in (LOST, WON):
        assert counts[way] == sum(len(entry[way]) for entry in truth.values()) > 0
        table = flips.questions(way)
        shown = {(r.suite, r.sample_id, r.question): list(r.seeds) for r in table.itertuples()}
        assert shown == {at: sorted(entry[way]) for at, entry in truth.items() if entry[way]}
        assert (table["flipped"] == table["seeds"].map(len)).all() and table[
            "flipped"
        ].is_monotonic_decreasing
        assert all(
            len(truth[r.suite, r.sample_id, r.question]["asked"]) == r.asked for r in table.itertuples()
        )


def test_flips_agree_with_the_statistics_room():
    results = loaded("effect")
    own = results.scores[results.scores["condition"] == "own"]
    after = own[(own["arm"] == "hybrid") & (own["step"] == 240)]
    said = counted_by_statistics(own[own["arm"] == "base"], after)["flip"].value_counts()
    counts = flips_at(results, "hybrid").counts()
    assert (counts[LOST], counts[WON]) == (said["right->wrong"], said["wrong->right"])


def test_a_change_has_the_interval_of_the_study_and_adds_up():
    flips = flips_at(loaded("effect"), "fixed-16", 240)
    for kind, change in flips.changes().items():
        by_skill = [
            flips.counts(kind, skill) for skill in flips.pairs.query("kind == @kind")["skill"].unique()
        ]
        mean = np.mean([100 * (n[WON] - n[LOST]) / n["pairs"] for n in by_skill])
        assert change.value == pytest.approx(mean) and change.low < change.value < change.high
    assert flips.sentence("image") == (
        f"{flips.counts('image')[LOST]} right → wrong, {flips.counts('image')[WON]} wrong → right "
        "of 120 image questions × 5 seeds"
    )


def test_points_are_ends_first_and_nothing_else_can_be_compared():
    points = points_of(loaded("effect"))
    assert points[:4] == [("fixed-2", 240), ("fixed-16", 240), ("hybrid", 240), ("random-matched", 240)]
    assert len(points) == 12 and points[4:6] == [("fixed-2", 120), ("fixed-2", 60)]
    with pytest.raises(WorkbenchError, match="fixed-16@240"):
        flips_at(loaded("effect"), "fixed-16", 7)
    with pytest.raises(WorkbenchError, match="compared with"):
        flips_at(loaded("effect"), "base", 0)


def test_no_flip_is_no_error():
    flips = flips_at(loaded("null"), "fixed-2")
    assert flips.counts()[LOST] == flips.counts()[WON] == 0 < flips.counts()["pairs"]
    assert flips.questions().empty
    assert FlipsPiece(loaded("null")).rows("fixed-2@240") == {"rows": [], "left": 0}


def test_what_the_front_end_is_told_fits_and_adds_up():
    piece = FlipsPiece(loaded("effect"))
    data = piece.data()
    assert [point["key"] for point in data["points"]] == piece.keys and size_of(jsonable(data)) < 50_000
    for point in data["points"]:
        flips = piece.flips(point["key"])
        for way in (LOST, WON):
            assert sum(group[way] for group in point["groups"]) == flips.counts()[way]
        assert any(group["change"] for group in point["groups"]) == ("(end)" in point["title"])
    carried = dict((json.dumps(question), answer) for question, answer in piece.carried())
    assert list(carried) == [json.dumps({"flips": key}) for key in piece.keys]  # no data: no pictures
    assert sum(size_of(jsonable(answer)) for answer in carried.values()) < 1.2 * PAGE_ROWS
    end = carried[json.dumps({"flips": "fixed-16@240"})]
    table = piece.flips("fixed-16@240").questions()
    assert len(end["rows"]) + end["left"] == len(table)
    assert end["rows"][0]["by_seed"][0][0] == 0 and len({row["look"] for row in end["rows"]}) == len(
        end["rows"]
    )
    with pytest.raises(WorkbenchError, match="points are fixed-2@240"):
        piece.answer({"flips": "fixed-3@1"})
    with pytest.raises(WorkbenchError, match="does not say where the suite"):
        piece.answer({"picture": ["image", "i-00000", 1]})


def test_an_unfinished_study_says_how_many_seeds_came_this_far():
    points = {point["key"]: point for point in FlipsPiece(loaded("unfinished")).data()["points"]}
    assert points["fixed-16@240"]["note"].startswith("Only 1 of 2 seeds have come this far.")
    assert points["fixed-16@60"]["seeds"] == 2 and points["fixed-16@60"]["note"] == ""
    assert "hybrid@240" not in points and points["hybrid@60"]["seeds"] == 1


class Elsewhere:
    """Results whose recipe names the tests' world."""

    def __init__(self, directory, root):
        self.directory = directory
        self.recipe_yaml = json.dumps(
            {
                "data": {"root": str(root), "sources": {"v": {"path": "test/videos.jsonl"}}},
                "evaluation": {"suites": {"video": "v"}},
            }
        )


def test_a_strip_shows_the_frames_that_a_plan_uses(tmp_path):
    shown = pictures.TestPictures(Elsewhere(tmp_path, world()))
    sample = next(iter(load_source(world() / "test/videos.jsonl")))
    strip = shown.strip("video", sample.id, 3)
    kind, _, text = strip["source"].partition(";base64,")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")).astype(int)
    with FrameReader() as reader:
        available = reader.info(sample.media).frames
        indices = midpoint_indices(available, 3)
        frames = reader.read(sample.media, indices).frames.astype(int)
    side = frames.shape[2]
    assert image.shape == (side, 3 * side + 2 * pictures.GAP, 3)
    for i, frame in enumerate(frames):
        part = image[:, i * (side + pictures.GAP) :][:, :side]
        assert np.abs(part - frame).mean() < (1 if kind.endswith("png") else 12)
        others = [np.abs(part - other).mean() for j, other in enumerate(frames) if j != i]
        assert np.abs(part - frame).mean() < min(others)
    assert strip["words"].startswith(f"3 of {available} frames were used, in reading order: {indices[0]} (")
    assert strip["width"] == 3 * pictures.LARGE
    with pytest.raises(WorkbenchError, match="no frame of it"):
        shown.strip("video", sample.id, 0)
    with pytest.raises(WorkbenchError, match="no such sample now"):
        shown.strip("video", "nobody", 1)
    with pytest.raises(WorkbenchError, match="not on this machine"):
        pictures.TestPictures(Elsewhere(tmp_path, "gone")).strip("video", sample.id, 1)
    shown.close()


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 32, 32), (9, 32, 32), (16, 480, 640), (256, 720, 405)]
)
def test_strips_of_any_length_stay_small_and_are_never_enlarged(frames, height, width):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    side = next((s for most, s in pictures.SIDES if frames <= most), pictures.SMALLEST_SIDE)
    strip = pictures._compose(drawn, side)
    assert strip.width <= pictures.STRIP
    per_row = min(8, frames)
    assert strip.width == per_row * round(width * min(1, side / max(height, width))) + 2 * (per_row - 1)
    assert len(pictures._data_url(strip)) < 600_000  # of noise, the worst there is
