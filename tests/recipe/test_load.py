"""Loading: plain data with places, extends, overrides, hash, difference."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.recipe.recipes import VALID, line_of, refused, write
from workbench.recipe import diff, load_recipe, parse_overrides, recipe_hash, resolve, to_yaml
from workbench.recipe.yamltree import parse

ROOT = Path(__file__).parents[2]


def test_valid_recipe_loads_with_its_values(tmp_path):
    recipe = load_recipe(write(tmp_path, "r.yaml", VALID))
    assert recipe.stages[0].train == {
        "encoder": 1e-3,
        "llm": 1e-3,
    }  # 1e-3 is text in YAML 1.1, a number to us
    assert recipe.arms["plain"].stages[0].frames.frames == 4
    assert recipe.machine.workers == 2
    with pytest.raises(Exception, match="frozen"):
        recipe.name = "other"


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/**/*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_the_repository_loads_and_survives_a_round_trip(path, tmp_path):
    recipe = load_recipe(path)
    again = load_recipe(write(tmp_path, "again.yaml", to_yaml(recipe)))
    assert again == recipe and recipe_hash(again) == recipe_hash(recipe)
    first = path.read_text().splitlines()[0]
    assert first.startswith("# workbench ") and path.relative_to(ROOT).as_posix() in first


def test_extends_merges_mappings_and_replaces_lists(tmp_path):
    write(tmp_path, "up/base.yaml", VALID)
    child = write(
        tmp_path,
        "down/child.yaml",
        """\
        extends: ../up/base.yaml
        name: child
        data: {sources: {images: {limit: 5}}}
        stages:
          - {name: only, train: {merger: 0.1}, data: {images: 1}, epochs: 2}
        """,
    )
    recipe = load_recipe(child)
    assert recipe.data.sources["images"].path == "images.jsonl" and recipe.data.sources["images"].limit == 5
    assert set(recipe.data.sources) == {"images", "videos"}
    assert [stage.name for stage in recipe.stages] == ["only"]
    assert "extends" not in resolve(child)


def test_an_error_names_the_file_where_the_key_was_written(tmp_path):
    base = write(tmp_path, "base.yaml", VALID.replace("steps: 20", "stepps: 20"))
    middle = write(tmp_path, "middle.yaml", "extends: base.yaml\nmodel: {variant: papr}\n")
    child = write(tmp_path, "child.yaml", "extends: middle.yaml\ntitle: x\n")
    error = refused(child)
    assert error.where == line_of(base, "stepps") and "'steps'" in error.todo
    base.write_text(VALID)
    error = refused(child)
    assert error.where == line_of(middle, "papr") and "paper" in error.todo


def test_extends_in_a_circle_and_a_missing_base(tmp_path):
    a = write(tmp_path, "a.yaml", "name: a\nextends: b.yaml\n")
    b = write(tmp_path, "b.yaml", "extends: a.yaml\n")
    error = refused(a)
    assert error.where == f"{b}:1" and "a.yaml -> b.yaml -> a.yaml" in error.found
    c = write(tmp_path, "c.yaml", "name: c\n\nextends: nowhere.yaml\n")
    error = refused(c)
    assert error.where == f"{c}:3" and "nowhere.yaml" in error.found
    assert refused(write(tmp_path, "d.yaml", "extends: [a.yaml]\n")).where.endswith("d.yaml:1")
    assert refused(tmp_path / "none.yaml").found.startswith("there is no file")
    assert "cannot be read" in refused(tmp_path).found


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("name: a\nname: b\n", 2, "twice (first in line 1)"),
        ("name: a\nmodel:\n  preset: x\n  preset: y\n", 4, "twice"),
        ("name: [a\nmodel: b\n", 2, "not YAML"),
        ("name: a\n\tmodel: b\n", 2, "not YAML"),
        ("name: a\n---\nname: b\n", 2, "not YAML"),
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("- a\n- b\n", 1, "not a mapping"),
        ("name: a\nseed: .inf\n", 2, "finite"),
        ("name: a\ntitle: !!python/object/apply:os.system ['echo x > hacked']\n", 2, "python/object/apply"),
        ("name: a\ntitle: !!python/name:os.system\n", 2, "not allowed"),
        ("name: a\ntitle: !env SECRET\n", 2, "not allowed"),
        ("name: a\ntitle: !!binary aGFsbG8=\n", 2, "not allowed"),
        ("name: a\n2: b\n", 2, "not text"),
        ("name: a\n? [x, y]\n: b\n", 2, "not text"),
        ("name: &n [*n]\n", 1, "alias"),
        ("name: *missing\n", 1, "not YAML"),
        ("name: a\ntitle: a\x00b\n", 2, "U+0000"),
        ("name: a\nmodel:\n  <<: [1]\n", 3, "<<"),
    ],
)
def test_files_that_are_not_plain_yaml_are_refused_with_their_line(tmp_path, monkeypatch, text, line, says):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    error = refused(path)
    assert says in error.found and error.where == f"{path}:{line}"
    assert [p.name for p in tmp_path.iterdir()] == ["bad.yaml"], "something was executed"


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: a\ntitle: gr\xfc\xdfe\n".encode("latin-1"))
    assert refused(path).where == f"{path}:2"
    path.write_bytes(b"\xef\xbb\xbf" + VALID.encode())  # a byte-order mark is harmless
    assert load_recipe(path).name == "small"


def test_aliases_cannot_make_a_short_file_explode(tmp_path):
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "alias" in refused(write(tmp_path, "bomb.yaml", "\n".join(rows) + "\n")).found


def test_merge_keys_give_way_to_written_ones_and_keep_their_line(tmp_path):
    text = VALID.replace("- name: first", "- &s\n    name: first") + "\n"
    text = text.replace("arms:\n", "arms:\n  other:\n    stages:\n      - <<: *s\n        steps: 7\n")
    recipe = load_recipe(write(tmp_path, "r.yaml", text))
    assert recipe.arms["other"].stages[0].steps == 7 and recipe.arms["other"].stages[0].name == "first"
    path = write(tmp_path, "s.yaml", text.replace("data: {images: 1}", "data: {imags: 1}"))
    assert refused(path).where == line_of(path, "imags")


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "b c", "é", "1e-3", "no", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abcd"), YAML_VALUES, min_size=1), st.booleans())
def test_the_tree_holds_what_safe_load_gives(value, flow):
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert parse(text, "x").plain() == yaml.safe_load(text) == value


def slow_merge(base, over):
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            k: slow_merge(base[k], over[k]) if k in base and k in over else {**base, **over}[k]
            for k in base | over
        }
    return over


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from("abcd"), YAML_VALUES, min_size=1), min_size=2, max_size=3))
def test_resolve_is_the_deep_merge_of_the_chain(tmp_path, chain):
    expected = chain[0]
    for i, value in enumerate(chain):
        extends = {"extends": f"{i - 1}.yaml"} if i else {}
        write(tmp_path, f"{i}.yaml", yaml.safe_dump({**value, **extends}, allow_unicode=True))
        expected = slow_merge(expected, value) if i else value
    assert resolve(tmp_path / f"{len(chain) - 1}.yaml") == expected


def test_overrides_change_values_and_errors_name_the_flag(tmp_path):
    path = write(tmp_path, "r.yaml", VALID)
    changed = {
        "machine.workers": 1,
        "stages.0.steps": 3,
        "arms.plain.stages.0.frames.frames": 9,
        "seeds": [1, 2],
    }
    recipe = load_recipe(path, changed)
    assert (recipe.machine.workers, recipe.stages[0].steps, recipe.seeds) == (1, 3, (1, 2))
    assert recipe.arms["plain"].stages[0].frames.frames == 9
    assert load_recipe(path, {"machine": {"threads": 2}}).machine.threads == 2
    error = refused(path, {"machine.wrkers": 1})
    assert error.where == "--set machine.wrkers=1" and "'workers'" in error.todo
    assert refused(path, {"machine.workers": "many"}).where == "--set machine.workers=many"
    assert refused(path, {"stages.4.steps": 1}).where == "--set stages.4.steps=1"
    assert refused(path, {"name.x": 1}).where == "--set name.x=1"
    assert refused(path, {"extends": "x"}).where == "--set extends=x"
    # another key of a section that a flag touched keeps its own line
    path.write_text(VALID.replace("preset: tiny", "presett: tiny"))
    assert refused(path, {"model.variant": "release"}).where == line_of(path, "presett")


def test_parse_overrides_reads_yaml_values():
    found = parse_overrides(["a.b=1", "c=[1, 2]", "d=text", "e=", "f=a=b", "g=1.5", "h={x: true}"])
    assert found == {"a.b": 1, "c": [1, 2], "d": "text", "e": None, "f": "a=b", "g": 1.5, "h": {"x": True}}
    for wrong in (["a"], ["=1"], ["a..b=1"], ["a=1", "a=2"], ["a=[1"], ["a=!!python/name:os.system"]):
        with pytest.raises(Exception, match="--set") as caught:
            parse_overrides(wrong)
        assert caught.value.where == f"--set {wrong[-1]}" or ":" in caught.value.where


def test_hash_is_of_the_values_without_the_machine(tmp_path):
    path = write(tmp_path, "r.yaml", VALID)
    recipe = load_recipe(path)
    content = recipe.model_dump(mode="json")
    del content["machine"], content["probes"]  # neither changes what is trained
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert recipe_hash(recipe) == hashlib.sha256(text.encode()).hexdigest()
    assert recipe_hash(load_recipe(path, {"machine.workers": 7})) == recipe_hash(recipe)
    looked = load_recipe(path, {"probes": {"one": {"probe": "fusion"}}})
    assert looked.probes and recipe_hash(looked) == recipe_hash(recipe)
    assert recipe_hash(load_recipe(path, {"stages.0.steps": 11})) != recipe_hash(recipe)
    reordered = yaml.safe_dump(yaml.safe_load(VALID), sort_keys=True) + "# a comment\n"
    assert recipe_hash(load_recipe(write(tmp_path, "s.yaml", reordered))) == recipe_hash(recipe)


def test_diff_lists_each_value_that_differs(tmp_path):
    path = write(tmp_path, "r.yaml", VALID)
    a = load_recipe(path)
    b = load_recipe(path, {"stages.0.steps": 11, "data.sources.extra": {"path": "x.jsonl"}, "seeds": [1]})
    assert diff(a, a) == []
    found = {item.key: (item.a, item.b) for item in diff(a, b)}
    assert found.pop("seeds") == ([], [1])
    assert found.pop("stages.0.steps") == (10, 11)
    assert found.pop("data.sources.extra.path") == ("(absent)", "x.jsonl")
    assert set(found) == {"data.sources.extra.limit", "data.sources.extra.skills"}
