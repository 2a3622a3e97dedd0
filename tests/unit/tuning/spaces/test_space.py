"""The space: values and coordinates, what a repair mends, what holds between parameters, what is refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelyard.tuning.spaces.domains import Choices, Subset, Vector, Weighted
from modelyard.tuning.spaces.scalars import Ordered, Range, is_scale, just_inside, multiples, powers
from modelyard.tuning.spaces.space import Condition, Parameter, Relation, Space

# ---- any domain, any point of it ----

finite = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 4) + 0.0)


@st.composite
def ranges(draw):
    kind = draw(st.sampled_from(["real", "log", "whole", "whole_log", "grid", "whole_grid"]))
    if kind in ("real", "log"):
        low, high = sorted((draw(finite), draw(finite)))
        return (
            Range(low=low, high=high)
            if kind == "real"
            else Range(low=abs(low) + 1e-9, high=abs(low) + abs(high) + 1, log=True)
        )
    if kind in ("whole", "whole_log"):
        low = draw(st.integers(1 if kind == "whole_log" else -500, 500))
        return Range(low=low, high=low + draw(st.integers(0, 300)), integer=True, log=kind == "whole_log")
    count = draw(st.integers(0, 40))
    if kind == "whole_grid":
        low, step = draw(st.integers(-100, 100)), draw(st.integers(1, 16))
        return Range(low=low, high=low + step * count, step=step, integer=True)
    low, step = draw(st.integers(-50, 50)) / 10, draw(st.sampled_from([0.1, 0.25, 0.001, 1.0]))
    return Range(low=low, high=round(low + step * count, 6), step=step)


numbers = st.one_of(
    ranges(),
    st.lists(st.integers(-99, 999), min_size=1, max_size=6, unique=True).map(
        lambda options: Ordered(options=tuple(sorted(options)))
    ),
    st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(100, 5000)).map(lambda t: powers(*t)),
    st.tuples(st.integers(1, 16), st.integers(-40, 0), st.integers(0, 300)).map(lambda t: multiples(*t)),
)
options = st.lists(
    st.none() | st.booleans() | st.integers(2) | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
    min_size=1, max_size=5, unique_by=json.dumps,
).map(tuple)  # fmt: skip
plain = st.one_of(
    numbers,
    options.map(lambda o: Choices(options=o)),
    options.flatmap(
        lambda o: st.lists(st.floats(0.01, 9), min_size=len(o), max_size=len(o)).map(
            lambda w: Weighted(options=o, weights=tuple(w))
        )
    ),
)
domains = st.one_of(
    plain,
    st.lists(plain, min_size=1, max_size=3).map(lambda items: Vector(items=tuple(items))),
    st.tuples(ranges(), st.integers(1, 4)).map(lambda t: Vector(items=(t[0],) * t[1], rising=True)),
    st.tuples(st.lists(st.text(max_size=4), min_size=1, max_size=4, unique=True), st.booleans()).map(
        lambda t: Subset(options=tuple(t[0]), empty=t[1])
    ),
)


def coordinate(draw, dimension):
    """Any coordinate within a dimension, as an optimiser may propose it."""
    if dimension.kind == "choice":
        return draw(st.sampled_from(dimension.choices))
    ends = st.sampled_from([dimension.low, dimension.high])
    if dimension.kind == "int":
        return draw(st.one_of(ends, st.integers(int(dimension.low), int(dimension.high))))
    return draw(st.one_of(ends, st.floats(dimension.low, dimension.high)))


def any_point(draw, space):
    return {d.name: coordinate(draw, d) for d in space.dimensions}


@given(st.data(), domains)
def test_values_and_coordinates_are_inverse_and_within_their_dimensions(data, domain):
    parameter = Parameter(name="x", domain=domain)
    point = {d.name: coordinate(data.draw, d) for d in parameter.dimensions}
    value = parameter.value(point)
    json.dumps(value, allow_nan=False)
    if isinstance(domain, Subset) and not value and not domain.empty:
        with pytest.raises(ValueError, match="is empty"):
            parameter.coordinates(value)
        return
    coordinates = parameter.coordinates(value)
    assert parameter.value(coordinates) == value
    assert json.dumps(parameter.value(coordinates)) == json.dumps(value)  # 1 is not 1.0, nor true
    assert list(coordinates) == [d.name for d in parameter.dimensions]
    for dimension in parameter.dimensions:
        given_one = coordinates[dimension.name]
        if dimension.kind == "choice":
            assert given_one in dimension.choices
        else:
            assert dimension.low <= given_one <= dimension.high


@given(domains)
def test_the_middle_is_a_value(domain):
    domain.coordinates("x", domain.middle())


@given(numbers)
def test_both_ends_of_numbers_are_reached_and_never_left(domain):
    (dimension,) = domain.dimensions("x")
    low, high = (domain.value("x", {"x": end}) for end in (dimension.low, dimension.high))
    if isinstance(domain, Range):
        assert (low, high) == (domain.low, domain.high)
    else:
        assert (low, high) == (domain.options[0], domain.options[-1])
    for beyond, end in ((dimension.low - 3, low), (dimension.high + 3, high)):
        assert domain.value("x", {"x": beyond}) == end
    assert domain.top == high


@given(st.data(), numbers, st.booleans())
def test_the_next_value_up_or_down_is_the_next_one(data, domain, strict):
    (dimension,) = domain.dimensions("x")
    number = domain.value("x", {"x": coordinate(data.draw, dimension)})
    up, down = domain.up(number, strict=strict), domain.down(number, strict=strict)
    if not strict:
        assert (up, down) == (number, number)
    for found, beyond in ((up, 1), (down, -1)):
        if found is not None:
            assert domain.fits(found)
            assert (found - number) * beyond >= 0
            assert (found != number) == strict
        else:
            assert strict
    if up is not None and not (isinstance(domain, Range) and domain.grid is None):
        between = [v for v in values_of(domain) if number < v < up]
        assert between == []


def values_of(domain):
    if isinstance(domain, Ordered):
        return domain.options
    count = round((domain.high - domain.low) / domain.grid)
    return [domain.nearest(domain.low + i * domain.grid) for i in range(count + 1)]


@pytest.mark.parametrize(
    ("domain", "value", "what"),
    [
        (Range(low=0.0, high=1.0), 1.5, "1.5 is not from 0 to 1"),
        (Range(low=0.0, high=1.0), math.nan, "nan is not a number"),
        (Range(low=0.0, high=1.0), math.inf, "inf is not from 0 to 1"),
        (Range(low=0.0, high=1.0), True, "True is not a number"),
        (Range(low=0.0, high=1.0), "0.5", "'0.5' is not a number"),
        (Range(low=1, high=4, integer=True), 2.5, "2.5 is not an integer; 3 is"),
        (Range(low=0, high=1, step=0.25), 0.3, "0.3 is not 0 and whole steps of 0.25; 0.25 is"),
        (powers(2, 1, 64), 48, "48 is not one of 1, 2, 4, 8, 16, 32, 64"),
        (multiples(8, 60, 130), 60, "60 is not from 64 to 128"),
        (multiples(8, 60, 130), 68, "whole steps of 8"),
        (Choices(options=("adam", "sgd")), "Adam", "'Adam' is not one of \"adam\", \"sgd\""),
        (Choices(options=(0, 1)), True, "True is not one of 0, 1"),
        (Choices(options=(False, True)), 1, "1 is not one of false, true"),
        (Vector(items=(Range(low=0.0, high=1.0),) * 2), [0.5], "is not a list of 2"),
        (Vector(items=(Range(low=1, high=9, integer=True),) * 2, rising=True), [4, 2], "not in rising order"),
        (Subset(options=("q", "k")), [], "is empty"),
        (Subset(options=("q", "k")), ["v"], "'v' is not one of"),
        (Subset(options=("q", "k")), "q", "is not a list"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused_with_the_reason(domain, value, what):
    with pytest.raises(ValueError, match="x: ") as caught:
        Space([Parameter(name="x", domain=domain)]).point({"x": value})
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"low": 2.0, "high": 1.0}, "no value lies between 2 and 1"),
        ({"low": 0.0, "high": math.inf}, "finite"),
        ({"low": math.nan, "high": 1.0}, "finite"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
        ({"low": -1.0, "high": 1.0, "log": True}, "above 0"),
        ({"low": 1.0, "high": 9.0, "log": True, "step": 2.0}, "no step"),
        ({"low": 0, "high": 1, "step": 0.0}, "a step must be above 0"),
        ({"low": 0, "high": 1, "step": -0.5}, "a step must be above 0"),
        ({"low": 0, "high": 1, "step": 0.3}, "the nearest end below it is 0.9"),
        ({"low": 0.5, "high": 4, "integer": True}, "integers as its ends"),
    ],
)
def test_a_range_that_cannot_be_is_refused(fields, what):
    with pytest.raises(ValueError, match=what):
        Range(**fields)


def test_decimal_steps_give_decimal_numbers():
    values = values_of(Range(low=0.0, high=1.0, step=0.1))
    assert values == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_value_typed_near_the_grid_is_put_on_it():
    domain = Range(low=0.0, high=1.0, step=0.1)
    assert domain.coordinates("x", 0.1 + 0.2) == {"x": 0.3}


def test_powers_move_by_exponents_and_multiples_by_their_step():
    assert powers(2, 1, 256).dimensions("r")[0].low == 0
    assert powers(2, 1, 256).dimensions("r")[0].high == 8
    assert powers(10, 5, 5000).options == (10, 100, 1000)
    assert powers(3, 81, 81).options == (81,)
    (axis,) = multiples(8, 60, 130).dimensions("w")
    assert (axis.kind, axis.low, axis.high, axis.step) == ("int", 64, 128, 8)


@pytest.mark.parametrize(
    "call", [lambda: powers(2, 5, 7), lambda: powers(2, -8, 0), lambda: multiples(8, 9, 15)]
)
def test_ranges_without_a_power_or_multiple_are_refused(call):
    with pytest.raises(ValueError, match="there is no"):
        call()


@given(finite, st.floats(1e-3, 1e6))
def test_open_ends_stay_apart_from_the_bound_in_single_precision(low, width):
    import struct

    def single(number):
        return struct.unpack("f", struct.pack("f", number))[0]

    first, last = just_inside(low, low + width, above=True, below=True)
    assert first > low and last < low + width
    assert single(first) > single(low) or first > last
    assert single(last) < single(low + width) or first > last
    assert just_inside(low, low + width, above=False, below=False) == (low, low + width)


def test_weights_are_shares_of_the_axis():
    domain = Weighted(options=("a", "b", "c"), weights=(1.0, 2.0, 5.0))
    values = [domain.value("x", {"x": (i + 0.5) / 8000}) for i in range(8000)]
    assert [values.count(o) for o in ("a", "b", "c")] == [1000, 2000, 5000]
    assert domain.value("x", {"x": 0.0}) == "a"
    assert domain.value("x", {"x": 1.0}) == "c"
    assert domain.middle() == "c"


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, -2.0), (1.0, math.nan), (1.0, math.inf)])
def test_weights_that_mean_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        Weighted(options=("a", "b"), weights=weights)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lr", True), ("train.optim.lr", True), ("base_lr", True), ("lr_backbone", True), ("wd", True),
        ("learning_rate", True), ("weight_decay", True), ("adam_eps", True), ("temperature", True),
        ("lr.schedule", False), ("rate", False), ("dropout", False), ("momentum", False), ("clr", False),
    ],
)  # fmt: skip
def test_names_tell_of_scales(name, told):
    assert is_scale(name) is told


# ---- whole spaces ----

BETAS = Vector(items=(Range(low=0.8, high=0.95), Range(low=0.9, high=0.999)))
SGD = Condition(parameter="opt", values=("sgd",))


def trainer():
    """A space with everything: scales, a condition on a condition, a chain of relations, a subset."""
    return Space(
        [
            Parameter(name="nesterov", domain=Choices(options=(False, True)), when=(SGD,)),
            Parameter(name="opt", domain=Choices(options=("adam", "sgd", "lamb"))),
            Parameter(name="lr", domain=Range(low=1e-5, high=0.1, log=True), default=1e-3),
            Parameter(name="momentum", domain=Range(low=0.0, high=0.9, step=0.1), default=0.3,
                      when=(Condition(parameter="nesterov", values=(True,)),)),
            Parameter(name="top", domain=Range(low=32, high=1333, integer=True), default=600),
            Parameter(name="mid", domain=Range(low=16, high=1024, step=16, integer=True), default=384),
            Parameter(name="floor", domain=Range(low=0.0, high=900.0), default=20.0),
            Parameter(name="cap", domain=Range(low=0.0, high=1000.0), default=30.0, when=(SGD,)),
            Parameter(name="decay", domain=Weighted(options=("cosine", "none"), weights=(3.0, 1.0))),
            Parameter(name="betas", domain=BETAS),
            Parameter(name="modules", domain=Subset(options=("q", "k", "v")), default=["q", "v"]),
        ],
        [
            Relation(upper="top", lower="mid"),
            Relation(upper="mid", lower="floor", kind=">="),
            Relation(upper="cap", lower="floor"),
        ],
    )  # fmt: skip


@given(st.data())
def test_a_repaired_point_is_valid_and_stays(data):
    space = trainer()
    point = any_point(data.draw, space)
    repaired = space.repair(point)
    assert list(repaired) == [d.name for d in space.dimensions]
    assert space.repair(repaired) == repaired
    values = space.assignments(point)
    assert values == space.assignments(repaired)
    assert values["top"] > values["mid"] >= values["floor"]
    assert values["modules"]
    if "cap" in values:
        assert values["cap"] > values["floor"]
    for dimension in space.dimensions:
        if dimension.kind != "choice":
            assert dimension.low <= repaired[dimension.name] <= dimension.high


@given(st.data())
def test_inactive_parameters_are_absent_and_at_their_default(data):
    space = trainer()
    point = any_point(data.draw, space)
    values, repaired = space.assignments(point), space.repair(point)
    assert ("nesterov" in values) == ("cap" in values) == (values["opt"] == "sgd")
    assert ("momentum" in values) == (values.get("nesterov") is True)
    assert set(values) == set(space.active(repaired))
    for name in {p.name for p in space.parameters} - set(values):
        default = space[name].default_coordinates()
        assert {n: repaired[n] for n in default} == default


@given(st.data())
def test_valid_points_are_left_alone(data):
    space = trainer()
    point = dict(space.repair(any_point(data.draw, space)))
    point["decay"] = data.draw(st.floats(0, 1))
    point["floor"] = data.draw(st.floats(0, min(900.0, space["mid"].value(point))))
    if "cap" in space.active(point):
        assume(space["cap"].value(point) > point["floor"])
    assert space.repair(point) == point


@given(st.data())
def test_assignments_lead_back_to_the_same_configuration(data):
    space = trainer()
    values = space.assignments(any_point(data.draw, space))
    assert space.assignments(space.point(values)) == values
    assert json.loads(json.dumps(values)) == values


def test_the_default_is_every_parameters_default():
    assert trainer().assignments(trainer().default()) == {
        "opt": "adam", "lr": 1e-3, "top": 600, "mid": 384, "floor": 20.0, "decay": "cosine",
        "betas": pytest.approx([0.875, 0.9495]), "modules": ["q", "v"],
    }  # fmt: skip


def test_without_a_default_it_is_the_middle_of_the_scale():
    space = Space([
        Parameter(name="lr", domain=Range(low=1e-5, high=1e-1, log=True)),
        Parameter(name="depth", domain=Range(low=1, high=4, integer=True)),
        Parameter(name="none", domain=Choices(options=("a", None))),
    ])  # fmt: skip
    assert space.assignments(space.default()) == {"lr": pytest.approx(1e-3), "depth": 3, "none": None}


def test_parameters_in_the_wrong_order_change_places():
    space = trainer()
    point = {**space.default(), "top": 64, "mid": 320, "floor": 0.0}
    repaired = space.repair(point)
    assert (repaired["top"], repaired["mid"]) == (320, 64)


def test_where_they_cannot_change_places_the_upper_one_is_raised():
    space = trainer()
    repaired = space.repair({**space.default(), "top": 100, "mid": 512})  # 100 is no multiple of 16
    assert (repaired["top"], repaired["mid"]) == (513, 512)


def test_exchange_spreads_points_evenly():
    """Of uniform points in a square, those mended are uniform in the triangle: none pile up at its edge."""
    numbers = Range(low=0, high=99, integer=True)
    space = Space(
        [Parameter(name="a", domain=numbers), Parameter(name="b", domain=numbers)],
        [Relation(upper="a", lower="b")],
    )
    made = [space.repair({"a": a, "b": b}) for a in range(100) for b in range(100) if a != b]
    assert all(made.count({"a": a, "b": b}) == 2 for a, b in ((1, 0), (50, 49), (99, 0), (99, 98)))


def test_given_values_stay_and_the_others_move():
    space = trainer()
    raised = space.assignments(space.point({"mid": 1024}))
    assert (raised["mid"], raised["top"]) == (1024, 1025)
    lowered = space.assignments(space.point({"top": 40}))
    assert (lowered["top"], lowered["mid"], lowered["floor"]) == (40, 32, 20.0)
    assert space.assignments(space.point({"top": 33}, base=space.point({"lr": 0.01})))["lr"] == 0.01


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"top": 32, "mid": 64}, "top: .*top > mid"),
        ({"mid": 16, "floor": 17.0}, "mid: .*mid >= floor"),
        ({"lrr": 0.1}, "lrr: is no parameter of the space; did you mean lr"),
        ({"batch": 4}, "batch: is no parameter of the space; there are: nesterov, opt"),
        ({"lr": 1.0}, "lr: 1 is not from 1e-05 to 0.1"),
    ],
)
def test_assignments_that_cannot_be_name_the_parameter(values, what):
    with pytest.raises(ValueError, match=what):
        trainer().point(values)


def test_values_of_inactive_parameters_do_not_count():
    space = trainer()
    assert space.point({"opt": "adam", "momentum": 0.9}) == space.point({"opt": "adam"})
    assert (
        space.assignments(space.point({"opt": "sgd", "nesterov": True, "momentum": 0.9}))["momentum"] == 0.9
    )


def test_missing_coordinates_are_the_defaults_and_foreign_ones_go():
    space = trainer()
    assert space.repair({"gone": 3.0, "lr": 0.01}) == {**space.default(), "lr": 0.01}
    assert space.repair(
        {"opt": '"vanished"', "lr": math.nan, "modules[q]": "false", "modules[v]": "false"}
    ) == (space.default())


def both(name="a", other="b", **fields):
    number = Range(low=0, high=9, integer=True)
    return [Parameter(name=name, domain=number, **fields), Parameter(name=other, domain=number)]


@pytest.mark.parametrize(
    ("parameters", "relations", "what"),
    [
        (both(other="a"), [], "a: stands twice"),
        ([Parameter(name="a", domain=Vector(items=(Range(low=0.0, high=1.0),))),
          Parameter(name="a[0]", domain=Range(low=0.0, high=1.0))], [], r"a\[0\]: stands twice"),
        (both(default=12), [], "a: 12 is not from 0 to 9"),
        (both(when=(Condition(parameter="c", values=(1,)),)), [], "c: is no parameter"),
        (both(when=(Condition(parameter="b", values=(12,)),)), [], "depends on b: 12 is not from 0 to 9"),
        (both(when=(Condition(parameter="a", values=(1,)),)), [], "circle"),
        (both(), [Relation(upper="a", lower="b"), Relation(upper="b", lower="a")], "circle"),
        (both(), [Relation(upper="a", lower="c")], "c: is no parameter"),
        ([*both(), Parameter(name="c", domain=Choices(options=(1, 2)))],
         [Relation(upper="a", lower="c")], "c: is not a number"),
        ([*both(), Parameter(name="c", domain=Range(low=9, high=20, integer=True))],
         [Relation(upper="a", lower="c")], "a: no value is left where a > c"),
        (both(when=(Condition(parameter="b", values=(1,)),)),
         [Relation(upper="a", lower="b")], "b: stands in the relation"),
        ([*both(when=(Condition(parameter="c", values=(0.5,)),)),
          Parameter(name="c", domain=Range(low=0.0, high=1.0))], [], "no countable values"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused(parameters, relations, what):
    with pytest.raises(ValueError, match=what):
        Space(parameters, relations)


@given(st.data(), st.integers(2, 5))
def test_chains_of_any_numbers_are_mended(data, length):
    """Whatever kinds of numbers stand in a chain, with whatever ranges: refused at once, or always mended."""
    parts = [Parameter(name=f"p{i}", domain=data.draw(numbers)) for i in range(length)]
    links = [
        Relation(upper=f"p{i + 1}", lower=f"p{i}", kind=data.draw(st.sampled_from([">", ">="])))
        for i in range(length - 1)
    ]
    try:
        space = Space(parts, links)
    except ValueError as error:
        assert "no value is left" in str(error)
        return
    repaired = space.repair(any_point(data.draw, space))
    assert all(link.holds(space.assignments(repaired)) for link in links)
    assert space.repair(repaired) == repaired
