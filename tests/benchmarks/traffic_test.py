"""Collectives counted from HLO: by hand, and against what is planned."""

from dataclasses import replace

import pytest

from jaxmoe.benchmarks.scaling import count_plans
from jaxmoe.benchmarks.traffic import Collective, count_traffic, expected
from jaxmoe.benchmarks.virtual import Step, compile_steps
from jaxmoe.planning import Load, plan_for
from jaxmoe.planning.plan import exchanges_of
from tests.planning_test import PRESETS, eight_heads
from tests.tiny import every_part

LOAD = Load(12, 512, 100, "float32")

BY_HAND = """HloModule by_hand, is_scheduled=true, entry_computation_layout={()->f32[]}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%wrapped (p: bf16[8,6]) -> bf16[8,6] {
  %p = bf16[8,6]{1,0} parameter(0)
  ROOT %turned = bf16[8,6]{1,0} all-to-all(%p), replica_groups=[2,4]<=[8]
}

%inner (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %copied = f32[8]{0} copy(%x)
}

%body (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %every = f32[8,16]{1,0} all-gather(%x), replica_groups={{0,1,2,3},{4,5,6,7}}
  %begun = (f32[2,3]{1,0}, f32[16,3]{1,0}) all-gather-start(%x), replica_groups=[1,8]<=[8]
  %ended = f32[16,3]{1,0} all-gather-done(%begun)
  %parts = (s32[1,5]{1,0}, s32[1,5]{1,0}) all-to-all(%x, %x), replica_groups={{0,1},{2,3}}
  %apart = bf16[8,6]{1,0} async-start(%x), calls=%wrapped
  %passed = (f32[5], f32[5], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %less = f16[7]{0} reduce-scatter(%x), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %alone = f32[9]{0} all-gather(%x), replica_groups={{0},{1}}
  ROOT %looped = f32[8]{0} while(%x), condition=%inner, body=%inner
}

ENTRY %main (x: f32[8]) -> f32[] {
  %x = f32[8]{0} parameter(0)
  %whole = pred[12]{0} all-reduce(%x), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %loop = f32[8]{0} while(%x), condition=%inner, body=%body
}
"""  # noqa: E501


def test_forms_of_collectives():
    """A form that XLA writes would be counted as nothing, or with other bytes."""
    found = count_traffic(BY_HAND)
    assert found.call == (Collective("all-reduce", 4, 2 * 12 * 3 / 4, 1),)
    assert found.step == (
        Collective("all-gather", 4, 8 * 16 * 4 * 3 / 4, 1),
        Collective("all-gather", 8, 16 * 3 * 4 * 7 / 8, 1),
        Collective("all-to-all", 2, 2 * 5 * 4 / 2, 1),
        Collective("all-to-all", 4, 8 * 6 * 2 * 3 / 4, 1),
        Collective("collective-permute", 2, 5 * 4, 1),
        Collective("reduce-scatter", 2, 7 * 2, 1),
    )


def test_what_is_not_understood():
    """Collectives would be left out without a word."""
    with pytest.raises(ValueError, match="expected the text of a compiled program"):
        count_traffic("module @jit_f {}")
    nested = BY_HAND.replace("copy(%x)", "all-gather(%x), replica_groups=[1,8]<=[8]")
    with pytest.raises(ValueError, match="found some in a loop within"):
        count_traffic(nested)
    with pytest.raises(ValueError, match="expected replica_groups"):
        count_traffic(BY_HAND.replace("replica_groups=[1,8]<=[8]", "flags={}"))


def check(cases, config, load=LOAD):
    """Compile the step on each mesh and compare it with its plan."""
    steps = [Step(config, shape, load, rules) for shape, rules in cases]
    for step, found in zip(steps, compile_steps(steps), strict=True):
        plan = plan_for(config, step.shape, load, step.rules)
        assert found.traffic.step == expected(exchanges_of(plan)), step
        # What comes with the slots and goes unread: bytes that no plan counts.
        rest = found.arguments - plan.weights - plan.caches.total
        unread = 4 * config.vocab_size + 2 * config.num_layers * 4
        assert -unread <= rest <= 40 * plan.slots, step


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "presets"),
    [
        ((8, 1), ("auto",)),
        ((1, 8), ("expert",)),
        ((2, 4), PRESETS),
        ((4, 2), ("auto",)),
    ],
)
def test_the_step_does_what_is_planned(shape, presets):
    """The sizing helper would speak of other collectives than the program has."""
    check([(shape, rules) for rules in presets], eight_heads())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shared_experts_and_float32_weights_are_planned(dtype):
    """What a shared expert sends, or the wider weights, would be left out."""
    cases = [((2, 4), "auto"), ((2, 4), "tensor")]
    check(cases, every_part(eight_heads()), replace(LOAD, dtype=dtype))


@pytest.mark.slow
def test_norms_over_projections_are_planned():
    """What devices tell each other of squares would be left out."""
    config = eight_heads()
    layers = tuple(
        replace(layer, mixer=replace(layer.mixer, qk_norm="projection"))
        for layer in config.layers
    )
    check([((2, 4), "auto")], replace(config, layers=layers))


@pytest.mark.slow
def test_layers_extend_along_a_line():
    """The tables for real models would rest on a wrong extrapolation."""
    config = eight_heads()
    config = replace(config, layers=(config.layers[1],) * 4)
    plan = plan_for(config, (2, 4), replace(LOAD, dtype="bfloat16"))
    (counted,) = count_plans([plan])
    assert counted.collectives == expected(exchanges_of(plan))
    assert counted.moved == sum(one.moved for one in exchanges_of(plan))
    step = Step(config, (2, 4), replace(LOAD, dtype="float16"))
    (whole,) = compile_steps([step])
    assert counted.collectives == whole.traffic.step
    assert counted.arguments == whole.arguments


def test_layers_that_differ():
    """A model with a dense layer would be extrapolated from that one."""
    plan = plan_for(eight_heads(), (2, 4), LOAD)
    with pytest.raises(ValueError, match="whose layers are all alike, found 2 kinds"):
        count_plans([plan])
