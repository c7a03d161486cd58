"""Chips, as their makers describe them; nothing here was measured.

What a program reaches is less: 70 to 90 % of a memory's bandwidth is usual, and of the
links only those are busy that lie along the mesh axis at hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_GB = 1e9
_TERA = 1e12


@dataclass(frozen=True)
class Chip:
    """One chip.

    memory: bytes. bandwidth: of the memory, bytes a second. bfloat16, float32: of
    products, operations a second, full float32 precision for the latter. link: bytes
    a second that it sends to others, one way, all links together; half of what is
    stated for both ways. together: chips so joined. beyond: the same for more chips.
    slices: numbers of chips that are to be had. slice_type: name of such a slice,
    of its `{chips}` or `{cores}`.
    """

    name: str
    memory: float
    bandwidth: float
    bfloat16: float
    float32: float
    link: float
    together: int
    beyond: float
    slices: tuple[int, ...]
    slice_type: str

    def link_of(self, devices: int) -> float:
        """Bytes a second that a chip sends in a mesh of so many."""
        return self.link if devices <= self.together else self.beyond

    def slice_of(self, devices: int) -> str:
        """What a slice of so many chips is called."""
        return self.slice_type.format(chips=devices, cores=2 * devices)

    def rate(self, dtype: str) -> float:
        """Operations a second of products in this type."""
        return self.float32 if dtype == "float32" else self.bfloat16


def _tpu(
    name: str,
    slice_type: str,
    *,
    memory: float,
    bandwidth: float,
    bfloat16: float,
    both_ways: float,
    pod: int,
    slices: tuple[int, ...],
) -> Chip:
    """GB, GB/s and TFLOP/s as stated. Full float32 takes six bfloat16 passes."""
    rate, link = bfloat16 * _TERA, both_ways * _GB / 2
    return Chip(
        name,
        memory * _GB,
        bandwidth * _GB,
        rate,
        rate / 6,
        link,
        pod,
        # Pods are joined by the data centre's network; no more than one is planned.
        link,
        slices,
        slice_type,
    )


def _gpu(
    name: str,
    *,
    memory: float,
    bandwidth: float,
    bfloat16: float,
    float32: float,
    both_ways: float,
    network: float,
) -> Chip:
    """GB, GB/s and TFLOP/s as stated; eight in a machine, a network card each."""
    return Chip(
        name,
        memory * _GB,
        bandwidth * _GB,
        bfloat16 * _TERA,
        float32 * _TERA,
        both_ways * _GB / 2,
        8,
        network * _GB,
        (1, 2, 4, 8, 16, 32, 64, 128, 256),
        f"{{chips}} {name.upper()}",
    )


_FLAT = (1, 4, 8, 16, 32, 64, 128, 256)
_CUBES = (4, 8, 16, 32, 64, 128, 256)

_CHIPS = (
    # docs.cloud.google.com/tpu/docs/v5e: 16 GB, 819 GB/s, 197 TFLOPs, both ways 400.
    _tpu(
        "v5e",
        "v5litepod-{chips}",
        memory=16,
        bandwidth=819,
        bfloat16=197,
        both_ways=400,
        pod=256,
        slices=_FLAT,
    ),
    # docs.cloud.google.com/tpu/docs/v6e: 32 GB, 1638 GB/s, 918 TFLOPs, both ways 800.
    _tpu(
        "v6e",
        "v6e-{chips}",
        memory=32,
        bandwidth=1638,
        bfloat16=918,
        both_ways=800,
        pod=256,
        slices=_FLAT,
    ),
    # docs.cloud.google.com/tpu/docs/v5p: 95 GB, 2765 GB/s, 459 TFLOPs, both ways 1200.
    # Named by cores, of which a chip has two; so is v4.
    _tpu(
        "v5p",
        "v5p-{cores}",
        memory=95,
        bandwidth=2765,
        bfloat16=459,
        both_ways=1200,
        pod=6144,
        slices=_CUBES,
    ),
    # docs.cloud.google.com/tpu/docs/v4: 32 GiB, 1200 GB/s, 275 TFLOPs. Links, 6 of
    # 50 GB/s each way: TPU v4 (arXiv 2304.01433), table 4.
    _tpu(
        "v4",
        "v4-{cores}",
        memory=32,
        bandwidth=1200,
        bfloat16=275,
        both_ways=600,
        pod=4096,
        slices=_CUBES,
    ),
    # nvidia.com/en-us/data-center/h100, SXM: 80 GB, 3.35 TB/s, bfloat16 1979 with
    # sparsity (half without), float32 67, NVLink 900 GB/s. DGX H100 user guide: a
    # 400 Gb/s network card for each GPU.
    _gpu(
        "h100",
        memory=80,
        bandwidth=3350,
        bfloat16=989,
        float32=67,
        both_ways=900,
        network=50,
    ),
    # nvidia.com/en-us/data-center/h200, SXM: 141 GB, 4.8 TB/s, the rest as H100.
    _gpu(
        "h200",
        memory=141,
        bandwidth=4800,
        bfloat16=989,
        float32=67,
        both_ways=900,
        network=50,
    ),
    # nvidia.com, A100 datasheet, 80GB SXM: 2039 GB/s, bfloat16 312, float32 19.5,
    # NVLink 600 GB/s. DGX A100 user guide: a 200 Gb/s network card for each GPU.
    _gpu(
        "a100",
        memory=80,
        bandwidth=2039,
        bfloat16=312,
        float32=19.5,
        both_ways=600,
        network=25,
    ),
)

CHIPS: Mapping[str, Chip] = MappingProxyType({chip.name: chip for chip in _CHIPS})
"""Name -> chip."""
