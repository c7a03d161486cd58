"""Planning: bytes against real arrays, minima against drawn routes, and its errors."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from jaxmoe.benchmarks import work
from jaxmoe.config import AttentionConfig, MoEConfig
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B, QWEN3_235B_A22B
from jaxmoe.families.registry import FAMILIES, released_config
from jaxmoe.nn.decoder import abstract_params, empty_states
from jaxmoe.nn.mixers import held
from jaxmoe.planning import (
    CHIPS,
    Load,
    best_mesh,
    largest_n,
    minimum,
    plan_for,
    scale,
    shapes_of,
    step_time,
)
from jaxmoe.planning.exchanges import distinct_experts, touched
from jaxmoe.planning.plan import check_load, exchanges_of
from jaxmoe.planning.work import operations, read_bytes
from jaxmoe.router.scores import SoftmaxScores
from jaxmoe.sharding.collectives import DeviceContext
from tests.running import SCRIPTS
from tests.tiny import EXECUTION, tiny_config

pytestmark = pytest.mark.xdist_group("planning")

MESHES = ((8, 1), (1, 8), (2, 4), (4, 2))
PRESETS = ("auto", "data", "tensor", "expert", "data-expert")
LOAD = Load(12, 3000, 200)
SHORT = replace(QWEN3_30B_A3B, layers=QWEN3_30B_A3B.layers[:4])

ON_DEVICES = """
import json
import jax, jax.numpy as jnp
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.execution import execution_on
from jaxmoe.nn.decoder import empty_states, state_specs
from jaxmoe.model import abstract_weights, model_layout
from jaxmoe.nn.decoder import abstract_params
from tests.planning_test import LOAD, MESHES, PRESETS, eight_heads

def held(tree):
    each = dict.fromkeys(jax.devices(), 0)
    for array in jax.tree.leaves(tree):
        for shard in array.addressable_shards:
            each[shard.device] += shard.data.nbytes
    assert len(set(each.values())) == 1, each
    return each.popitem()[1]

config, found = eight_heads(), {}
dtypes = dict.fromkeys(abstract_params(config), jnp.bfloat16)
for shape in MESHES:
    mesh = jax.make_mesh(shape, ("data", "model"))
    for rules in PRESETS:
        layout = model_layout(config, mesh, rules)
        weights = {
            name: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding)
            for name, leaf in abstract_weights(config, dtypes, layout).items()
        }
        run, dtype = execution_on("cpu", layout), jnp.bfloat16
        prefix = PrefixCache.empty(
            config, run, prompts=1, size=256, width=4, dtype=dtype
        )
        suffix = empty_states(
            config, run, rows=layout.slots(LOAD.n), size=4096, dtype=dtype
        )
        place = lambda cache, specs: jax.device_put(cache, layout.shardings(specs))
        caches = [
            held(place(prefix, PrefixCache.specs(config, run))),
            held(place(suffix, state_specs(config, run, "slots"))),
        ]
        found[f"{shape} {rules}"] = [held(weights), *caches]
