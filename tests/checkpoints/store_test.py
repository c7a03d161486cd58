"""Checkpoints: what is saved is restored, onto any devices, or refused with reasons."""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.checkpoints import chunks, manifest, store
from jaxmoe.checkpoints.checksums import Blocks
from jaxmoe.checkpoints.chunks import chunk_name

ROOT = Path(__file__).resolve().parents[2]
FILES = {"config.json": "{}"}


def make_params() -> dict[str, np.ndarray]:
    """Parameters of several types and ranks."""
    rng = np.random.default_rng(0)
    return {
        "layers.0.w": rng.normal(size=(8, 6, 5)).astype(jnp.bfloat16),
        "scale": rng.normal(size=(7,)).astype(np.float32),
        "half": rng.normal(size=(3, 4)).astype(np.float16),
        "single": np.asarray(2.5, np.float32),
        "zero": np.zeros((4, 4), np.float32),
    }


def abstract(params, **changes):
    """What to ask for: `params` as they are, but for `changes`."""
    found = {n: jax.ShapeDtypeStruct(p.shape, p.dtype) for n, p in params.items()}
    return found | changes


@pytest.fixture
def saved(tmp_path):
    """Path and parameters of a checkpoint."""
    params = make_params()
    store.save(tmp_path / "ckpt", params, family="f", files=FILES)
    return tmp_path / "ckpt", params


def test_chunks_tile_the_array():
    """A part of an array would be left out, or written twice."""
    for shape in [(), (1,), (33,), (5, 7), (33, 4, 6), (2, 3, 5, 7), (4, 0)]:
        values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        for limit in (8, 64, 100, 1 << 20):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(chunks, "CHUNK_BYTES", limit)
                sizes = store.chunk_shape(shape, 8)
                parts = list(store.chunks(shape, 8))
            assert 0 in shape or np.prod(sizes) * 8 <= limit
            flat = [values[c.index].reshape(-1) for c in parts]
            assert [(f.size, c.shape) for f, c in zip(flat, parts, strict=True)] == [
                (c.stop - c.start, values[c.index].shape) for c in parts
            ]
            joined = np.concatenate(flat) if flat else np.zeros(0)
            assert (joined == np.arange(values.size)).all()


@pytest.mark.parametrize("limit", [8, 64, 1 << 20])
def test_round_trip(tmp_path, monkeypatch, limit):
    """A restored parameter would differ in a bit."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", limit)
    params = make_params()
    device = {name: jnp.asarray(param) for name, param in params.items()}
    store.save(tmp_path / "ckpt", device, family="f", files=FILES)
    restored = store.restore(tmp_path / "ckpt", abstract(params))
    assert list(restored) == list(params)
    for name, param in params.items():
        assert isinstance(restored[name], jax.Array)
        assert restored[name].dtype == param.dtype
        assert np.asarray(restored[name]).tobytes() == param.tobytes(), name


def test_casts(saved):
    """Another float type would be refused, or rounded otherwise than JAX rounds."""
    path, params = saved
    wanted = {n: jax.ShapeDtypeStruct(p.shape, jnp.bfloat16) for n, p in params.items()}
    for name, param in store.restore(path, wanted).items():
        assert (param == jnp.asarray(params[name]).astype(jnp.bfloat16)).all(), name


def test_orbax_restores_it(saved):
    """`params/` would not be an ordinary Orbax checkpoint."""
    import orbax.checkpoint as ocp

    path, params = saved
    restored = ocp.StandardCheckpointer().restore(path / "params", abstract(params))
    for name, param in params.items():
        assert np.asarray(restored[name]).tobytes() == param.tobytes(), name


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jaxmoe.checkpoints import store
mesh = jax.make_mesh((2, 2), ("a", "b"))
read, reads = store.read_values, []
def count(array, name):
    reads.append((name, tuple(array.shape)))
    return read(array, name)
store.read_values = count
specs = store.read_manifest(sys.argv[1]).params
for axes, shape in [((), (8, 6, 5)), (("a",), (4, 6, 5)), (("a", "b"), (4, 3, 5))]:
    sharding = jax.NamedSharding(mesh, jax.P(*axes))
    wanted = {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in specs.items()}
    cast = jax.ShapeDtypeStruct((8, 6, 5), jnp.float32, sharding=sharding)
    wanted["layers.0.w"] = cast
    reads.clear()
    got = store.restore(sys.argv[1], wanted)["layers.0.w"]
    mine = [s for n, s in reads if n == "layers.0.w"]
    assert got.sharding == sharding and got.dtype == jnp.float32
    assert mine == [shape] * (240 // np.prod(shape)), (axes, mine)
    whole = np.load(sys.argv[2])
    for shard in got.addressable_shards:
        assert (np.asarray(shard.data) == whole[shard.index]).all()
"""


