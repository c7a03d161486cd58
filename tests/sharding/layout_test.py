"""Rules and layouts, without devices; what runs on them is in tests/mesh/."""

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from jaxmoe import QWEN3_30B_A3B
from jaxmoe.nn.decoder import axis_sizes, logical_axes
from jaxmoe.sharding.layout import Layout, layout_for
from jaxmoe.sharding.rules import Rules, check_rules, rules_for

SIZES = axis_sizes(QWEN3_30B_A3B)
PRESETS = ("auto", "data", "tensor", "expert", "data-expert")


def shape_of(data: int, model: int) -> dict[str, int]:
    """A mesh shape with both axes."""
    return {"data": data, "model": model}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (8, 1), (1, 8), (2, 4), (4, 2)], ids=str)
def test_presets_fit_the_released_model(preset, shape):
    """A preset would refuse, or name axes of size 1 on, a mesh people have."""
    rules = rules_for(preset, shape_of(*shape), SIZES)
    check_rules(rules, shape_of(*shape), SIZES)
    assert all(shape_of(*shape)[axis] > 1 for axis in rules.mesh_axes)
    if shape == (1, 1):
        assert rules == Rules()


def test_presets_divide_what_they_say():
    """A preset would put samples, heads or experts on other axes than documented."""
    both, shape = ("data", "model"), shape_of(2, 2)
    assert rules_for("data", shape, SIZES) == Rules(slots=both)
    tensor = rules_for("tensor", shape, SIZES)
    assert tensor.slots == ("data",)
    assert tensor.heads == tensor.kv_heads == tensor.vocab == ("model",)
    assert (tensor.experts, tensor.expert_mlp) == ((), ("model",))
    expert = rules_for("expert", shape, SIZES)
    assert expert.slots == ()
    assert expert.heads == expert.vocab == expert.experts == both
    mixed = rules_for("data-expert", shape, SIZES)
    assert (mixed.slots, mixed.heads, mixed.experts) == (("data",), ("model",), both)
    assert rules_for("auto", shape, SIZES) == mixed


def test_experts_that_do_not_divide_are_cut_inside():
    """128 experts over 2 x 3 devices would have no layout, or one that drops some."""
    rules = rules_for("auto", shape_of(2, 3), SIZES | {"heads": (30,)})
    assert (rules.experts, rules.expert_mlp) == (("data",), ("model",))


def test_few_key_value_heads_are_repeated():
    """4 key-value heads over 8 devices would be refused, or fall out of step with the
    query heads that share them."""
    rules = rules_for("expert", shape_of(1, 8), SIZES)
    assert rules.heads == ("model",) and rules.kv_heads == ()
    check_rules(rules, shape_of(1, 8), SIZES)
    layout = Layout(AbstractMesh((1, 8), ("data", "model")), rules)
    assert layout.cached_heads(4) == 8
    assert layout.spec("kv_heads", "head_dim", "embed") == PartitionSpec(
        None, None, None
    )


def test_a_vocabulary_that_does_not_divide_is_repeated():
    """151936 tokens over 6 devices would be refused though they can be repeated."""
    rules = rules_for("tensor", shape_of(1, 6), SIZES | {"heads": (6,)})
    assert rules.vocab == ()


@pytest.mark.parametrize(
    ("preset", "shape", "sizes", "words"),
    [
        ("expert", (2, 3), {"heads": (30,)}, ["128 experts over 6", "4 or 8"]),
        ("expert", (1, 64), {}, ["32 query heads over 64", "nearest: 32"]),
        ("tensor", (1, 8), {"expert_mlp": (100,)}, ["100 hidden units", "5 or 10"]),
        (
            "tensor",
            (1, 6),
            {"heads": (30,), "kv_heads": (4,), "expert_mlp": (768,)},
            ["4 key-value heads over 6", "4 or 8"],
        ),
    ],
)
def test_what_does_not_divide_is_named(preset, shape, sizes, words):
    """A user would see a shape error from deep inside, and no way out."""
    sizes = SIZES | sizes
    with pytest.raises(ValueError) as caught:
        shape = shape_of(*shape)
        check_rules(rules_for(preset, shape, sizes), shape, sizes)
    for word in words:
        assert word in str(caught.value)


def test_other_axis_names_need_rules_of_their_own():
    """A mesh with other names would be taken as if nothing was to divide."""
    mesh = jax.make_mesh((1,), ("rows",), (jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match=r"named data and model.*rows"):
        layout_for(mesh, "auto", SIZES)
    layout = layout_for(mesh, Rules(slots=("rows",)), SIZES)
    assert layout.spec("slots") == PartitionSpec(("rows",))
    with pytest.raises(ValueError, match=r"name the mesh axes cols.*has rows"):
        layout_for(mesh, Rules(slots=("cols",)), SIZES)


def test_rules_that_contradict_themselves_are_refused():
    """One mesh axis would divide rows and what they are multiplied by."""
    with pytest.raises(ValueError, match="slots and heads"):
        Rules(slots=("data",), heads=("data",), kv_heads=("data",))
    with pytest.raises(ValueError, match="experts and expert_mlp"):
        Rules(experts=("data",), expert_mlp=("data",))
    with pytest.raises(ValueError, match="kv_heads"):
        Rules(heads=("data",), kv_heads=("model",))


def test_unknown_presets_are_refused(untyped):
    """A typing error would mean some other layout."""
    with pytest.raises(ValueError, match="auto, data, tensor"):
        rules_for("experts", shape_of(1, 2), SIZES)  # type: ignore[arg-type]


def test_the_mesh_takes_explicit_axes():
    """`jax.make_mesh` makes Explicit axes by default; programs here are written for
    none but their own shards."""
    mesh = jax.make_mesh((1, 1), ("data", "model"))
    layout = layout_for(mesh, "auto", SIZES)
    assert set(layout.mesh.axis_types) == {jax.sharding.AxisType.Auto}
    assert hash(layout) == hash(layout_for(mesh, "auto", SIZES))


def test_slots_are_shared_equally():
    """A device would have a slot more than its neighbour, which no array has."""
    rules = Rules(slots=("data",))
    layout = Layout(AbstractMesh((3, 2), ("data", "model")), rules)
    assert [layout.slots(n) for n in (1, 3, 4, 64)] == [3, 3, 6, 66]


def test_heads_may_lie_on_an_axis_of_one_device():
    """Own rules that work on 4 x 2 devices would fail deep inside on 8 x 1."""
    rules = Rules(slots=("data",), heads=("model",), vocab=("model",))
    layout = Layout(AbstractMesh((8, 1), ("data", "model")), rules)
    assert layout.cached_heads(4) == 4


def test_forgotten_key_value_heads_are_named():
    """The remedy would be another mesh, where one more rule is enough."""
    with pytest.raises(ValueError, match="pass kv_heads=heads"):
        check_rules(Rules(heads=("model",)), shape_of(1, 2), SIZES)


def test_routers_are_whole_everywhere():
    """Devices would each choose among their own experts only."""
    for name, axes in logical_axes(QWEN3_30B_A3B).items():
        if ".router." in name:
            assert axes == ("router", "embed")
            assert Rules().of("router") == ()
