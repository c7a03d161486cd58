"""Every family's checkpoints: read from either format alike, and given back exactly."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convert import convert, export
from convert.errors import ConversionError
from jaxmoe.checkpoints.source import open_source
from jaxmoe.checkpoints.store import save
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


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_names_of_an_earlier_version_are_read(tmp_path):
    """A converted model would have to be converted again, or not say why."""
    config = dict(FAMILIES["qwen3_next"].test_configs[0])
    directory = write_checkpoint(tmp_path / "hf", config, make_tensors(config))
    convert(directory, tmp_path / "now")
    new = open_source(tmp_path / "now")
    params = new.read(abstract_params(new.config))
    earlier = {n.replace("mixer.out.", "mixer.o."): p for n, p in params.items()}
    assert earlier.keys() != params.keys()
    files = {"config.json": json.dumps(config)}
    save(tmp_path / "old", earlier, family=new.config.family, files=files)
    old = open_source(tmp_path / "old")
    assert old.params.keys() == params.keys()
    found = old.read(abstract_params(old.config))
    assert all(_same(found[name], params[name]) for name in params)
    with pytest.raises(ConversionError, match="earlier version.*convert the source"):
        export(tmp_path / "old", tmp_path / "out")


def _same(a, b) -> bool:
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()
