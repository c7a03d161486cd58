"""Checkpoints in a bucket: read as local ones are, and no more of them than is needed.

What reads runs in processes of its own (`tests.fake_gcs`).
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.checkpoints import chunks, gcs, store
from tests.fake_gcs import Bucket, end, serve, start

pytestmark = pytest.mark.thorough

EXPERTS, OUT = (16, 2, 32, 64), (64, 8, 16)
CHUNK = 3 * 2 * 32 * 64 * 2
"""Bytes of three experts: no multiple of a shard of two."""


@pytest.fixture
def bucket(tmp_path) -> Iterator[Bucket]:
    """A bucket with a store, `gs://bucket/models/ckpt`."""
    held = Bucket(tmp_path / "bucket")
    (held.folder / "models").mkdir(parents=True)
    params, files = make_params(), {"config.json": "{}", "tokenizer.json": "[1]"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_BYTES", CHUNK)
        patch.setattr(store, "BLOCK_BYTES", CHUNK // 3)
        path = held.folder / "models" / "ckpt"
        store.save(path, params, family="f", files=files)
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "tool use.jinja").write_text("{{ 1 }}")
    (path / "source").mkdir()
    (path / "source" / "model.safetensors.index.json").write_text("{}")
    with serve(held):
        yield held


def make_params() -> dict[str, np.ndarray]:
    """Experts, an output projection, a scale."""
    rng = np.random.default_rng(0)
    return {
        "experts": rng.normal(size=EXPERTS).astype(jnp.bfloat16),
        "o": rng.normal(size=OUT).astype(jnp.bfloat16),
        "scale": rng.normal(size=(64,)).astype(np.float32),
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


HALF = """
import sys
import jax, jax.numpy as jnp, numpy as np
port, process, local = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
from jaxmoe.checkpoints import store
from jaxmoe.ops.bf16_bits import hold_for
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
specs = {"experts": jax.P("x"), "o": jax.P(None, "x"), "scale": jax.P()}
path = "gs://bucket/models/ckpt"
stored = store.read_manifest(path).params
abstract = {
    n: jax.ShapeDtypeStruct(
        stored[n].shape, np.dtype(stored[n].dtype), sharding=jax.NamedSharding(mesh, p)
    )
    for n, p in specs.items()
}
found = store.restore(path, abstract)
one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
there = {
    n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one) for n, s in abstract.items()
}
whole = {n: np.asarray(v) for n, v in store.restore(local, there).items()}
for name, value in found.items():
    assert value.sharding == abstract[name].sharding
    assert len(value.addressable_shards) == 4
    for shard in value.addressable_shards:
        assert np.asarray(shard.data).tobytes() == whole[name][shard.index].tobytes()
bits = hold_for("cpu", found["experts"])
assert bits.dtype == jnp.uint16 and bits.sharding == found["experts"].sharding
for shard in bits.addressable_shards:
    expected = whole["experts"][shard.index].view(np.uint16)
    assert (np.asarray(shard.data) == expected).all()
half = hold_for("cpu", store.restore(path, abstract | {
    "experts": jax.ShapeDtypeStruct(
        stored["experts"].shape, jnp.float16, sharding=abstract["experts"].sharding)
})["experts"])
assert half.dtype == jnp.float32
for shard in half.addressable_shards:
    expected = whole["experts"][shard.index].astype(np.float16).astype(np.float32)
    assert (np.asarray(shard.data) == expected).all()
"""


@pytest.mark.slow
def test_each_process_reads_its_shards(bucket):
    """A process would fetch the experts of others, or its own more than once."""
    port, local = free_port(), bucket.folder / "models" / "ckpt"
    names = ("first", "second")
    running = [
        start(bucket, HALF, port, i, local, who=who, devices=4)
        for i, who in enumerate(names)
    ]
    for process in running:
        end(process)
    params = make_params()
    experts = list((local / "params" / "experts").glob("[0-9]*"))
    assert len(experts) == 6  # of three experts each, and shards are of two
    for who in names:
        # Restored twice. Experts by ranges, half of them each time; the projection
        # is cut behind the axis of its chunks, which come whole, once for 4 devices.
        assert bucket.read(who, "params/experts/") < params["experts"].nbytes + 2000
        assert bucket.read(who, "params/experts/") >= params["experts"].nbytes
        stored = sum(p.stat().st_size for p in (local / "params" / "o").iterdir())
        assert bucket.read(who, "params/o/") <= 2 * stored
        assert bucket.read(who, "params/scale/0") == 2 * params["scale"].nbytes


FETCH = """
import sys
from pathlib import Path
from jaxmoe.checkpoints import store
from jaxmoe.checkpoints import gcs
path = Path("gs://bucket/models/ckpt") if sys.argv[1] == "path" else sys.argv[1]
found = gcs.fetch_small_files(path)
for file in sorted(p for p in found.rglob("*") if p.is_file()):
    print(file.relative_to(found), file.stat().st_size)
print(store.read_manifest(path).digest)
print(found)
"""


@pytest.mark.parametrize("path", ["gs://bucket/models/ckpt/", "path"])
def test_small_files(bucket, path):
    """A tokenizer's file would be missing, or arrays would be copied to the disk."""
    lines = end(start(bucket, FETCH, path)).splitlines()
    local = bucket.folder / "models" / "ckpt"
    assert lines[:-2] == [
        "additional_chat_templates/tool use.jinja 7",
        "config.json 2",
        f"jaxmoe.json {(local / 'jaxmoe.json').stat().st_size}",
        "tokenizer.json 3",
    ]
    assert lines[-2] == store.read_manifest(local).digest
    assert not Path(lines[-1]).exists(), "goes away with the process"
    assert not bucket.read("me", "params/")


