"""Straight from safetensors: what converting first gives, and no bytes of others."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import convert
from convert import ConversionError
from convert.to_jaxmoe import check
from jaxmoe.checkpoints import safetensors, shards, weight_files
from jaxmoe.checkpoints.plan import default_tensors
from jaxmoe.checkpoints.shards import read_params
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import abstract_params

ROOT = Path(__file__).resolve().parents[2]

COMMON = """
import re, sys, threading
from pathlib import Path
import jax, numpy as np
port, process, source, *rest = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
from jaxmoe.checkpoints.shards import read_params
from convert.to_jaxmoe import check
from jaxmoe.checkpoints import store
mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
job = check(Path(source))
lock = threading.Lock()
class Count:
    def __init__(self):
        self.bytes = 0
    def __call__(self, nbytes):
        with lock:
            self.bytes += nbytes
def leaves(rule, dtype=None):
    return {
        name: jax.ShapeDtypeStruct(
            fill.shape, np.dtype(dtype or fill.dtype),
            sharding=jax.NamedSharding(mesh, rule(name, len(fill.shape))),
        )
        for name, fill in job.plan.fills.items()
    }
def own_bytes(wanted):
    total = 0
    for name, leaf in wanted.items():
        places = leaf.sharding.addressable_devices_indices_map(leaf.shape).values()
        distinct = {str(place): place for place in places}.values()
        size = job.plan.fills[name].dtype.itemsize
        for place in distinct:
            total += np.empty(leaf.shape, "V0")[place].size * size
    return total
"""

EQUAL = (
    COMMON
    + """
both = ("a", "b")
def experts(name, ndim):
    mine = name.endswith(("gate_up", "down")) and ndim == (4 if "gate" in name else 3)
    return jax.P(both) if mine else jax.P()
def heads(name, ndim):
    if name.endswith("mixer.q.weight"):
        return jax.P("b")
    if name.endswith("mixer.o.weight"):
        return jax.P(None, "b")
    return jax.P("a") if ".mixer.k." in name or ".mixer.v." in name else jax.P()
def vocabulary(name, ndim):
    return jax.P(both) if name.startswith(("embed", "head")) else jax.P()
def inner(name, ndim):
    if name.endswith("gate_up"):
        return jax.P(*[None] * (ndim - 2), "a")
    return jax.P(*[None] * (ndim - 1), "a") if name.endswith("down") else jax.P()
def replicated(name, ndim):
    return jax.P()
total = sum(fill.nbytes for fill in job.plan.fills.values())
for rule in (experts, heads, vocabulary, inner, replicated):
    for dtype in (None, "float32"):
        wanted, count = leaves(rule, dtype), Count()
        found = read_params(job.source, job.plan, wanted, count=count)
        expected = store.restore(rest[0], wanted)
        assert list(found) == list(expected)
        for name, value in found.items():
            assert value.sharding == wanted[name].sharding
            assert value.dtype == wanted[name].dtype
            assert value.shape == wanted[name].shape
            pairs = zip(value.addressable_shards, expected[name].addressable_shards)
            for a, b in pairs:
                assert (a.device, a.index) == (b.device, b.index)
                mine, other = np.asarray(a.data), np.asarray(b.data)
                assert mine.tobytes() == other.tobytes(), name
        assert count.bytes == own_bytes(wanted), rule
        assert count.bytes <= total and (rule is not replicated or count.bytes == total)
if process == "0":
    wanted, count = leaves(experts), Count()
    read_params(job.source, job.plan, wanted, count=count)
    stacks = sum(f.nbytes for n, f in job.plan.fills.items()
                 if wanted[n].sharding.spec == jax.P(both))
    assert stacks and count.bytes == total - stacks // 2
"""
)

MEMORY = (
    COMMON
    + """
def peak(what):
    text = Path("/proc/self/status").read_text()
    return int(re.search(what + r":\\s*(\\d+)", text)[1]) * 1024
def rule(name, ndim):
    return jax.P(("a", "b")) if name.startswith(("embed", "head")) else jax.P()
jax.block_until_ready(jax.device_put(np.zeros(8), jax.local_devices()[0]))
wanted = leaves(rule)
load = {"files": lambda: read_params(job.source, job.plan, wanted),
        "checkpoint": lambda: store.restore(rest[0], wanted)}[rest[1]]
