"""What is resident when it is used: by hand, and as it moves with slots, loads and foresight."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splatforge.sim.systems.hermes import Setting, run, schedule
from splatforge.sim.systems.resident import LOADING, Use, hit_ratio


def use(app: str, foreseen_s: float, queued_s: float, served_s: float, stage: str = "s") -> Use:
    return Use(app=app, stage=stage, foreseen_s=foreseen_s, queued_s=queued_s, served_s=served_s)


@st.composite
def streams(draw) -> list[Use]:
    """Uses of few applications, foreseen and queued some time before they are served."""
    found, now_s = [], 0.0
    for _ in range(draw(st.integers(1, 40))):
        now_s += draw(st.floats(0, 5))
        queued_s = now_s - draw(st.floats(0, 5))
        found.append(use(draw(st.sampled_from("abcde")), queued_s - draw(st.floats(0, 5)),
                         queued_s, now_s, draw(st.sampled_from("st"))))
    return found


def test_by_hand() -> None:
    """Loads take 2 s: the second use of a is there, b comes in time for who looks far enough."""
    uses = [use("a", 0, 0, 1), use("a", 2, 2, 3), use("b", 2, 4, 5), use("c", 7, 9, 12)]
    hits = [hit_ratio(uses, 9, 2.0, loading) for loading in LOADING]
    assert hits == [0.25, 0.5, 0.75]
    # With room for one, b foreseen at 2 does not put out a, which is needed; c puts out b.
    assert [hit_ratio(uses, 1, 2.0, loading) for loading in LOADING] == [0.25, 0.5, 0.5]
    assert hit_ratio([*uses, use("a", 13, 13, 14, "t")], 9, 2.0, "lru") == 0.4
    assert hit_ratio([*uses, use("a", 13, 13, 14, "t")], 9, 2.0, "lru", per_stage=True) == 0.2
    assert hit_ratio([], 1, 1.0, "lru") == 0.0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(uses=streams(), slots=st.integers(1, 6), load_s=st.floats(0, 6))
def test_more_slots_and_shorter_loads_never_miss_more(uses, slots, load_s) -> None:
    assert hit_ratio(uses, slots, load_s, "lru") <= hit_ratio(uses, slots + 1, load_s, "lru")
    for loading in LOADING:
        assert (hit_ratio(uses, slots, load_s + 1, loading)
                <= hit_ratio(uses, slots, load_s, loading))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(uses=streams(), load_s=st.floats(0, 6), per_stage=st.booleans())
def test_with_room_for_all_foresight_never_misses_more(uses, load_s, per_stage) -> None:
    lru, epwq, hermes = (hit_ratio(uses, 10, load_s, loading, per_stage=per_stage)
                         for loading in LOADING)
    assert lru <= epwq <= hermes
    kinds = {(each.app, each.stage if per_stage else "") for each in uses}
    assert lru == pytest.approx(1 - len(kinds) / len(uses))
    assert hit_ratio(uses, 10, 0.0, "epwq", per_stage=per_stage) == 1.0


def test_the_published_order_in_a_window() -> None:
    """Hermes above the order of waiting above LRU, of prefixes and of adapters, over four seeds."""
    for per_stage, slots in ((True, 8), (False, 4)):
        found = [[hit_ratio(schedule(Setting(count=80, seed=seed), "hermes").uses, slots, 2.0,
                            loading, per_stage=per_stage) for seed in range(4)]
                 for loading in LOADING]
        lru, epwq, hermes = (sum(each) / 4 for each in found)
        assert lru < epwq
        assert lru < hermes
        if per_stage:
            assert epwq < hermes


def test_options_reach_the_run() -> None:
    few, many = (run(count=30, adapters=each, prefixes=2 * each).metrics for each in (1, 30))
    for name in ("adapter_hits_lru", "prefix_hits_lru"):
        assert few[name] < many[name] < 1
    assert run(count=30, load_s=50.0).metrics["prefix_hits_hermes"] < run(count=30).metrics[
        "prefix_hits_hermes"]
    assert few["completion_mean_s"] == many["completion_mean_s"]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: hit_ratio([], 0, 1.0, "lru"), "slots must be positive, not 0"),
    (lambda: hit_ratio([], 1, math.nan, "lru"), "load_s must be non-negative and finite, not nan"),
    (lambda: hit_ratio([], 1, 1.0, "fifo"), "loading must be one of lru, epwq, hermes, not 'fifo'"),
    (lambda: use("a", 2, 1, 3), "Use must be foreseen, queued and served in this order"),
    (lambda: run(count=2, adapters=0), "adapters must be positive and finite, not 0"),
    (lambda: run(count=2, load_s=-1.0), r"load_s must be non-negative and finite, not -1\.0"),
])
def test_what_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
