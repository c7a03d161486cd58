"""The file that llama.cpp is given, read back as the format's document has it."""

import io
import struct

import numpy as np
import pytest

from jaxmoe.benchmarks import gguf
from jaxmoe.benchmarks.llama_cpp_peer import write_gguf
from jaxmoe.benchmarks.subject import Subject


def _read(data: bytes) -> tuple[dict, dict]:
    """Metadata, and of each tensor its type and values, in the order of C."""
    file = io.BytesIO(data)

    def take(form):
        return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))

    def text():
        return file.read(take("Q")[0]).decode()

    assert file.read(4) == b"GGUF"
    version, tensors, values = take("IQQ")
    assert version == 3
    metadata, found = {}, {}
    for _ in range(values):
        key, (kind,) = text(), take("I")
        metadata[key] = text() if kind == 8 else take({4: "I", 6: "f"}[kind])[0]
    heads = []
    for _ in range(tensors):
        name, (rank,) = text(), take("I")
        heads.append((name, take(f"{rank}Q")[::-1], *take("IQ")))
    first = file.tell() + -file.tell() % gguf.ALIGNMENT
    for name, shape, kind, start in heads:
        assert start % gguf.ALIGNMENT == 0
        dtype = {0: np.float32, 30: np.uint16}[kind]
        array = np.frombuffer(data, dtype, int(np.prod(shape)), first + start)
        found[name] = array.reshape(shape)
    return metadata, found


@pytest.mark.slow
def test_the_model_is_written_whole(tmp_path):
    """Another model would be measured, under the same name."""
    subject = Subject.random("tiny")
    write_gguf(tmp_path / "model", subject)
    metadata, tensors = _read((tmp_path / "model").read_bytes())
    assert metadata["general.architecture"] == "qwen3moe"
    assert metadata["qwen3moe.expert_used_count"] == 4
    assert metadata["qwen3moe.rope.freq_base"] == 1e6
    (stack,) = (a for n, a in subject.params.items() if n.endswith("gate_up"))
    for layer in range(3):
        for half, name in enumerate(("gate", "up")):
            found = tensors[f"blk.{layer}.ffn_{name}_exps.weight"]
            np.testing.assert_array_equal(found, np.asarray(stack)[layer, :, half])
        assert tensors[f"blk.{layer}.attn_q.weight"].shape == (64, 64)
        assert tensors[f"blk.{layer}.ffn_norm.weight"].dtype == np.float32
    head = np.asarray(subject.params["head.weight"])
    np.testing.assert_array_equal(tensors["output.weight"], head)
    written = sum(a.size for a in tensors.values())
    assert written == sum(a.size for a in subject.params.values())