def test_shards_are_read_once_each(saved, tmp_path):
    """A device would read more than its shard, or hold another's."""
    path, params = saved
    np.save(tmp_path / "w.npy", params["layers.0.w"].astype(np.float32))
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", SHARDED, str(path), str(tmp_path / "w.npy")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("staging", "most"), [(1, 96), (100, 96), (200, 192)])
def test_bytes_in_hand(tmp_path, monkeypatch, staging, most):
    """Threads would hold more than they may together, or wait for ever for room."""
    params = {f"w{i}": np.full((4, 6), i, np.float32) for i in range(8)}
    params["small"] = np.ones(3, np.float32)
    store.save(tmp_path / "ckpt", params, family="f", files=FILES)
    read, lock, held = store.read_values, threading.Lock(), [0]
    highest = [0]

    def note(array, name):
        nbytes = params[name].nbytes
        with lock:
            held[0] += nbytes
            highest[0] = max(highest[0], held[0])
        time.sleep(0.02)
        values = read(array, name)
        with lock:
            held[0] -= nbytes
        return values

    monkeypatch.setattr(store, "read_values", note)
    path, wanted = tmp_path / "ckpt", abstract(params)
    found = store.restore(path, wanted, jobs=6, staging=staging)
    for name, param in params.items():
        assert (np.asarray(found[name]) == param).all()
    assert most <= highest[0] <= max(staging, 96)


def test_no_copy_on_cpu(saved, monkeypatch):
    """A shard would be in memory twice while it is handed to its device."""
    path, params = saved
    read, places = store.read_values, {}

    def note(array, name):
        values = read(array, name)
        places[name] = values.ctypes.data
        return values

    monkeypatch.setattr(store, "read_values", note)
    found = store.restore(path, abstract(params))
    for name, value in found.items():
        if value.ndim:
            assert value.unsafe_buffer_pointer() == places[name], name


