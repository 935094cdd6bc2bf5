"""Names of files: of inputs, which have none in a job, and of outputs."""

import os
import tempfile
from pathlib import Path

from .protocol import Job, Refused


def named(path: Path, name: str) -> Path:
    """The same file under the name a library wants: inputs of jobs have none."""
    link = Path(tempfile.gettempdir()) / f"assay-{os.getpid()}-{name}" if path.suffix != Path(name).suffix else path
    if link != path:
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return link


def named_output(job: Job, default: str, ending: str) -> str:
    """`output_name` with the ending of its format, which the caller may have written too."""
    name = job.parameter("output_name", str, default)
    stem = name.removesuffix(ending)
    if not stem or len(stem) > 100 or not stem.isascii() or not stem[0].isalnum() or not all(c.isalnum() or c in "._-" for c in stem):
        raise Refused("invalid_value", "`output_name` is not a name of letters, digits, `.`, `_` and `-`", "output_name")
    return stem + ending