print(json.dumps(found))
"""


def eight_heads():
    """The tiny model with heads, experts and hidden units for eight devices."""
    config = tiny_config(vocab_size=96)
    dense, moe = (
        replace(layer, mixer=AttentionConfig(8, 2, 16)) for layer in config.layers
    )
    return replace(config, layers=(dense, moe))


@pytest.fixture(scope="module")
def on_devices():
    """Mesh and rules -> bytes of weights, prefix and suffix on each of 8 devices."""
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    run = [sys.executable, "-c", ON_DEVICES]
    out = subprocess.check_output(run, text=True, cwd=SCRIPTS.parent, env=environment)
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("rules", PRESETS)
@pytest.mark.parametrize("shape", MESHES)
def test_bytes_are_those_of_real_shards(on_devices, shape, rules):
    """A plan would promise room that weights or caches then do not have."""
    plan = plan_for(eight_heads(), shape, LOAD, rules)
    weights, prefix, suffix = on_devices[f"{shape} {rules}"]
    assert plan.weights == weights
    assert plan.caches.prefix == prefix
    assert plan.caches.suffix == suffix


@pytest.mark.parametrize("config", [QWEN3_30B_A3B, QWEN3_235B_A22B])
def test_one_device_holds_everything(config):
    """A weight would be missing from the sum, or counted twice."""
    plan = plan_for(config, (1, 1), LOAD)
    values = sum(leaf.size for leaf in abstract_params(config).values())
    assert plan.weights == 2 * values
    assert exchanges_of(plan) == []
    doubled = plan_for(config, (1, 1), replace(LOAD, dtype="float32"))
    assert doubled.weights == 2 * plan.weights


@pytest.mark.parametrize("shape", MESHES)
def test_experts_divided_hold_their_share(shape):
    """Eight devices would hold more than 1.1 times an eighth of the 30b weights."""
    plan = plan_for(QWEN3_30B_A3B, shape, LOAD, "expert")
    whole = plan_for(QWEN3_30B_A3B, (1, 1), LOAD).weights
    assert whole / 8 < plan.weights <= 1.1 * whole / 8


def test_key_value_heads_are_repeated():
    """Four heads over eight devices would be counted as half a head each."""
    layouts = [plan_for(QWEN3_30B_A3B, s, LOAD).layout for s in ((1, 4), (1, 8))]
    four, eight = (held(QWEN3_30B_A3B, l, "bfloat16").position for l in layouts)
    assert four == eight == 48 * 2 * 128 * 2


@pytest.mark.parametrize(
    ("own", "size", "growing"), [(1, 128, 0), (1000, 1024, 0), (1025, 2048, 1024)]
)
def test_caches_double(own, size, growing):
    """The answers' cache would be planned without its buckets, or its growth."""
    plan = plan_for(QWEN3_30B_A3B, (1, 1), Load(3, 200 + own, 200))
    position = held(plan.config, plan.layout, "bfloat16").position
    assert plan.caches.suffix == 3 * size * position
    # Of one layer of 48.
    assert plan.caches.growing == 3 * growing * position // 48
    last = 4 * 151936 + 4 + 48 * (2 * 8 + 4)
    assert plan.caches.prefix == 256 * position + last


@pytest.mark.parametrize("name", FAMILIES)
def test_states_of_every_family_are_planned(name):
    """A sample's latents or recurrent memory would be missing from the plan."""
    for values in FAMILIES[name].test_configs:
        config = from_hf(dict(values))
        plan = plan_for(config, (1, 1), Load(3, 240, 150))
        of = {"size": 256, "dtype": "bfloat16", "width": config.experts_per_token}
        empty = partial(PrefixCache.empty, config, EXECUTION, prompts=1, **of)
        own = {"rows": 3, "size": 128, "dtype": "bfloat16"}
        made = (empty, partial(empty_states, config, EXECUTION, **own))
        prefix, suffix = (
            sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states))
            for states in map(jax.eval_shape, made)
        )
        assert (plan.caches.prefix, plan.caches.suffix) == (prefix, suffix)


def test_recurrent_memory_of_a_sample():
    """64 samples of Qwen3-Next would be planned without their 4.6 GiB."""
    config = from_hf(dict(released_config("next-80b")))
    layout = plan_for(config, (1, 1), LOAD).layout
    found = held(config, layout, "bfloat16")
    # 36 layers: a matrix [32, 128, 128] in float32, 3 inputs of 8192 channels.
    assert found.fixed == 36 * (4 * 32 * 128 * 128 + 2 * 3 * 8192)
    # 12 layers: keys and values of 2 heads of 256.
    assert found.position == 12 * 2 * 2 * 256 * 2


@pytest.mark.parametrize("shape", [(4, 4), (8, 2), (2, 8)])
def test_largest_n_is_the_last_that_fits(shape):
    """The helper would promise samples for which there is no room, or too few."""
    chip, load = CHIPS["v5e"], Load(32, 8192, 1024)
    plan = plan_for(QWEN3_30B_A3B, shape, load)
    most = largest_n(plan, chip)
    assert most > 0 and most % shape[0] == 0
    assert plan_for(QWEN3_30B_A3B, shape, replace(load, n=most)).fits(chip)
    assert not plan_for(QWEN3_30B_A3B, shape, replace(load, n=most + 1)).fits(chip)
    small = plan_for(QWEN3_30B_A3B, (1, 2), load)
    assert largest_n(small, chip) == 0 and not small.fits(chip)