SIZES = (0, 1, 6, 7, 8, 13, 14, 15)
BOUNDS = f"""
import sys
from pathlib import Path
from jaxmoe.checkpoints import gcs
gcs.PIECE_BYTES, gcs.MOST_BYTES = 7, 8
path, local = "gs://bucket/models", Path(sys.argv[1])
for size in {SIZES}:
    content = b"begun" + bytes(range(size))
    local.write_bytes(b"begun")
    assert gcs.append_file(path, f"of{{size}}", local)
    assert local.read_bytes() == content, size
    assert gcs.fetch_file(f"{{path}}/of{{size}}").read_bytes() == content[5:]
    try:
        assert gcs.read_file(path, f"of{{size}}") == content[5:], size
        assert size <= 8
    except ValueError as error:
        assert size > 8 and "found more" in str(error)
assert not gcs.append_file(path, "none", local)
assert gcs.read_file(path, "none") is None
"""


def test_reads_are_bounded(bucket, tmp_path):
    """An object of gigabytes, where a config is expected, would fill the memory."""
    for size in SIZES:
        (bucket.folder / "models" / f"of{size}").write_bytes(bytes(range(size)))
    end(start(bucket, BOUNDS, tmp_path / "local"))
    # Of what is too large, one byte is looked at beyond what is fetched as a file.
    assert max(n for _, name, n in bucket.log if name.endswith("/of15")) == 7


ERRORS = """
import json, sys
from jaxmoe.checkpoints import store
from jaxmoe.checkpoints import gcs
import jax, numpy as np
def tell(work):
    try:
        work()
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
    else:
        print(json.dumps(["nothing", ""]))
for name in ("other", "secret"):
    tell(lambda: gcs.fetch_small_files(f"gs://{name}/ckpt"))
    tell(lambda: store.read_manifest(f"gs://{name}/ckpt"))
spec = store.ParamSpec((1,), "float32")
tell(lambda: store.open_array("gs://secret/ckpt", "w", spec))
tell(lambda: store.open_array("gs://bucket/models/ckpt", "w", spec))
stored = store.read_manifest("gs://bucket/models/ckpt").params
abstract = {
    n: jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for n, s in stored.items()
}
tell(lambda: store.restore("gs://bucket/models/ckpt", abstract))
"""


@pytest.mark.parametrize("damage", ["remove", "truncate"])
def test_errors(bucket, damage):
    """A wrong address, missing rights or missing bytes would end in a riddle."""
    chunk = bucket.folder / "models/ckpt/params/experts/1.0.0.0"
    if damage == "remove":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:5000])
    found = [json.loads(line) for line in end(start(bucket, ERRORS)).splitlines()]
    expected = [
        ("FileNotFoundError", "gs://other/ckpt: expected a checkpoint with config"),
        ("FileNotFoundError", "expected a checkpoint directory with jaxmoe.json"),
        ("PermissionError", "gs://secret/ckpt/config.json: expected to read it"),
        ("PermissionError", "gs://secret/ckpt/jaxmoe.json: expected to read it"),
        ("PermissionError", "gs://secret/ckpt/params/w: expected to read it"),
        ("ValueError", "parameter w cannot be read from gs://bucket/models/ckpt"),
        ("ValueError", "parameter experts is damaged or incomplete"),
    ]
    assert len(found) == len(expected)
    for (kind, message), (error, text) in zip(found, expected, strict=True):
        assert (kind, message[: len(text)]) == (error, text)


DAMAGED = """
import sys
import jax, numpy as np
from jaxmoe.checkpoints import store
mesh = jax.make_mesh((4,), ("x",))
path = "gs://bucket/models/ckpt"
stored = store.read_manifest(path).params
for verify in (True, False):
    for name, spec in stored.items():
        axes = {"experts": jax.P("x"), "o": jax.P(None, "x"), "scale": jax.P()}[name]
        wanted = jax.ShapeDtypeStruct(
            spec.shape, np.dtype(spec.dtype), sharding=jax.NamedSharding(mesh, axes)
        )
        others = {
            n: jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype))
            for n, s in stored.items() if n != name
        }
        try:
            store.restore(path, others | {name: wanted}, verify=verify)
        except ValueError as error:
            print(error)
"""


@pytest.mark.parametrize("name", ["experts", "o", "scale"])
def test_flipped_bits(bucket, name):
    """Damage in a bucket would be loaded, in whichever way the part is read."""
    folder = bucket.folder / "models/ckpt/params" / name
    chunk = sorted(folder.glob("[0-9]*"))[-1]
    raw = bytearray(chunk.read_bytes())
    raw[5] ^= 1
    chunk.write_bytes(raw)
    lines = end(start(bucket, DAMAGED, devices=4)).splitlines()
    assert len(lines) == 3  # three loads with checks, none without
    assert all(f"parameter {name} is damaged" in line for line in lines)


def test_local_paths_stay(tmp_path):
    """A local checkpoint would be copied."""
    assert gcs.fetch_small_files(tmp_path) == tmp_path
    assert gcs.fetch_small_files(str(tmp_path)) == tmp_path
    assert gcs.place_of(tmp_path) is None
    assert gcs.place_of("ckpt") is None


def test_other_addresses_are_refused():
    """An address of another store would be taken for a directory."""
    with pytest.raises(ValueError, match="expected a local path or gs://bucket"):
        gcs.place_of("s3://bucket/ckpt")
    assert str(gcs.place_of("gs://b/a/c/")) == "gs://b/a/c"
    assert gcs.place_of("gs://b") == gcs.Place("b", "")
