"""Starts one tool of the workshop: `python -I run.py TOOL --request FILE`. Answers are lines of JSON on standard output; whatever
libraries print goes to standard error. A refusal names what the caller must change, and ends with exit 0."""

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from assay_tools import protocol  # noqa: E402

TOOLS = ("cross", "finetune")
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


def main() -> None:
    name, flag, request = sys.argv[1:]
    if name not in TOOLS or flag != "--request":
        sys.exit("run.py TOOL --request FILE")
    for key in OFFLINE:
        os.environ[key] = "1"
    os.environ.update(KERAS_BACKEND="torch", KERAS_HOME=os.path.join(tempfile.gettempdir(), "keras"), TF_CPP_MIN_LOG_LEVEL="2")
    job = protocol.Job(json.loads(Path(request).read_text(encoding="utf-8")))
    try:
        result = importlib.import_module(f"assay_tools.{name}").run(job)
    except protocol.Refused as refused:
        job.refused(refused)
        return
    job.result(result)


main()
