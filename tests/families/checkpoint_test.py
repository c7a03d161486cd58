"""Every family's checkpoints: read from either format alike, and given back exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import convert, export
from jaxmoe.checkpoints.source import open_source
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import abstract_params
from tests.hugging_face import make_tensors, write_checkpoint

CASES = [
    pytest.param(
        dict(values),
        id=f"{name}-{number}",
        marks=pytest.mark.slow if number else (),
    )
    for name, family in FAMILIES.items()
    for number, values in enumerate(family.test_configs)
]


@pytest.mark.parametrize("config", CASES)
def test_formats_agree_and_come_back(tmp_path, config):
    """A family's weights would depend on the format, or change on the way back."""
    tensors = make_tensors(config, jnp.bfloat16)
    directory = write_checkpoint(tmp_path / "hf", config, tensors, shards=2)
    convert(directory, tmp_path / "ckpt")
    sources = open_source(directory), open_source(tmp_path / "ckpt")
    assert sources[0].digest() == sources[1].digest()
    abstract = abstract_params(sources[0].config, jnp.bfloat16)
    files, converted = (source.read(abstract) for source in sources)
    same = jax.tree.map(_same, files, converted)
    assert all(same.values()), same
    export(tmp_path / "ckpt", tmp_path / "again")
    for path in directory.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def _same(a, b) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()