@pytest.mark.parametrize("limit", [8, 64, 1 << 20])
def test_casts_chunk_by_chunk(tmp_path, monkeypatch, limit):
    """A chunk would be cast into the place of another."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", limit)
    params = make_params()
    store.save(tmp_path / "ckpt", params, family="f", files=FILES)
    wanted = {n: jax.ShapeDtypeStruct(p.shape, jnp.float32) for n, p in params.items()}
    for name, value in store.restore(tmp_path / "ckpt", wanted).items():
        assert (np.asarray(value) == params[name].astype(np.float32)).all(), name


def test_all_differences_at_once(saved):
    """One would learn of one difference at a time."""
    path, params = saved
    wanted = abstract(
        params,
        scale=jax.ShapeDtypeStruct((8,), jnp.float32),
        half=jax.ShapeDtypeStruct((3, 4), jnp.int32),
        other=jax.ShapeDtypeStruct((1,), jnp.float32),
    )
    del wanted["single"]
    with pytest.raises(ValueError, match="does not hold") as caught:
        store.restore(path, wanted)
    for line in (
        "scale: expected shape (8,), stored (7,)",
        "half: expected int32, stored float16",
        "other: not in the checkpoint",
        "single: in the checkpoint only",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize("damage", ["remove", "truncate", "array"])
def test_damaged_array(saved, damage):
    """Missing bytes would be read as zeros."""
    path, params = saved
    file = path / "params" / "layers.0.w" / "0.0.0"
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(file.read_bytes()[:100])
    else:
        (file.parent / ".zarray").unlink()
    with pytest.raises(ValueError, match=r"layers.0.w .*convert the source again"):
        store.restore(path, abstract(params))


def _write(change):
    def damage(file):
        value = json.loads(file.read_text())
        change(value)
        file.write_text(json.dumps(value))

    return damage


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (_write(lambda m: m.update(format=3)), "format 3, this version reads format 2"),
        (_write(lambda m: m["params"]["scale"].update(shape=[8])), "was altered"),
        (_write(lambda m: m["files"].clear()), "was altered"),
        (_write(lambda m: m["params"]["scale"].update(sums="0" * 8)), "was altered"),
        (_write(lambda m: m.update(format=1)), "was altered"),
        (_write(lambda m: m.pop("seal")), "lacks a field"),
        (_write(lambda m: m.pop("params")), "lacks a field"),
        (_write(lambda m: m.pop("format")), "lacks a field"),
        (lambda file: file.write_text("[]"), "found list"),
        (lambda file: file.write_text("{"), "not readable as JSON"),
        (lambda file: file.write_bytes(b"\xff\xff"), "not readable as JSON"),
    ],
)
def test_damaged_manifest(saved, damage, match):
    """A damaged manifest would end in a traceback, or be believed."""
    path, _ = saved
    damage(path / store.MANIFEST)
    with pytest.raises(ValueError, match=match):
        store.read_manifest(path)


def test_no_checkpoint(tmp_path):
    """A wrong path would end in a traceback."""
    with pytest.raises(FileNotFoundError, match="python -m convert"):
        store.restore(tmp_path, {})


def test_save_does_not_replace(saved):
    """A checkpoint would be overwritten."""
    path, params = saved
    with pytest.raises(FileExistsError, match="exists"):
        store.save(path, params, family="f", files=FILES)


def test_digest(saved, tmp_path):
    """Equal content would have another digest, or other content the same."""
    path, params = saved
    store.save(tmp_path / "same", params, family="f", files=FILES)
    params["scale"][3] += 1
    store.save(tmp_path / "other", params, family="f", files=FILES)
    digests = [store.read_manifest(tmp_path / n).digest for n in ("same", "other")]
    assert store.read_manifest(path).digest == digests[0] != digests[1]


# -- what is stored is what is loaded ----------------------------------------------


def _flip(file: Path, byte: int, bit: int):
    raw = bytearray(file.read_bytes())
    raw[byte] ^= 1 << bit
    file.write_bytes(raw)


@pytest.mark.parametrize("limit", [64, 1 << 20])
def test_every_flipped_bit_is_found(tmp_path, monkeypatch, limit):
    """Damaged weights would be loaded without a word."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", limit)
    monkeypatch.setattr(store, "BLOCK_BYTES", 48)
    params = make_params()
    path = tmp_path / "ckpt"
    store.save(path, params, family="f", files=FILES)
    files = [p for p in path.glob("params/*/[0-9]*") if p.stat().st_size]
    rng = np.random.default_rng(0)
    for file in files:
        # What follows the last element of a cut array is never read.
        whole = params[file.parent.name].nbytes if len(files) == len(params) else 1
        byte = int(rng.integers(min(whole, file.stat().st_size)))
        _flip(file, byte, 3)
        with pytest.raises(ValueError, match=f"{file.parent.name} is damaged"):
            store.restore(path, abstract(params))
        unchecked = store.restore(path, abstract(params), verify=False)
        name = file.parent.name
        assert np.asarray(unchecked[name]).tobytes() != params[name].tobytes()
        _flip(file, byte, 3)
    found = store.restore(path, abstract(params))
    for name, value in found.items():
        assert np.asarray(value).tobytes() == params[name].tobytes()


