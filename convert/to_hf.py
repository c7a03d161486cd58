"""From a checkpoint back to Hugging Face safetensors."""

import json
import os
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convert import destination
from convert.errors import ConversionError
from convert.progress import Progress, Totals
from convert.to_jaxmoe import warn_beyond
from jaxmoe.checkpoints import safetensors, store, weight_files
from jaxmoe.checkpoints.hf_files import Layout, default_layout, index_text
from jaxmoe.checkpoints.manifest import earlier_names
from jaxmoe.checkpoints.partial import KIND
from jaxmoe.checkpoints.plan import Fill, Plan, make_plan
from jaxmoe.checkpoints.small_files import SMALL_FILES, check_small_files
from jaxmoe.checkpoints.store import Manifest
from jaxmoe.checkpoints.stream import in_parallel, overlaps
from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import load_hf_config
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import abstract_params


def export(
    path: str | os.PathLike,
    out: str | os.PathLike,
    *,
    jobs: int = 8,
    force: bool = False,
    show: bool = False,
) -> Totals:
    """Writes the checkpoint `path` as Hugging Face safetensors to the directory `out`.

    Converted from safetensors and not cast, the files come out byte for byte: same
    names, same layout of the experts, same split. Otherwise (of FP8 that was
    dequantised too) one 2-D tensor per expert,
    in shards of about `hf_files.SHARD_BYTES`. Tensors of parts that are not run were
    left out by the conversion; both warn of it. After a kill, the same call begins
    anew; `force` replaces `out`, and an unfinished conversion to it.

    Raises:
      FileNotFoundError, ValueError: no or a damaged checkpoint; see `read_manifest`.
      ConversionError: what was expected, what was found, what to do.
    """
    path, out = Path(path).resolve(), destination.absolute(out)
    manifest = store.read_manifest(path)
    destination.check(path, out, force=force, marker=destination.EXPORTED)
    if manifest.format != store.OLD_FORMAT:
        check_small_files(path, manifest.files, source=True)
    if manifest.weights != "float":
        raise ConversionError(
            f"{path} holds weights of {manifest.weights}, expected floats: quantising "
            "has no way back; export a checkpoint converted without --weights"
        )
    config = load_hf_config(path)
    params = abstract_params(config)
    _refuse_earlier(manifest, params)
    layout = _layout(path, manifest, config)
    tensors = {t.name: t for header in layout.headers for t in header.tensors}
    plan = make_plan(family_of(config), tensors, params)
    _check_types(manifest, plan)
    identity = {KIND: "export", "digest": manifest.digest}
    # Written in one go: what an earlier, killed run left is begun anew.
    staged = destination.staged(out, identity, force=force, resume=False)
    with staged as partial:
        destination.check_space(partial, sum(h.nbytes for h in layout.headers))
        with Progress(manifest.nbytes, "export", show=show) as progress:
            _write_all(path, manifest, layout, plan, partial, progress, jobs)
            if layout.index is not None:
                (partial / weight_files.INDEX).write_text(
                    layout.index, encoding="utf-8"
                )
            destination.carry(path, partial, SMALL_FILES)
            if cast := manifest.source.get("cast"):
                _restate_type(partial / "config.json", cast)
            return progress.close()


def _refuse_earlier(manifest: Manifest, params: Mapping[str, Any]):
    for name, old in earlier_names(params, manifest.params).items():
        raise ConversionError(
            f"expected a checkpoint with {name}, found {old}, as an earlier version of "
            "jaxmoe named it: it can be loaded, not exported; convert the source again"
        )


def _layout(path: Path, manifest: Manifest, config: ModelConfig) -> Layout:
    source = manifest.source
    if not source or source.get("dequantised"):
        return default_layout(family_of(config), manifest.params)
    headers = [_saved_header(path, file) for file in source["files"]]
    index = path / "source" / weight_files.INDEX
    text = index.read_text(encoding="utf-8") if index.exists() else None
    if source["cast"] or source["ignored"]:
        tensors = {t.name: t for header in headers for t in header.tensors}
        plan = make_plan(family_of(config), tensors, abstract_params(config))
        warn_beyond(plan)
        types = _types(manifest, plan)
        headers = [_rewrite(header, types) for header in headers]
        headers = [header for header in headers if header.tensors]
        text = None if text is None else index_text(headers, json.loads(text))
    return Layout(tuple(headers), text)