before = peak("VmRSS")
found = load()
print(peak("VmHWM") - before, own_bytes(wanted), job.source.nbytes)
"""
)


def two_processes(code: str, *args) -> list[str]:
    """Runs code in two processes of four devices each; what each printed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(port), str(i), *map(str, args)],
            env=env,
            **pipes,
        )
        for i in range(2)
    ]
    outputs = []
    for process in running:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err[-3000:]
        outputs.append(out)
    return outputs


@pytest.mark.slow
def test_equal_to_converting_first(make, tmp_path):
    """A shard would hold other values than the converted checkpoint's, or a process
    would read what is not its own."""
    source = make(lambda tensors: make.fuse(tensors, 2), shards=2)
    convert.convert(source, tmp_path / "ckpt")
    two_processes(EQUAL, source, tmp_path / "ckpt")


def write_large(directory: Path, make) -> None:
    """A checkpoint of zeros whose embedding and head are most of 660 MB."""
    config = make.config | {"vocab_size": 160_000, "hidden_size": 1024}
    params = abstract_params(from_hf(config), jnp.bfloat16)
    tensors = default_tensors(FAMILIES["qwen3_moe"], params)
    rows = [(name, safetensors.TAGS[kind.name], shape) for name, kind, shape in tensors]
    header = safetensors.make_header(weight_files.SINGLE, rows, {})
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    with (directory / weight_files.SINGLE).open("wb") as file:
        text = header.text.encode()
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(header.nbytes)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("way", ["files", "checkpoint"])
def test_memory_is_that_of_the_shards(make, tmp_path, way):
    """A process would hold the whole model, or its shards twice, while it loads."""
    write_large(tmp_path / "large", make)
    ckpt = tmp_path / "ckpt"
    if way == "checkpoint":
        convert.convert(tmp_path / "large", ckpt)
    for line in two_processes(MEMORY, tmp_path / "large", ckpt, way):
        grown, own, total = map(int, line.split())
        assert total > 600e6
        assert own < 0.6 * total
        assert own * 0.9 < grown < own + 300e6


@pytest.mark.parametrize("window", [1, 100, 1 << 20])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float16])
def test_one_device(make, wanted, monkeypatch, window, dtype):
    """Windows that end within a tensor would cut it wrongly."""
    monkeypatch.setattr(shards, "WINDOW", window)
    job = check(make(shards=3, dtype=dtype))
    expected = wanted(make.tensors(make.config, dtype), make.config)
    leaves = {n: jax.ShapeDtypeStruct(p.shape, p.dtype) for n, p in expected.items()}
    found = read_params(job.source, job.plan, leaves)
    for name, param in expected.items():
        assert np.asarray(found[name]).tobytes() == param.tobytes(), name


def test_tied_copies(make):
    """A head that differs from the embedding would be dropped silently."""

    def copy(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()

    def differ(tensors):
        copy(tensors)
        tensors["lm_head.weight"][33, 3] += 1

    for change, name in ((copy, "same"), (differ, "other")):
        job = check(make(change, name=name, tie_word_embeddings=True))
        leaves = abstract_params(job.config)
        if change is copy:
            assert len(read_params(job.source, job.plan, leaves)) == len(leaves)
            continue
        with pytest.raises(ConversionError, match=r"lm_head.weight: .* ties it to mod"):
            read_params(job.source, job.plan, leaves)


def test_nonfinite_weights_warn(make):
    """Broken weights would pass without a word."""

    def spoil(tensors):
        tensors["model.norm.weight"][3] = np.nan

    job = check(make(spoil))
    with pytest.warns(UserWarning, match="final_norm.scale holds NaN or infinite"):
        read_params(job.source, job.plan, abstract_params(job.config))


def test_other_parameters_are_refused(make):
    """A parameter that nobody asked for would be missing without a word."""
    job = check(make())
    leaves = abstract_params(job.config)
    del leaves["final_norm.scale"]
    with pytest.raises(ValueError, match=r"differences in 1, first final_norm.scale"):
        read_params(job.source, job.plan, leaves)


def test_file_that_shrank(make):
    """The process would be killed by a bus error."""
    source = make()
    job = check(source)
    with (source / weight_files.SINGLE).open("r+b") as file:
        file.truncate(job.source.headers[0].nbytes // 3)
    with pytest.raises(OSError, match="shrank while it was read"):
        read_params(job.source, job.plan, abstract_params(job.config))
