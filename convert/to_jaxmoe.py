"""From Hugging Face safetensors to a checkpoint."""

import hashlib
import json
import math
import os
import shutil
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import jax
import ml_dtypes
import numpy as np

from convert import destination
from convert.errors import ConversionError
from convert.progress import Progress, Totals
from jaxmoe.checkpoints import safetensors, store, weight_files
from jaxmoe.checkpoints.hugging_face import HuggingFaceSource
from jaxmoe.checkpoints.partial import KIND
from jaxmoe.checkpoints.plan import Fill, Plan
from jaxmoe.checkpoints.small_files import SMALL_FILES, SOURCE
from jaxmoe.checkpoints.store import Manifest, ParamSpec
from jaxmoe.checkpoints.stream import (
    DequantisingReader,
    QuantisingReader,
    Reader,
    in_parallel,
)
from jaxmoe.config import Fp8Weights, ModelConfig, ModelWeights
from jaxmoe.families.config_json import as_names, as_overrides, changed
from jaxmoe.files import parse_json, write_text
from jaxmoe.nn.decoder import abstract_params, always_wide, fixed_dtypes
from jaxmoe.ops import fp8
from jaxmoe.ops.packed import SCALES


@dataclass(frozen=True)
class Changes:
    """What the output's config.json differs in from the source's.

    overrides: dotted name -> value. ignore: names left out (`jaxmoe.load`).
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.overrides or self.ignore)


UNCHANGED = Changes()


def _uncounted(_: int) -> None:
    """Bytes that were counted before."""


@dataclass(frozen=True)
class Job:
    """A checked conversion: everything that can be known to fail has been looked at.

    config: of what is made. block: what has one scale where the files hold FP8.
    """

    source: weight_files.Weights
    config: ModelConfig
    plan: Plan
    cast: np.dtype | None
    changes: Changes = UNCHANGED
    block: tuple[int, int] | None = None

    @cached_property
    def fills(self) -> dict[str, Fill]:
        """What is to be written: the plan's, and scales of what is quantised."""
        fills = {n: f for n, f in self.plan.fills.items() if n not in self._consumed}
        scales = {
            name: replace(fills[name.removesuffix(SCALES)], param=name, shape=of.shape)
            for name, of in self._fixed.items()
            if name not in fills
        }
        return fills | scales

    @cached_property
    def _consumed(self) -> frozenset[str]:
        """Scales of FP8 that floats are made of."""
        if not self.dequantises:
            return frozenset()
        return frozenset(name for name in self.plan.fills if name.endswith(SCALES))

    @property
    def dequantises(self) -> bool:
        """Whether the files hold FP8, and the checkpoint will hold floats."""
        return self.block is not None and self.config.weights == "float"

    @cached_property
    def _fixed(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and type of what is not stored as the floats that it is made of."""
        if self.config.weights != "int8":
            return {}
        params, fixed = abstract_params(self.config), fixed_dtypes(self.config)
        return {
            name: params[name]
            for name, kind in fixed.items()
            if kind == np.int8 or name.endswith(SCALES)
        }

    def spec(self, fill: Fill) -> ParamSpec:
        """How a parameter will be stored."""
        if (fixed := self._fixed.get(fill.param)) is not None:
            return ParamSpec(fill.shape, fixed.dtype.name)
        floating = fill.dtype.name in ("bfloat16", "float16", "float32")
        floating |= self.dequantises and fill.dtype == fp8.DTYPE
        floating &= fill.param not in always_wide(self.config)
        dtype = self.cast if self.cast is not None and floating else fill.dtype
        return ParamSpec(fill.shape, dtype.name)

    def read_of(self, fill: Fill) -> int:
        """Bytes that are counted as read for it: scales are read with the integers."""
        return fill.nbytes if fill.param in self.plan.fills else 0

    def reader(
        self,
        files: safetensors.Files,
        fill: Fill,
        stop: threading.Event | None = None,
        count: Callable[[int], object] = lambda _: None,
    ) -> Reader:
        """What reads a parameter as it will be stored."""
        spec = self.spec(fill)
        if (scale := fill.param + SCALES) in self._consumed:
            assert self.block is not None
            scales, block = self.plan.fills[scale], self.block
            return DequantisingReader(files, fill, scales, spec, block, stop, count)
        if fill.param not in self._fixed:
            return Reader(files, fill, spec, stop, count)
        name = fill.param.removesuffix(SCALES)
        source, outputs = self.plan.fills[name], self._fixed[name + SCALES].shape
        width = math.prod(source.shape) // math.prod(outputs)
        if fill.param != name:
            count = _uncounted
        return QuantisingReader(files, source, spec, width, stop, count)


def check(
    directory: Path,
    dtype: str | None = None,
    changes: Changes = UNCHANGED,
    weights: str | None = None,
) -> Job:
    """Reads config and headers, and plans the conversion; writes nothing.

    Raises:
      ConversionError: files, index or tensors that do not fit; no such type.
      ValueError, FileNotFoundError: config.json, as `load_hf_config`.
    """
    source = HuggingFaceSource.open(directory, **asdict(changes))
    cast = None
    if dtype is not None:
        if dtype not in ("bfloat16", "float32"):
            raise ConversionError(f"--dtype is bfloat16 or float32, found {dtype}")
        cast = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    config = source.config
    if weights is not None:
        if weights not in get_args(ModelWeights):
            known = " or ".join(get_args(ModelWeights))
            raise ConversionError(f"--weights is {known}, found {weights}")
        if isinstance(config.weights, Fp8Weights):
            raise ConversionError(
                f"--weights {weights} quantises floats, found weights of FP8; convert "
                "them with --dtype bfloat16, export that, and convert the export"
            )
        config = replace(config, weights=weights)
    block = None
    if isinstance(config.weights, Fp8Weights):
        block = config.weights.block
        if cast is not None:
            config = replace(config, weights="float")
            ignore = (*changes.ignore, "quantization_config")
            changes = replace(changes, ignore=ignore)
    return Job(source.weights, config, source.plan, cast, changes, block)


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: str | None = None,
    weights: str | None = None,
    jobs: int = 8,
    force: bool = False,
    verify: bool = False,
    show: bool = False,
    overrides: Mapping[str, Any] | None = None,
    ignore: Iterable[str] = (),
) -> Totals:
    """Converts the Hugging Face checkpoint in `source` to the new directory `out`.

    Memory in use does not grow with the model: a block of each job, the headers, and
    with `verify` a few times `jaxmoe.checkpoints.chunks.CHUNK_BYTES` for each job.
    After a kill, the same call goes on with the parameters that are not finished.

    Args:
      source: a directory with config.json and safetensors.
      out: the checkpoint to make.
      dtype: "bfloat16" or "float32", or None to keep each tensor's own. Weights in FP8
        are dequantised to it. There is no way back: `export` then gives floats.
      weights: "int8" quantises experts, projections and head (`jaxmoe.ops.int8`), from
        the values that the files hold. There is no way back: `export` refuses it.
      jobs: parameters in flight.
      force: replace `out`, and begin anew where an unfinished output differs.
      verify: read everything again and compare.
      show: show a progress bar.
      overrides: values of config.json to replace, as in `jaxmoe.load`; the new
        checkpoint's config.json has them, and its manifest says so.
      ignore: names to leave out of config.json, though they may change the answers.

    Returns:
      Bytes read, seconds and peak memory, of this call.

    Raises:
      ConversionError: what was expected, what was found, what to do.

    Warns:
      UserWarning: NaN or infinite weights, by tensor.
    """
    directory, out = Path(source), destination.absolute(out)
    destination.check(directory, out, force=force, marker=store.MANIFEST)
    changes = Changes(dict(as_overrides(overrides)), as_names(ignore))
    job = check(directory, dtype, changes, weights)
    total = sum(map(job.read_of, job.fills.values()))
    names = [header.file for header in job.source.headers]
    with safetensors.Files(directory, names) as files:
        check_copies(files, job.plan, job.plan.fills)
        with destination.staged(out, identity_of(job, dtype), force=force) as partial:
            store.recover(partial)
            with Progress(total, "convert", show=show) as progress:
                fills = list(job.fills.values())
                receipts = write_params(job, fills, files, partial, progress, jobs)
                finish(job, partial, receipts)
                totals = progress.close()
            if verify:
                verify_params(job, files, partial, receipts, jobs, show)
    warn_bad(receipts)
    warn_beyond(job.plan)
    return totals


def identity_of(job: Job, dtype: str | None) -> dict[str, Any]:
    """What the output depends on; equal for the same files, not touched since."""
    directory = job.source.directory
    stats = {h.file: (directory / h.file).stat() for h in job.source.headers}
    headers = {h.file: hashlib.sha256(h.text.encode()) for h in job.source.headers}
    config = (directory / "config.json").read_bytes()
    return {
        KIND: "convert",
        "format": store.FORMAT,
        # Versions may name parameters otherwise.
        "names": hashlib.sha256("\n".join(sorted(job.fills)).encode()).hexdigest(),
        "family": job.config.family,
        "dtype": dtype,
        **({"weights": "int8"} if job.config.weights == "int8" else {}),
        "config": hashlib.sha256(config).hexdigest(),
        "changes": json.loads(json.dumps(asdict(job.changes))),
        "files": {
            name: [stat.st_size, stat.st_mtime_ns, headers[name].hexdigest()]
            for name, stat in stats.items()
        },
    }


def _in_file_order(fills: Iterable[Fill]) -> list[Fill]:
    def first(fill: Fill) -> tuple[str, int]:
        tensor = fill.pieces[0].tensor
        return tensor.file, tensor.offset

    return sorted(fills, key=first)


@dataclass(frozen=True)
class Receipt:
    """What was noted when a parameter was finished.

    spec: how it is stored, with its checksums. bad: tensor -> what is not finite in it
    -> how often.
    """

    spec: ParamSpec
    bad: Mapping[str, Mapping[str, int]]


def read_receipt(partial: Path, param: str) -> Receipt | None:
    """The receipt of `param`; None where it is not finished, or not readable."""
    path = partial / destination.RECEIPTS / f"{param}.json"
    if not (partial / "arrays" / param).is_dir():
        return None
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
        pairs = value["spec"]
        spec: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in pairs}
        return Receipt(ParamSpec(**spec), value["bad"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_left_over(job: Job, partial: Path, fills: Iterable[Fill], jobs: int):
    """Reads what earlier runs finished: what lies on the disk is not trusted.

    Raises:
      ConversionError: some of it is not what was written; it is unfinished from now on.
    """
    damaged: list[str] = []

    def look(fill: Fill, _: threading.Event):
        receipt = read_receipt(partial, fill.param)
        if receipt is None:
            return
        wanted, found = job.spec(fill), receipt.spec
        same = (wanted.shape, wanted.dtype) == (found.shape, found.dtype)
        if not (same and store.is_intact(partial / "arrays", fill.param, found)):
            damaged.append(fill.param)

    in_parallel(look, fills, jobs)
    for name in damaged:
        (partial / destination.RECEIPTS / f"{name}.json").unlink()
    if damaged:
        raise ConversionError(
            f"{partial} is damaged: an earlier run wrote other bytes of "
            f"{', '.join(sorted(damaged))} than are there now; look after this disk, "
            "then run the same command again, which writes them anew"
        )


def write_params(
    job: Job,
    fills: Iterable[Fill],
    files: safetensors.Files,
    partial: Path,
    progress: Progress,
    jobs: int,
) -> dict[str, Receipt]:
    """Writes those of `fills` that are not finished; the receipts of all of them."""
    arrays = partial / "arrays"
    kept = partial / destination.RECEIPTS
    kept.mkdir(exist_ok=True)
    receipts: dict[str, Receipt] = {}
    left: list[Fill] = []
    fills = _in_file_order(fills)
    check_left_over(job, partial, fills, jobs)
    for fill in fills:
        if (receipt := read_receipt(partial, fill.param)) is not None:
            receipts[fill.param] = receipt
            progress.skip(job.read_of(fill))
        else:
            left.append(fill)
    destination.check_space(partial, sum(job.spec(fill).nbytes for fill in left))

    def write(fill: Fill, stop: threading.Event):
        spec = job.spec(fill)
        reader = job.reader(files, fill, stop, progress.add)
        written = store.write_array(arrays / fill.param, spec, reader.blocks)
        receipt = {"spec": list(vars(written).items()), "bad": reader.scan.bad}
        # Only now, with the array on the disk, may it count as finished.
        path = kept / f"{fill.param}.json"
        write_text(path, json.dumps(receipt))
        receipts[fill.param] = Receipt(written, reader.scan.bad)

    in_parallel(write, left, jobs)
    return receipts


def warn_bad(receipts: Mapping[str, Receipt]):
    """Warns of each tensor that holds values that no weight, or scale, should have."""
    for receipt in receipts.values():
        for name, found in receipt.bad.items():
            values = " and ".join(f"{n} {what}" for what, n in found.items() if n)
            warnings.warn(
                f"{name} holds {values} values, expected finite weights, and scales "
                "above 0; they were converted as they are, but the model may answer "
                "nonsense",
                UserWarning,
                stacklevel=3,
            )


def warn_beyond(plan: Plan):
    """Warns of tensors that the model does not use, and the source had."""
    if beyond := plan.beyond:
        warnings.warn(
            f"{len(beyond)} tensors, {beyond[0]} among them, are of parts that are not "
            "run here, such as layers that predict further tokens in training; they "
            "are left out of the checkpoint, and so of an export of it: keep the "
            "source if they are wanted",
            UserWarning,
            stacklevel=3,
        )


def check_copies(files: safetensors.Files, plan: Plan, params: Iterable[str]):
    """Raises unless tied copies of `params` have the bytes of what they are tied to."""
    for copy in plan.copies:
        if copy.param in params:
            _check_copy(files, copy, plan.fills[copy.param])


def _check_copy(files: safetensors.Files, copy: Fill, fill: Fill):
    spec = ParamSpec(fill.shape, fill.dtype.name)
    readers = [Reader(files, f, spec) for f in (copy, fill)]
    for chunk in store.chunks(fill.shape, fill.dtype.itemsize):
        a, b = (reader.read(chunk) for reader in readers)
        if a != b:
            names = (f.pieces[0].tensor.name for f in (copy, fill))
            raise ConversionError.untied(*names)


# -- the end -------------------------------------------------------------------


def finish(job: Job, partial: Path, receipts: Mapping[str, Receipt]):
    """Makes a checkpoint of the arrays, of which `receipts` holds all."""
    destination.clear(partial, keep=("arrays", "params*"))
    source = job.source
    kept = partial / SOURCE
    kept.mkdir(exist_ok=True)
    names = [header.file for header in source.headers]
    destination.make_folders(kept, names)
    for header in source.headers:
        (kept / f"{header.file}.header").write_text(header.text, encoding="utf-8")
    if source.index is not None:
        (kept / weight_files.INDEX).write_text(source.index, encoding="utf-8")
    destination.sync_folders(kept, names)
    destination.carry(source.directory, partial, SMALL_FILES)
    if job.changes:
        _change_config(partial / "config.json", job.changes)
    store.finish(partial, manifest_of(job, {n: receipts[n].spec for n in job.fills}))


def _change_config(path: Path, changes: Changes):
    config = changed(json.loads(path.read_text("utf-8")), **asdict(changes))
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def manifest_of(job: Job, params: Mapping[str, ParamSpec]) -> Manifest:
    """The manifest of a conversion to these parameters, without the small files."""
    described = {
        "files": [header.file for header in job.source.headers],
        "ignored": [*job.plan.ignored, *job.plan.beyond],
        "cast": None if job.cast is None else job.cast.name,
    }
    if job.config.weights == "int8":
        described["weights"] = job.config.weights
    if job.dequantises:
        described["dequantised"] = True
    if job.changes:
        described["config"] = json.loads(json.dumps(asdict(job.changes)))
    return Manifest(job.config.family, dict(params), described)


def verify_params(
    job: Job,
    files: safetensors.Files,
    partial: Path,
    receipts: Mapping[str, Receipt],
    jobs: int,
    show: bool,
):
    """Reads source and output from the disk again and compares every byte."""
    files.forget()
    total = sum(map(job.read_of, job.fills.values()))
    progress = Progress(total, "verify", show=show)

    def compare(fill: Fill, stop: threading.Event):
        spec = job.spec(fill)
        for path in (partial / "params" / fill.param).iterdir():
            with path.open("rb") as file:
                safetensors.forget(file.fileno())
        array = store.open_array(partial, fill.param, receipts[fill.param].spec)
        reader = job.reader(files, fill, stop, progress.add)
        for chunk in store.chunks(fill.shape, np.dtype(spec.dtype).itemsize):
            stored = store.read_values(array[chunk.index], fill.param)
            if stored.tobytes() != reader.read(chunk):
                raise ConversionError(
                    f"{fill.param}: read back other bytes than were written; the disk "
                    "or the memory of this machine is at fault"
                )

    try:
        in_parallel(compare, job.fills.values(), jobs)
    except ConversionError:
        # What is wrong on the disk must not be taken for finished by the next run.
        shutil.rmtree(partial / destination.RECEIPTS)
        raise
    finally:
        progress.close()
