"""Reads a data set to train on: lines of JSON, one list of JSON, CSV or Parquet, whose rows are all in one of four forms. Every limit is
checked, and an error names a row and a field and nothing that stands there. Imports the standard library alone, but for Parquet."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from .protocol import Refused

MAX_BYTES = 256 * 1024 * 1024
MAX_LINES = 200_000
MAX_LINE_BYTES = 1024 * 1024
MAX_MESSAGES = 1000
ROLES = ("system", "user", "assistant", "tool")
FIELDS = ("text", "messages", "prompt", "completion", "instruction", "input", "output")
FIELD = "dataset_source"
ALPACA = "### Instruction:\n{instruction}\n\n### Response:\n"
ALPACA_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"


def refused(line: int, problem: str) -> Refused:
    return Refused("invalid_value", f"line {line}: {problem}", FIELD)


def read(path: Path) -> tuple[str, list[dict]]:
    """The form (`text`, `messages`, `prompt_completion`) and rows with exactly its fields."""
    if not path.is_file():
        raise Refused("invalid_value", "the data set is no file", FIELD)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Refused("invalid_value", f"the data set has {size} bytes, at most {MAX_BYTES} are read", FIELD)
    form, rows = None, []
    for number, row in numbered(path):
        if number > MAX_LINES:
            raise Refused("invalid_value", f"the data set has more than {MAX_LINES} lines", FIELD)
        found = form_of(row, number)
        form = form or found
        if found != form:
            raise refused(number, f"it has the form `{found}`, and the lines before it have `{form}`")
        rows.append(READERS[form](row, number))
    if form is None:
        raise Refused("invalid_value", "the data set has no line", FIELD)
    return ("prompt_completion" if form == "alpaca" else form), rows


def numbered(path: Path) -> Iterator[tuple[int, dict]]:
    """Rows with the number of their line, or of the row where a format has no lines. An input of a job has no ending: its first bytes tell."""
    with path.open("rb") as file:
        start = file.read(4096)
    first = start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start[:4] == b"PAR1":
        return parquet_rows(path)
    if first == b"[":
        return json_rows(path)
    return json_lines(path) if first in (b"{", b"") or not has_header(start) else csv_rows(path)


def json_lines(path: Path) -> Iterator[tuple[int, dict]]:
    with path.open("rb") as file:
        number = 0
        while True:
            line = file.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise refused(number, f"it has more than {MAX_LINE_BYTES} bytes")
            if line.strip():
                yield number, parsed(line, number)


def json_rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        rows = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused("invalid_value", "the data set begins as a list and is no JSON in UTF-8", FIELD) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise refused(number, "it is no object")
        yield number, row


def has_header(start: bytes) -> bool:
    """Whether the first line is one of CSV: names of columns, a field of the forms among them."""
    columns = {name.strip().strip('"') for name in start.split(b"\n")[0].decode("utf-8", "replace").lstrip("\ufeff").split(",")}
    return bool(columns & {"text", "prompt", "completion", "instruction", "output"})


def csv_rows(path: Path) -> Iterator[tuple[int, dict]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", strict=True)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError):
                raise refused(reader.line_num + 1, "it is no CSV in UTF-8") from None
            yield reader.line_num, {name: value for name, value in row.items() if name and isinstance(value, str)}


def parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, memory_map=False) as table:
            columns = [name for name in table.schema_arrow.names if name in FIELDS]
            if table.metadata.num_rows > MAX_LINES:
                raise Refused("invalid_value", f"the data set has more than {MAX_LINES} lines", FIELD)
            if not columns:
                raise refused(1, "it has none of the columns of a data set")
            for batch in table.iter_batches(batch_size=64, columns=columns):
                if batch.nbytes > MAX_BYTES:
                    raise refused(number + 1, "it is too large")
                for row in batch.to_pylist():
                    number += 1
                    yield number, {name: value for name, value in row.items() if value is not None}
    except (pyarrow.ArrowException, OSError):
        raise Refused("invalid_value", "the data set begins as Parquet and cannot be read", FIELD) from None


def parsed(line: bytes, number: int) -> dict:
    try:
        # Some editors begin a file with a mark of its order of bytes.
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError:
        raise refused(number, "it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise refused(number, "it is no JSON") from None
    if not isinstance(row, dict):
        raise refused(number, "it is no object")
    return row


def form_of(row: dict, number: int) -> str:
    if "messages" in row:
        return "messages"
    if "prompt" in row or "completion" in row:
        return "prompt_completion"
    if "instruction" in row or "output" in row:
        return "alpaca"
    if "text" in row:
        return "text"
    raise refused(number, "it has none of `text`, `messages`, `prompt` with `completion`, `instruction` with `output`")


def encodable(value, field: str, number: int) -> str:
    """JSON may write half of a surrogate pair, which is no character and has no UTF-8."""
    if not isinstance(value, str):
        raise refused(number, f"`{field}` is missing or no text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise refused(number, f"`{field}` has half of a surrogate pair") from None
    return value


def words(row: dict, field: str, number: int, *, empty: bool = False) -> str:
    value = encodable(row.get(field), field, number)
    if not empty and not value.strip():
        raise refused(number, f"`{field}` is empty")
    return value


def text(row: dict, number: int) -> dict:
    return {"text": words(row, "text", number)}


def prompt_completion(row: dict, number: int) -> dict:
    return {"prompt": words(row, "prompt", number), "completion": words(row, "completion", number)}


def alpaca(row: dict, number: int) -> dict:
    given = words(row, "input", number, empty=True) if row.get("input") is not None else ""
    form = ALPACA_INPUT if given.strip() else ALPACA
    prompt = form.format(instruction=words(row, "instruction", number), input=given)
    return {"prompt": prompt, "completion": words(row, "output", number)}


def messages(row: dict, number: int) -> dict:
    given = row["messages"]
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_MESSAGES:
        raise refused(number, f"`messages` is no list of 1 to {MAX_MESSAGES}")
    made = []
    for index, message in enumerate(given):
        at = f"messages[{index}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise refused(number, f"`{at}.role` is not one of {', '.join(ROLES)}")
        made.append({"role": message["role"], "content": encodable(message.get("content"), f"{at}.content", number)})
    if all(each["role"] != "assistant" for each in made):
        raise refused(number, "`messages` has none of the assistant to learn")
    return {"messages": made}


READERS = {"text": text, "messages": messages, "prompt_completion": prompt_completion, "alpaca": alpaca}
