"""The batch plan is a pure function of (seed, stage, step), visits everything, and keeps the shares."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import DataError
from workbench.samples.sample import Sample, Turn
from workbench.training.batches import BatchPlan, fingerprint


def samples(name: str, count: int, turns: int = 1) -> list[Sample]:
    questions = tuple(Turn(f"q{t}", "a") for t in range(turns))
    return [Sample(id=f"{name}-{i}", turns=questions) for i in range(count)]


def plan(**kwargs) -> BatchPlan:
    defaults = {"seed": 3, "stage": "s", "steps": 50}
    sources = {"a": samples("a", 17), "b": samples("b", 5)}
    return BatchPlan(sources, {"a": 0.7, "b": 0.3}, 8, **(defaults | kwargs))


def ids(batches: BatchPlan, step: int) -> list[str]:
    return [visit.sample.id for visit in batches.step(step)]


def test_a_step_does_not_depend_on_the_steps_before_it():
    straight = [ids(plan(), step) for step in range(50)]
    fresh = plan()
    assert [ids(fresh, step) for step in reversed(range(50))] == straight[::-1]
    assert ids(plan(seed=4), 0) != straight[0] and ids(plan(stage="t"), 0) != straight[0]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.05, 5), min_size=4, max_size=4),
    batch=st.integers(1, 16),
)
def test_shares_are_exact_and_epochs_are_permutations(sizes, weights, batch):
    sources = {f"s{i}": samples(f"s{i}", n) for i, n in enumerate(sizes)}
    shares = {name: weights[i] for i, name in enumerate(sources)}
    batches = BatchPlan(sources, shares, batch, seed=0, stage="x", steps=40)
    seen = [visit.sample.id for step in range(40) for visit in batches.step(step)]
    assert len(seen) == 40 * batch
    total = sum(shares.values())
    for name, members in sources.items():
        own = [i for i in seen if i.split("-")[0] == name]
        assert abs(len(own) - 40 * batch * shares[name] / total) < len(sources) + 1
        for at in range(0, len(own) - len(members) + 1, len(members)):
            assert sorted(own[at : at + len(members)]) == sorted(s.id for s in members)


def test_an_epoch_sees_every_source():
    batches = plan(steps=None, epochs=2)
    counts = Counter(i for step in range(batches.steps) for i in ids(batches, step))
    assert min(counts[s.id] for name in batches.names for s in batches.sources[name]) >= 2


def test_turns_are_a_subset_in_order_and_differ_between_visits():
    batches = BatchPlan({"a": samples("a", 4, turns=6)}, {"a": 1}, 4, seed=0, stage="s", steps=30, turns=3)
    kept = [visit.turns for step in range(30) for visit in batches.step(step)]
    assert all(len(t) == 3 and list(t) == sorted(set(t)) for t in kept)
    used = Counter(np.concatenate(kept).tolist())
    assert set(used) == set(range(6)) and len(set(kept)) > 10


def test_an_empty_source_is_named():
    with pytest.raises(DataError, match="'b'"):
        BatchPlan({"a": samples("a", 2), "b": []}, {"a": 1, "b": 1}, 2, seed=0, stage="s", steps=1)


def test_fingerprint_sees_ids_turns_and_frames():
    visits = plan().step(0)
    frames = [(0,)] * len(visits)
    base = fingerprint(visits, frames)
    assert base == fingerprint(plan().step(0), frames)
    assert base != fingerprint(visits, [(1,), *frames[1:]]) and base != fingerprint(visits[::-1], frames)
