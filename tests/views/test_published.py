"""Published results: what is bundled is what the sources state, and a file that is not sound is refused by line."""

from __future__ import annotations

import math

import pytest

from workbench.errors import DataError
from workbench.views import published

HEAD = ",".join(published.COLUMNS)
GOOD = "Paper (arXiv 1),M,B,image,score,before,after,1.0,2.0,1.0,,,,,alone"


def test_what_is_bundled_is_what_the_papers_state():
    """Numbers are data: this freezes the decision which ones are shown."""
    table = published.load()
    stated = {
        ("Video-MME", "TempFlex, Gemma3"): (57.1, 58.8, 1.7),
        ("Video-MME", "TempFlex, Qwen3"): (58.4, 59.6, 1.2),
        ("TempCompass", "TempFlex, Gemma3"): (None, None, 1.5),
        ("TempCompass", "TempFlex, Qwen3"): (None, None, 1.5),
        ("MMStar", "LLaVA-1.5-7B"): (29.40, 32.47, 3.07),
    }
    found = {
        (r.benchmark, r.model): tuple(
            None if math.isnan(v) else v for v in (r.reference_value, r.value, r.change)
        )
        for r in table.itertuples()
    }
    assert found == stated
    assert table[["n", "seeds", "low", "high"]].isna().all().all(), "no source states these"
    assert table["source"].str.contains("OpenReview|arXiv").all() and table["note"].str.len().gt(10).all()


def test_every_row_is_shown_with_its_source_and_without_an_interval():
    data = published.table_data()
    assert len(data["rows"]) == 5 and "not comparable" in data["caption"]
    assert {row["interval"] for row in data["rows"]} == {"none given"}
    assert data["rows"][0]["levels"] == "57.1 → 58.8" and data["rows"][0]["change"] == "+1.7"
    assert all("(" in row["source"] and ":" in row["source"] for row in data["rows"])


def write(folder, *lines):
    (folder / "a.csv").write_text("\n".join([HEAD, *lines]) + "\n", encoding="utf-8")
    return folder


def test_a_sound_file_is_read(tmp_path):
    table = published.load(write(tmp_path, GOOD, GOOD.replace(",,,,,alone", ",400,5,0.5,1.5,alone")))
    assert table["change"].tolist() == [1.0, 1.0] and table["n"].tolist()[1] == 400
    assert "[0.5, 1.5]" in {row["interval"] for row in published.table_data(tmp_path)["rows"]}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (GOOD.replace("Paper (arXiv 1)", ""), "'source' is empty"),
        (GOOD.replace("image", "sound"), "kind is 'sound'"),
        (GOOD.replace("2.0,1.0", "2.0,9.0"), "change 9 is not 2 - 1"),
        (GOOD.replace("2.0,1.0", "2.0,"), "'change' is empty"),
        (GOOD.replace("2.0,1.0", "two,1.0"), "'value' is 'two'"),
        (GOOD.replace("2.0,1.0", "inf,1.0"), "'value' is 'inf'"),
        (GOOD.replace(",,,,,alone", ",,,0.5,,alone"), "no interval around change"),
        (GOOD.replace(",,,,,alone", ",,,1.5,2.5,alone"), "no interval around change"),
        (GOOD + ",more", "more or fewer cells"),
        ("Paper,M", "more or fewer cells"),
    ],
)
def test_a_row_that_is_not_sound_is_named_by_file_and_line(tmp_path, line, found):
    with pytest.raises(DataError, match=found) as error:
        published.load(write(tmp_path, GOOD, line))
    assert error.value.where == f"{tmp_path / 'a.csv'}:3"


def test_other_columns_and_no_table_are_refused(tmp_path):
    with pytest.raises(DataError, match="no CSV file"):
        published.load(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        published.load(tmp_path / "nowhere")
    (tmp_path / "a.csv").write_text(HEAD.replace("note", "remark") + "\n")
    with pytest.raises(DataError, match="note, remark"):
        published.load(tmp_path)
