"""How fast conversion is, against copying the same files (`jaxmoe bench convert`)."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.checkpoints import safetensors
from jaxmoe.checkpoints.hf_files import layout_of, write_tensors
from jaxmoe.families.config_json import from_hf
from jaxmoe.files import sync

MODEL: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 32000,
    "hidden_size": 2048,
    "num_hidden_layers": 5,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}
"""The layers of Qwen3-30B-A3B, five of them: 6.5 GB in bfloat16."""


@dataclass(frozen=True)
class Round:
    """Seconds of one copy and one conversion; `own` leaves out Python's start."""

    copy: float
    convert: float
    own: float
    peak: float


def write_random(directory: Path, model: dict[str, Any], shard_bytes: int) -> int:
    """Writes a checkpoint of random bfloat16 weights; its size in bytes."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(model))
    rng = np.random.default_rng(0)

    def bits(tensor: safetensors.Tensor) -> memoryview:
        drawn = rng.integers(0, 1 << 16, tensor.nbytes // 2, np.uint16)
        # Without the top bit of the exponent every value is finite.
        return (drawn & np.uint16(0xBFFF)).data

    return write_tensors(directory, layout_of(from_hf(model), shard_bytes), bits)


def copy(source: Path, out: Path):
    """Copies the files of `source` and forces them to the disk, as conversion does."""
    out.mkdir()
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, out / path.name)
        sync(out / path.name)


def _timed(work: Callable[[], Any], source: Path) -> tuple[float, Any]:
    """Seconds and result of `work`, with nothing left to write and nothing cached."""
    os.sync()
    with safetensors.Files(source, [path.name for path in source.iterdir()]) as files:
        files.forget()
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def one_round(source: Path, scratch: Path, jobs: int) -> Round:
    """Copies and converts `source` once each, in turn, and removes both outputs."""
    copied, converted = scratch / "copied", scratch / "converted"
    command = [sys.executable, "-m", "convert", source, converted, "--jobs", str(jobs)]

    def run() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"conversion failed: {done.stderr}")
        return done.stdout

    try:
        copying, _ = _timed(lambda: copy(source, copied), source)
        shutil.rmtree(copied)
        converting, text = _timed(run, source)
    finally:
        for path in (copied, converted):
            shutil.rmtree(path, ignore_errors=True)
    found = re.search(r"in ([\d.]+) s, .*peak memory ([\d.]+) GB", text)
    assert found, text
    return Round(copying, converting, float(found[1]), float(found[2]) * 1e9)


def summary(nbytes: int, rounds: list[Round]) -> str:
    """Lines: copy, conversion, and the ratio of their medians."""
    copying = statistics.median(r.copy for r in rounds)
    converting = statistics.median(r.convert for r in rounds)
    own = statistics.median(r.own for r in rounds)
    peak = max(r.peak for r in rounds)
    return "\n".join(
        [
            f"copy:    {nbytes / 1e6 / copying:4.0f} MB/s, median of {len(rounds)}",
            f"convert: {nbytes / 1e6 / converting:4.0f} MB/s, "
            f"peak memory {peak / 1e9:.2f} GB",
            f"         {nbytes / 1e6 / own:4.0f} MB/s without the start of Python, "
            f"ratio {copying / own:.2f}",
            f"ratio:   {copying / converting:.2f} of the speed of copying "
            f"{nbytes / 1e9:.2f} GB (source dropped from the page cache, output forced "
            "to the disk)",
        ]
    )
