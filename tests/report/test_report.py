"""report.html: self-contained, complete, safe against hostile text."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.study.studies import loaded, study
from tests.study.synthetic import DEFAULT_ARMS, ArmTruth, write_study
from workbench.cli import main
from workbench.report import build_report, show_live
from workbench.report.build import render
from workbench.study.contrasts import analyse
from workbench.study.results import StudyError, load_results
from workbench.views.charts import study as figures

MAKERS = [
    figures.plane,
    figures.curves,
    figures.forest,
    figures.copies,
    figures.skill_changes,
    figures.frames,
]


class Page(HTMLParser):
    """Tags with attributes, and the text of the page's own elements and of its script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._stack: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._stack.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self._stack and self._stack[-1] == "script":
            self.scripts[-1] += data
        elif not (self._stack and self._stack[-1] == "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(loaded("effect")))


def test_nothing_is_loaded_from_anywhere(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    policies = [a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a]
    assert policies and policies[0].startswith("default-src 'none'")


def test_conclusions_come_before_figures_and_every_figure_has_words(page):
    assert page.text.index("Video-SFT at 16 frames raised video") < page.text.index("Scores over training")
    plots = [a for t, a in page.tags if t == "div" and a.get("class") == "plot"]
    assert len(plots) == len(MAKERS)
    assert all(a["role"] == "img" and len(a["aria-label"]) > 30 for a in plots)
    specs = [json.loads(s) for s in page.scripts if s.startswith("{")]
    assert len(specs) == len(MAKERS) and all(spec["data"] for spec in specs)


def test_csv_holds_every_number_of_the_analysis(page):
    link = next(a["href"] for t, a in page.tags if a.get("id") == "csv")
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link.partition(",")[2]).decode("utf-8"))))
    analysis = analyse(loaded("effect"))
    index = {(r["table"], r["arm"], r["reference"], r["measure"]): r for r in rows}
    for c in analysis.contrasts:
        titles = {
            "image_no_count": "image without counting",
            "video_common": "video at the common frame count",
            "video_temporal": "temporal video skills",
        }
        row = index["difference", c.arm, c.reference, titles.get(c.measure, c.measure)]
        assert float(row["value"]) == pytest.approx(c.estimate.value, abs=1e-5)
        assert float(row["high"]) == pytest.approx(c.estimate.high, abs=1e-5)
        assert float(row["p_holm"]) == pytest.approx(c.adjusted_p, abs=1e-5)
    assert {r["table"] for r in rows} >= {"score", "curve", "skill change", "copies probe: loss", "cost"}
    assert len([r for r in rows if r["table"] == "curve"]) == 4 * 4 * 4  # arms, measures, steps


def test_hostile_titles_stay_text_and_paths_stay_private(tmp_path):
    bad = "</script><img src=x onerror=alert(1)>"
    arms = {
        "fixed-2": DEFAULT_ARMS["fixed-2"],
        "odd": ArmTruth(2, title=bad, policy={"policy": "fps", "rate": 1.0}),
    }
    directory = write_study(tmp_path / "s", arms, seeds=(0,), images=4, videos=10)
    recipe = (directory / "recipe.yaml").read_text()
    (directory / "recipe.yaml").write_text(recipe + "data:\n  root: /home/somebody/secret/world\n")
    text = build_report(directory).read_text(encoding="utf-8")
    assert "somebody" not in text and str(tmp_path) not in text and "…/world" in text
    assert "0f0f0f0f" in text and "transformers 5.23.0" in text
    found = Page(text)
    assert not [t for t, a in found.tags if t == "img"]
    assert any(bad in json.dumps(json.loads(s)) for s in found.scripts if s.startswith("{"))


@pytest.mark.parametrize("kind", ["effect", "quick", "unfinished"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_figures_draw_every_study(kind, make):
    figure = make(loaded(kind))
    assert isinstance(figure, go.Figure) and figure.data
    assert figure.to_json()


def test_figures_show_the_numbers():
    results = loaded("effect")
    analysis = analyse(results)
    shown = next(t for t in figures.plane(results).data if t.name == "Fixed 16")
    assert shown.x[0] == analysis.levels["fixed-16", "image"].value
    change = analysis.find("fixed-16", "base", "video").estimate
    assert shown.error_y.array[0] == pytest.approx(change.high - change.value)
    line = next(t for t in show_live(study("unfinished")).data if t.name == "Hybrid-Frame")
    assert list(line.x) == [0, 60]


def test_unfinished_report_says_so_and_quick_says_one_seed():
    unfinished = Page(render(loaded("unfinished")))
    assert "This study is not complete" in unfinished.text and "hybrid: not started" in unfinished.text
    quick = Page(render(loaded("quick")))
    assert "One seed: differences between training runs are not measured" in quick.text


def test_build_writes_beside_the_runs_or_where_told(tmp_path):
    one = {"fixed-2": DEFAULT_ARMS["fixed-2"]}
    directory = write_study(tmp_path / "s", one, seeds=(0,), images=2, videos=5)
    assert build_report(directory) == directory / "report.html"
    assert build_report(str(directory), tmp_path / "other.html") == tmp_path / "other.html"
    assert not list(tmp_path.rglob("*.partial"))


def test_the_command_analyses_a_study_once(tmp_path, capsys):
    one = {"fixed-2": DEFAULT_ARMS["fixed-2"]}
    directory = write_study(tmp_path / "s", one, seeds=(0,), images=2, videos=5)
    before = analyse.cache_info().misses
    assert main(["report", str(directory)]) == 0
    assert analyse.cache_info().misses == before + 1
    said = capsys.readouterr().out
    assert "fixed-2" in said and said.endswith(f"report: {directory / 'report.html'}\n")


def test_the_plane_says_which_questions_its_lines_use(tmp_path):
    directory = write_study(tmp_path / "s", seeds=(0,), images=10, videos=20)
    for file in directory.glob("runs/*/scores/image-000060-own.parquet"):  # half the images on the way
        table = pd.read_parquet(file)
        table[table["sample_id"] < "i-00005"].to_parquet(file, index=False)
    text = Page(render(load_results(directory))).text
    assert "questions asked at every step (25 of 50 image, 20 of 20 video)" in text


def test_a_report_that_cannot_be_written_is_one_clear_error(tmp_path):
    with pytest.raises(StudyError, match="--out"):
        build_report(study("quick"), tmp_path / "no" / "such" / "folder.html")


def test_samples_that_flipped_are_listed_with_their_counts(page):
    from workbench.views.flips import flips_at

    flips = flips_at(loaded("effect"), "fixed-16", 240)
    assert f"Fixed 16: {flips.sentence('image')}; {flips.sentence('video')}" in page.text
    lost = flips.questions("lost")
    assert f"Fixed 16: right → wrong, the first 20 of {len(lost)} questions" in page.text
    assert all(name in page.text for name in lost["sample_id"].head(20))
