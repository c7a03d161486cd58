"""A GPU that is not here, for lowering kernels to it."""

from contextlib import AbstractContextManager

from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh


def described_gpu() -> AbstractContextManager:
    """Within it, versions of jax that ask for which GPU (0.12) are told."""
    gpu = AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=gpu)
    return use_abstract_mesh(mesh)