@pytest.mark.parametrize("block", [8, 24, 56, 1 << 20])
@pytest.mark.parametrize("limit", [64, 200, 1 << 20])
def test_a_part_has_its_own_blocks_checked(tmp_path, monkeypatch, limit, block):
    """A device would miss damage of its shard, or read the shards of others."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", limit)
    monkeypatch.setattr(store, "BLOCK_BYTES", block)
    values = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6)
    store.save(tmp_path / "ckpt", {"w": values}, family="f", files=FILES)
    manifest = store.read_manifest(tmp_path / "ckpt")
    spec, folder = manifest.params["w"], tmp_path / "ckpt" / "params" / "w"
    rng = np.random.default_rng(0)
    for chunk in store.chunks(values.shape, 4, spec.chunk):
        file = folder / chunk_name(chunk, spec.chunk)
        at = tuple(int(rng.integers(s.start, s.stop)) for s in chunk.index)
        inner = [i - s.start for i, s in zip(at, chunk.index, strict=True)]
        byte = int(np.ravel_multi_index(inner, chunk.shape)) * 4
        _flip(file, byte, 0)
        hits = 0
        for axis, size in enumerate(values.shape):
            for i in range(size):
                index = [slice(0, n) for n in values.shape]
                index[axis] = slice(i, i + 1)
                blocks = Blocks("w", spec, manifest.block)
                if at[axis] == i:
                    with pytest.raises(ValueError, match="w is damaged"):
                        blocks.check_files(folder, tuple(index))
                else:
                    try:
                        blocks.check_files(folder, tuple(index))
                    except ValueError:
                        hits += 1
        # With blocks of two elements most other parts never see the damage.
        assert hits <= {8: 3, 24: 5}.get(block, 10)
        _flip(file, byte, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "<f2"},
        {"dtype": "<i2"},
        {"dtype": ">u2"},
        {"order": "F"},
        {"chunks": [4, 6, 5]},
        {"shape": [4, 12, 5]},
        {"compressor": {"id": "zlib", "level": 1}},
        {"dimension_separator": "/"},
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_arrays_are_stored_as_the_manifest_says(saved, change, verify):
    """The bytes of a parameter would be taken for another type or order."""
    path, params = saved
    file = path / "params" / "layers.0.w" / ".zarray"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=r"layers\.0\.w .*convert the source again"):
        store.restore(path, abstract(params), verify=verify)


def _as_format_1(path: Path):
    """Rewrites a manifest as earlier versions wrote it."""
    value = json.loads((path / store.MANIFEST).read_text())
    for key in ("seal", "files", "block"):
        del value[key]
    for param in value["params"].values():
        del param["chunk"], param["sums"]
    (path / store.MANIFEST).write_text(json.dumps(value | {"format": 1}))


def test_older_checkpoints_are_checked_whole(saved):
    """An earlier version's checkpoint would be refused, or loaded unchecked."""
    path, params = saved
    digest = store.read_manifest(path).digest
    _as_format_1(path)
    assert store.read_manifest(path).digest == digest
    for name, value in store.restore(path, abstract(params)).items():
        assert np.asarray(value).tobytes() == params[name].tobytes()
    _flip(next((path / "params" / "scale").glob("[0-9]*")), 9, 1)
    with pytest.raises(ValueError, match="scale is damaged"):
        store.restore(path, abstract(params))


@pytest.mark.parametrize("name", ["back\\slash", "..\\x", "\udcff"])
def test_paths_that_tensorstore_does_not_take(saved, name):
    """A checkpoint that was moved would no longer be found."""
    path, params = saved
    moved = path.rename(path.with_name(name))
    for key, value in store.restore(moved, abstract(params)).items():
        assert np.asarray(value).tobytes() == params[key].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        *({"block": block} for block in (0, -1, 10**18, "1", 1.0, True)),
        *({"files": files} for files in (None, ["a"], {"config.json": 3})),
        *({"source": source} for source in (None, [], "x")),
    ],
)
def test_manifests_of_another_writer(saved, change):
    """One that is sealed and yet wrong would end in a traceback, or take all memory."""
    path, params = saved
    _seal_again(path, lambda value: value.update(change))
    with pytest.raises(ValueError, match=r"jaxmoe\.json.*; convert the source again"):
        store.restore(path, abstract(params))


@pytest.mark.parametrize(
    "change",
    [
        *({"shape": shape} for shape in ([-1], "12", [10**20], [[1]], [True])),
        *({"chunk": chunk} for chunk in ([0, 0, 0], [1], "abc", [10**20] * 3)),
        *({name: 5} for name in ("dtype", "crc32", "sums")),
    ],
)
def test_parameters_of_another_writer(saved, change):
    """The same for what a manifest says of a parameter."""
    path, params = saved
    _seal_again(path, lambda value: value["params"]["layers.0.w"].update(change))
    with pytest.raises(ValueError, match=r"jaxmoe\.json.*; convert the source again"):
        store.restore(path, abstract(params))


def _seal_again(path: Path, change):
    """Changes a manifest, and gives it the digest and seal of what it then says."""
    file = path / store.MANIFEST
    value = json.loads(file.read_text())
    change(value)
    value.pop("seal")
    with suppress(TypeError, AttributeError, KeyError):
        value["digest"] = manifest._parse(value).digest
    file.write_text(json.dumps(value | {"seal": manifest._seal(value)}))