def _saved_header(path: Path, file: str) -> safetensors.Header:
    saved = path / "source" / f"{file}.header"
    try:
        return safetensors.parse_header(saved.read_bytes().decode("utf-8"), file)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"{saved} should describe the source's {file}, but: {error}; convert the "
            "source again"
        ) from None


def _types(manifest: Manifest, plan: Plan) -> dict[str, str]:
    """Each tensor that is written -> its type, which is its parameter's."""
    found = {}
    for fill in (*plan.fills.values(), *plan.copies):
        spec = manifest.params.get(fill.param)
        dtype = fill.dtype.name if spec is None else spec.dtype
        tag = safetensors.TAGS[dtype]
        found |= {piece.tensor.name: tag for piece in fill.pieces}
    return found


def _rewrite(
    header: safetensors.Header, types: Mapping[str, str]
) -> safetensors.Header:
    """The header with the tensors that have a type here, in that type."""
    tensors = [
        (tensor.name, types[tensor.name], tensor.shape)
        for tensor in sorted(header.tensors, key=lambda t: t.offset)
        if tensor.name in types
    ]
    return safetensors.make_header(
        header.file, tensors, safetensors.header_metadata(header)
    )


def _check_types(manifest: Manifest, plan: Plan):
    wrong = []
    for name, fill in plan.fills.items():
        have = manifest.params.get(name)
        found = None if have is None else (have.shape, have.dtype)
        if found != (fill.shape, fill.dtype.name):
            wrong.append(f"{name}: expected {fill.shape} {fill.dtype}, found {found}")
    wrong += [f"{n}: unexpected" for n in manifest.params.keys() - plan.fills]
    if wrong:
        wrong.append("convert the source again")
        raise ConversionError.listing("the checkpoint contradicts itself", wrong)


def _write_all(
    path: Path,
    manifest: Manifest,
    layout: Layout,
    plan: Plan,
    partial: Path,
    progress: Progress,
    jobs: int,
):
    copies = {copy.param: copy for copy in plan.copies}
    names = [header.file for header in layout.headers]
    destination.make_folders(partial, names)
    with safetensors.Files(
        partial, names, os.O_RDWR | os.O_CREAT | os.O_TRUNC
    ) as files:
        for header in layout.headers:
            raw = header.text.encode()
            files.write(header.file, 0, len(raw).to_bytes(8, "little") + raw)

        def write(fill: Fill, stop: threading.Event):
            targets = [fill]
            if fill.param in copies:
                targets.append(copies[fill.param])
            spec = manifest.params[fill.param]
            crc = _write_param(path, spec, targets, files, progress, stop)
            if crc != spec.crc32:
                raise ConversionError(
                    f"{fill.param} in {path}/params is damaged: expected CRC-32 "
                    f"{spec.crc32}, found {crc}; convert the source again"
                )

        in_parallel(write, plan.fills.values(), jobs)
        files.sync()
    destination.sync_folders(partial, names)


def _write_param(
    path: Path,
    spec: store.ParamSpec,
    targets: list[Fill],
    files: safetensors.Files,
    progress: Progress,
    stop: threading.Event,
) -> str:
    """Writes one parameter to its places in `files`; the CRC-32 of what was read."""
    fill, crc = targets[0], 0
    array = store.open_array(path, fill.param, spec)
    for chunk in store.chunks(fill.shape, fill.dtype.itemsize):
        if stop.is_set():
            raise InterruptedError("stopped")
        values = store.read_values(array[chunk.index], fill.param)
        raw = values.view(np.uint8).reshape(-1)
        crc = zlib.crc32(raw, crc)
        size = fill.dtype.itemsize
        for target in targets:
            for piece, start, end in overlaps(target, chunk):
                offset = piece.offset + (start - piece.start) * size
                part = raw[(start - chunk.start) * size : (end - chunk.start) * size]
                files.write(piece.tensor.file, offset, part)
        progress.add(raw.size)
    return f"{crc:08x}"


def _restate_type(path: Path, cast: str):
    """Makes config.json state the type that the weights now have."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("dtype", "torch_dtype"):
        if key in config:
            config[key] = cast
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
