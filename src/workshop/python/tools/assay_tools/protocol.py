"""The job's side of a tool: its request, and its lines of JSON. Standard output belongs to the protocol alone: the descriptor is
moved away before any library is imported, and everything else that writes there writes to standard error."""

import json
import math
import os
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_LOG = 300
MISSING = object()


class Refused(Exception):
    """The request cannot be done as it is; `code` is one of the workshop's."""

    def __init__(self, code: str, message: str, param: str | None = None):
        super().__init__(message)
        self.code, self.param = code, param


class Job:
    def __init__(self, request: dict):
        self._lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.parameters: dict = request["parameters"]
        self.inputs: dict = request["inputs"]
        self.output = Path(request["output"])
        self.threads = int(request.get("threads") or 1)
        # The operator says `pickles`, so it is never one too many.
        self._read: set[str] = {"pickles"}

    def input(self, name: str) -> Path:
        if name not in self.inputs:
            raise Refused("missing_required_parameter", f"the job has no input `{name}`", name)
        return Path(self.inputs[name])

    def parameter(self, name: str, kind: type, default: Any) -> Any:
        """Numbers that are no whole ones are recorded, and so handed over, as texts."""
        self._read.add(name)
        value = self.parameters.get(name)
        if value is None:
            return default
        if kind is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            try:
                number = float(value)
            except ValueError:
                number = math.nan
            if math.isfinite(number):
                return number
        elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise Refused("invalid_value", f"`{name}` is not of the type it should have", name)

    def all_read(self) -> None:
        """A parameter that was given and that nothing has asked for means nothing here: better refused than passed over."""
        for name, value in self.parameters.items():
            if value is not None and name not in self._read:
                raise Refused("unsupported_parameter", f"`{name}` means nothing for this model and path", name)

    @contextmanager
    def attempt(self, code: str, problem: str, param: str | None = None):
        """What a library throws at a stranger's file is a refusal of the file; frames of it go to the log. A machine that is short of
        something is not the file's fault."""
        try:
            yield
        except (Refused, MemoryError, OSError, ImportError):
            raise
        except Exception as error:
            traceback.print_exc()
            raise Refused(code, f"{problem} ({type(error).__name__})", param) from error

    def progress(self, fraction: float, stage: str) -> None:
        self._say({"progress": round(min(1.0, max(0.0, fraction)), 4), "stage": stage})

    def log(self, text: str) -> None:
        """Never contents of data."""
        self._say({"log": text[:MAX_LOG]})

    def refused(self, refused: Refused) -> None:
        param = {} if refused.param is None else {"param": refused.param}
        self._say({"refused": {"code": refused.code, "message": str(refused), **param}})

    def result(self, value: dict) -> None:
        self._say({"result": value})

    def _say(self, value: dict) -> None:
        self._lines.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")
        self._lines.flush()