def small_moe(experts: int, chosen: int):
    """The model of two layers with other numbers of experts."""
    config = eight_heads()
    mixture = MoEConfig(experts, chosen, 24, SoftmaxScores(True))
    moe = replace(config.layers[1], feed_forward=mixture)
    return replace(config, layers=(config.layers[0], moe))


def test_touched_counts_every_choice():
    """The chance that a device is needed would not be that of uniform routing."""
    config = small_moe(6, 2)
    pairs = list(itertools.combinations(range(6), 2))
    for own in (1, 2, 4, 5):
        hit = sum(min(pair) < own for pair in pairs)
        assert touched(config, own) == pytest.approx(hit / len(pairs))


def test_distinct_experts():
    """Experts read would be counted by device where all devices read together."""
    for shape, rows in (((8, 1), 16), ((1, 8), 12)):
        layout = plan_for(eight_heads(), shape, LOAD).layout
        expected = 16 / 8 * (1 - (1 - 4 / 16) ** rows)
        slots = layout.slots(LOAD.n)
        found = distinct_experts(eight_heads(), layout, slots)
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("rules", ("auto", "tensor", "expert", "data-expert"))
@pytest.mark.parametrize("shape", MESHES)
def test_minimum_against_drawn_routes(shape, rules):
    """What is called least would be more than routing needs, or far less."""
    config = small_moe(16, 2)
    plan = plan_for(config, shape, LOAD, rules)
    least = minimum(config, plan.layout, slots=plan.slots, dtype="float32")
    part = DeviceContext(plan.layout, plan.layout.rules.slots)
    rows = plan.slots // part.count("slots")
    drawn = rows * 4 * config.d_model * _drawn(config, part)
    assert least["experts"] == pytest.approx(drawn, rel=0.04)


