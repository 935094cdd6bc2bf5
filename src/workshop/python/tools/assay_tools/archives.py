"""What a file unpacks to is bounded by its own size, before a library unpacks it. torch.save, torch.export.save and Keras store members as
they are, so an honest archive is about as large as what is in it; a few kilobytes that become gigabytes are no model. What an archive
hides from these counts, the jail bounds."""

import io
import json
import math
import zipfile
from pathlib import Path
from typing import BinaryIO

from .protocol import Refused

"""An archive may hold so many times its size, and tensors may share so much of it, beside a little that any file may."""
TIMES, SHARED, SPARE = 4, 32, 16 * 1024 * 1024
MAX_CONFIG = 16 * 1024 * 1024
KERAS_LENGTHS = ("units", "filters", "input_dim", "output_dim")


def too_large(what: str) -> Refused:
    return Refused("unsupported_model_format", f"{what} far more than the file is large: it is no model that is read here")


def assert_unpacks(file: Path | str | BinaryIO) -> None:
    """Of a zip, also one in memory: all members together. What is no zip holds nothing packed, or is refused by whoever reads it."""
    if isinstance(file, (str, Path)):
        with open(file, "rb") as opened:
            return assert_unpacks(opened)
    begin = file.tell()
    try:
        if file.read(2) != b"PK":
            return
        size = file.seek(0, io.SEEK_END)
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(each.file_size for each in archive.infolist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
            raise Refused("unsupported_model_format", "the archive cannot be read") from error
        if unpacked > TIMES * size + SPARE:
            raise too_large("it unpacks to")
    finally:
        file.seek(begin)


def assert_tensors_fit(path: Path, tensors) -> None:
    """A tensor of one number may say that it has a billion: by its strides, or because it has no others that are not zero."""
    size = path.stat().st_size
    total = 0
    for tensor in tensors:
        length = tensor.numel() * tensor.element_size()
        total += length
        if length > TIMES * size + SPARE or total > SHARED * size + SPARE:
            raise too_large("its tensors have")


def assert_keras(path: Path) -> None:
    """Keras makes layers of the sizes its configuration says, then reads weights that HDF5 may have packed."""
    import h5py

    assert_unpacks(path)
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MAX_CONFIG:
                raise too_large("its configuration has")
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5") if "model.weights.h5" in archive.namelist() else None
        if weights is not None:
            sizes: list[int] = []

            def visit(_name: str, each) -> None:
                if isinstance(each, h5py.Dataset):
                    sizes.append(math.prod(each.shape or (0,)) * each.dtype.itemsize)

            with h5py.File(io.BytesIO(weights), "r") as file:
                file.visititems(visit)
            if sum(sizes) > TIMES * size + SPARE:
                raise too_large("its weights have")
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, RuntimeError, NotImplementedError, RecursionError) as error:
        raise Refused("unsupported_model_format", "it is no Keras 3 archive (.keras) that can be read") from error
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if any(isinstance(value.get(key), int) and value[key] > size for key in KERAS_LENGTHS):
                raise too_large("a layer of it has")
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
