"""Closes the ways in which a file of a model runs code while it is read. `import safe` before anything reads a file:
* `torch.load` reads tensors alone, whoever calls it: `torch.export.load` asks for whole pickles (torch 2.13, pt2_archive/_package.py);
* `sympy.sympify` evaluates its text as Python, and exported programs carry such texts: only arithmetic is let through.
The jail is the second barrier, not the first."""

import ast
import pickle
import re
from pathlib import Path

import sympy
import torch

from .protocol import Job, Refused

PICKLED = "it holds more than tensors (a pickle that would run code is refused, never run; the operator may allow it in the jail: workshop.pickles)"
NOT_SAVED = "it is no file of torch.save"
MAX_EXPRESSION = 2000
ARITHMETIC = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Load, ast.Constant,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd, ast.Not, ast.And, ast.Or,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BitAnd, ast.BitOr, ast.Invert,
)
FUNCTIONS = {
    "Abs", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "FloatPow", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "Gt", "Identity",
    "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "Le", "LShift", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Ne", "Not", "Or",
    "Add", "Float", "Integer", "Mul", "Piecewise", "Pow", "PowByNatural", "Rational", "PythonMod", "RShift", "RoundToInt", "ToFloat", "TruncToFloat", "TruncToInt", "Where", "ceiling", "floor",
}

_load, _sympify = torch.load, sympy.sympify


def _tensors_only(*args, **kwargs):
    kwargs["weights_only"] = True
    kwargs.pop("pickle_module", None)
    return _load(*args, **kwargs)


def arithmetic(text: str) -> bool:
    """Whether a text is numbers, names and arithmetic, with no call but of the functions shapes are made of."""
    if len(text) > MAX_EXPRESSION or "__" in text:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    of_symbols = {id(each) for node in nodes if symbol(node) for each in (*node.args, *node.keywords, *(k.value for k in node.keywords))}
    for node in nodes:
        if id(node) in of_symbols:
            continue
        if not isinstance(node, ARITHMETIC):
            return False
        if isinstance(node, ast.Constant) and not isinstance(node.value, (int, float)):
            return False
        if isinstance(node, ast.Call) and not symbol(node):
            if node.keywords or not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
                return False
    return True


def symbol(node: ast.AST) -> bool:
    """`Symbol('s0', positive=True, integer=True)`: how torch writes the name of a size."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "Symbol" or len(node.args) != 1:
        return False
    name = node.args[0]
    named = isinstance(name, ast.Constant) and isinstance(name.value, str) and re.fullmatch(r"[a-z]+[0-9]+", name.value) is not None
    return named and all(each.arg is not None and isinstance(each.value, ast.Constant) and isinstance(each.value.value, bool) for each in node.keywords)


def _sympify_arithmetic(a, *args, **kwargs):
    if isinstance(a, str) and not arithmetic(a):
        raise Refused("unsupported_model_format", "the program has a size that is no arithmetic")
    return _sympify(a, *args, **kwargs)


torch.load = torch.serialization.load = _tensors_only
sympy.sympify = _sympify_arithmetic
torch.hub.load = torch.hub.load_state_dict_from_url = None


def pickles_allowed(job: Job) -> bool:
    """By the operator; then the jail is the only barrier to the code of a pickle, and the record of the job says so."""
    return job.parameter("pickles", str, "refuse") == "jail"


def read_pickle(path: Path):
    """Runs whatever the file says. Only where `pickles_allowed`."""
    try:
        return _load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise Refused("unsupported_model_format", f"{label(path)}: it is a pickle that cannot be read here ({type(error).__name__})") from error


def read_state_dict(path: Path, *, pickles: bool = False) -> dict[str, torch.Tensor]:
    """Of a `.bin`, `.pt` or `.pth` file: names and tensors; everything else is refused, or with `pickles` run in this jail."""
    try:
        loaded = torch.load(path, map_location="cpu")
    except pickle.UnpicklingError as error:
        if not may_be_saved(path):
            raise Refused("unsupported_model_format", f"{label(path)}: {NOT_SAVED}") from error
        if not pickles:
            raise Refused("unsupported_model_format", f"{label(path)}: {PICKLED}") from error
        loaded = read_pickle(path)
        if isinstance(loaded, torch.nn.Module):
            loaded = dict(loaded.state_dict())
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
        raise Refused("unsupported_model_format", f"{label(path)}: {NOT_SAVED}") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise Refused("unsupported_model_format", f"{label(path)}: it is no state dict")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise Refused("unsupported_model_format", f"{label(path)}: its state dict has something that is no tensor")
    return loaded


def may_be_saved(path: Path) -> bool:
    """Whether it begins as a zip or as a pickle does; torch reports any other file as a pickle with an operation that is not allowed."""
    with path.open("rb") as file:
        return file.read(1) in (b"P", b"\x80")


def label(path: Path) -> str:
    """A name of a file that is fit for a message."""
    return path.name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", path.name) else "the file"