def _drawn(config, part: DeviceContext) -> float:
    """Rows that a device receives for one of its rows, over many drawn routes."""
    whole = part.axes("experts")
    axes = part.axes("experts", "expert_mlp")
    if not axes:
        return 0.0
    sizes = [part.layout.mesh.shape[axis] for axis in axes]
    own = config.num_experts // part.count("experts")
    devices = list(itertools.product(*map(range, sizes)))
    places = {d: _place(d, sizes, len(whole)) for d in devices}
    # A row of the first devices along the axes on which rows are divided.
    apart = [place for place, axis in enumerate(axes) if axis in part.rows]
    holders = {d for d in devices if all(d[place] == 0 for place in apart)}
    random, total, turns = np.random.default_rng(0), 0, 3000
    for _ in range(turns):
        order = random.permutation(config.num_experts)
        groups = {int(e) // own for e in order[: config.experts_per_token]}
        busy = {d for d in devices if places[d] in groups}
        back = len(busy) - bool(busy & holders)
        total += len(busy - holders) + back + len(holders) - 1
    return total / turns / len(holders)


def _place(device, sizes, count) -> int:
    """Which part of the experts a device has: its place along their axes."""
    place = 0
    for index, size in zip(device[:count], sizes[:count], strict=True):
        place = place * size + index
    return place


@pytest.mark.parametrize("rules", PRESETS)
@pytest.mark.parametrize("shape", MESHES)
def test_no_mesh_moves_less_than_the_minimum(shape, rules):
    """The ratio to the minimum would be below one somewhere, and mean nothing."""
    for config in (eight_heads(), SHORT):
        plan = plan_for(config, shape, LOAD, rules)
        least = minimum(config, plan.layout, slots=plan.slots, dtype="bfloat16")
        moved = dict.fromkeys(least, 0.0)
        for one in exchanges_of(plan):
            moved[one.what] += one.moved
        for what, needed in least.items():
            if what != "tokens":  # none are shared where each device draws all
                assert moved[what] >= needed - 1e-6, what


def test_experts_everywhere_move_the_minimum():
    """With all experts chosen all rows must go everywhere; more would be waste."""
    config = small_moe(16, 16)
    plan = plan_for(config, (8, 1), replace(LOAD, n=16))
    least = minimum(config, plan.layout, slots=16, dtype="bfloat16")["experts"]
    moved = sum(one.moved for one in exchanges_of(plan) if one.what == "experts")
    routing = 7 * 2 * 16 * (4 + 2)
    assert moved == pytest.approx(least + routing)


def test_work_of_one_device_is_that_of_the_benchmarks():
    """A step would be planned with other work than the benchmarks hold it to."""
    plan = plan_for(QWEN3_30B_A3B, (1, 1), Load(4, 3000, 200))
    config, layout = plan.config, plan.layout
    floor = work.step(
        config,
        n=4,
        prompt=256,
        own=4095,  # and the one that the step writes
        distinct=distinct_experts(config, layout, 4),
        weight_bytes=2,
        cache_dtype="bfloat16",
    )
    last = 4 * 151936 + 4 + 48 * (2 * 8 + 4)
    read = read_bytes(config, layout, plan.caches, slots=4, dtype="bfloat16")
    assert read == pytest.approx(floor.bytes + last)
    computed = operations(config, layout, slots=4, prompt=200, own=2800)
    assert computed == pytest.approx(floor.operations)


@pytest.mark.parametrize("rules", PRESETS)
@pytest.mark.parametrize("shape", MESHES)
def test_devices_share_the_operations(shape, rules):
    """Work would vanish, or be done twice, on the way from one device to eight."""
    config, load = SHORT, replace(LOAD, n=16)
    size = {"slots": 16, "prompt": load.prompt, "own": load.own}
    one = operations(config, plan_for(config, (1, 1), load).layout, **size)
    layout = plan_for(config, shape, load, rules).layout
    every = 8 * operations(config, layout, **size)
    # Routers and repeated key-value heads are computed more than once.
    assert one <= every <= 1.1 * one


def test_time_follows_the_chip():
    """A faster memory or link would not show in the step, or show twice."""
    plan = plan_for(QWEN3_30B_A3B, (4, 4), LOAD)
    chip = CHIPS["v5e"]
    time = step_time(plan, chip, latency=1e-5)
    fast = replace(chip, bandwidth=2 * chip.bandwidth, link=4 * chip.link)
    faster = step_time(plan, fast, latency=2e-5)
    assert faster.memory == pytest.approx(time.memory / 2)
    assert faster.bytes == pytest.approx(time.bytes / 4)
    assert faster.waits == pytest.approx(2 * time.waits)
    assert time.total == time.memory + time.bytes + time.waits
    count = sum(one.count for one in exchanges_of(plan))
    assert time.waits == pytest.approx(1e-5 * count)


def test_beyond_one_machine_a_network_joins():
    """Sixteen GPUs would exchange as if NVLink joined them."""
    chip = CHIPS["h100"]
    assert chip.link_of(8) == 450e9 and chip.link_of(16) == 50e9
    assert CHIPS["v5e"].link_of(256) == 200e9


def test_slices_are_called_as_they_are_asked_for():
    """A slice would be created with twice the chips, or half."""
    assert CHIPS["v5e"].slice_of(16) == "v5litepod-16"
    assert CHIPS["v5p"].slice_of(4) == "v5p-8"


def test_scaling():
    """A mesh that has no room, or a slower one, would stand in the tables."""
    chip, load = CHIPS["v5e"], Load(32, 8192, 1024)
    points = scale(QWEN3_30B_A3B, chip, lambda _: load, counts=(1, 8, 16, 256))
    assert [point.fits for point in points.values()] == [False, True, True, True]
    for count, point in points.items():
        assert point.plan.devices == count
        for shape in shapes_of(count):
            try:
                other = plan_for(QWEN3_30B_A3B, shape, load)
            except ValueError:
                continue
            if other.fits(chip) or not point.fits:
                assert point.time.total <= step_time(other, chip).total
        assert point.rate == 32 / point.time.total
    assert best_mesh(QWEN3_30B_A3B, chip, 7, load, rules="expert") is None


def test_what_planning_refuses():
    """A slip would be planned for, or end in a sentence that does not help."""
    with pytest.raises(ValueError, match="40960 positions, found a context of 50000"):
        check_load(QWEN3_30B_A3B, Load(1, 50000))
    with pytest.raises(ValueError, match="more than the prompt's 1024 positions"):
        Load(1, 1024)
    with pytest.raises(ValueError, match="found n 0"):
        Load(0, 2048)
    with pytest.raises(ValueError, match="32 query heads over 6 devices"):
        plan_for(QWEN3_30B_A3B, (1, 6), LOAD)
