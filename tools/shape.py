"""Print the shape of the package as figures, and fail where one is worse than it was.

``python tools/shape.py`` prints a table; ``--check`` compares it with ``tools/shape.json`` and exits with 1 where a
figure is worse; ``--write`` keeps figures that are better. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "claude_batch_tasks"
KEPT = Path(__file__).with_name("shape.json")

#: What the figures are to be: at most so much, but at least for the last word in a name.
AIMS = {
    "modules in the fullest folder": 16,
    "imports of the busiest module": 12,
    "methods of the largest Protocol": 14,
    "function names of one word, %": 40.0,
    "docstrings that do not begin with a verb, %": 10.0,
    "functions of complexity over 10, %": 2.5,
    "circles of imports": 0,
    "imports that point upwards": 0,
}

#: What the docstrings of functions may begin with.
VERBS = frozenset(
    """
    Accept Add Adopt Allow Answer Append Apply Ask Assign Begin Bind Bound Break Bring Build Call Cancel Change
    Check Claim Close Collect Combine Compare Compute Connect Convert Copy Count Create Cut Decide Decode
    Decrypt Delete Describe Disconnect Discard Divide Download Draw Drop Encode Encrypt End Ensure Estimate
    Explain Export Extend Fail Fetch Find Finish Fix Flush Follow Forget Format Give Go Guard Handle Hand Have
    Hide Hold Identify Import Insert Iterate Judge Keep Learn Leave Let Limit List Load Lock Log Look Make Mark
    Measure Merge Move Name Note Open Order Parse Pause Pick Place Plan Poll Post Prepare Print Probe Publish
    Put Raise Read Rebuild Receive Recognize Record Recover Reduce Refuse Register Release Remember Remove
    Rename Renew Repair Replace Report Request Reset Resolve Restore Resubmit Resume Retrieve Retry Return Run
    Save Say Schedule Search See Select Send Serve Set Shorten Show Sign Skip Split Stage Start State Stay Stop
    Store Submit Sum Take Tell Test Track Translate Try Turn Undo Unpack Update Use Validate Verify Wait Wake
    Walk Warn Wrap Write Yield
    """.split()  # noqa: SIM905 - a list of a word a line is longer than the rest
)


#: Imports that type checkers read, and that are none when the package runs: the type of an ask's job.
ONLY_TYPES = {("claude_batch_tasks.results.ask_result", "claude_batch_tasks.jobs.batch_job")}


class Module:
    """A module of the package, and what it imports of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = ast.parse(path.read_text())
        parts = [PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]
        self.is_package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.is_package else parts)

    def find_imports(self, known: set[str]) -> set[str]:
        """Return the modules of the package that this one imports, wherever in it: at the top or when it runs."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    found.add(full if full in known else base)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
        return {name for name in found & known if name != self.name and (self.name, name) not in ONLY_TYPES}

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        base = package[: len(package) - node.level + 1]
        return ".".join([*base, *([node.module] if node.module else [])])

    def find_functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield the functions and methods of the module, those inside functions included."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node


def count_branches(function: ast.AST) -> int:
    """Return the cyclomatic complexity of a function, without that of functions inside it."""
    branches = 1
    inside = list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.match_case)):
            branches += 1
        elif isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            branches += 1 + len(node.ifs)
        inside.extend(ast.iter_child_nodes(node))
    return branches


def read_layers() -> list[list[str]]:
    """Return the layers of ``pyproject.toml``, the highest first, each with what stands in it side by side."""
    text = (ROOT / "pyproject.toml").read_text()
    found = re.search(r"^layers = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return [[name.strip() for name in re.split(r"[|:]", layer)] for layer in ast.literal_eval(found[1])]


def find_circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or not (Tarjan's algorithm)."""
    numbers: dict[str, int] = {}
    least: dict[str, int] = {}
    path: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        numbers[name] = least[name] = len(numbers)
        path.append(name)
        for other in sorted(imports[name]):
            if other not in numbers:
                visit(other)
                least[name] = min(least[name], least[other])
            elif other in path:
                least[name] = min(least[name], numbers[other])
        if least[name] == numbers[name]:
            circle = path[path.index(name) :]
            del path[path.index(name) :]
            if len(circle) > 1:
                circles.append(circle)

    for name in imports:
        if name not in numbers:
            visit(name)
    return circles


def find_upward(imports: dict[str, set[str]]) -> list[str]:
    """Return the imports of what is above, or beside and parted by ``|``."""
    floor = {name: number for number, layer in enumerate(read_layers()) for name in layer}
    found = []
    for module, others in imports.items():
        for other in others:
            here, there = (name.split(".")[1] if "." in name else "" for name in (module, other))
            if here == there or here not in floor or there not in floor:
                continue
            if floor[there] <= floor[here]:
                found.append(f"{module} -> {other}")
    return found


def is_method_name(name: str) -> bool:
    """Return whether a name is one that Python, and not the project, has chosen."""
    return name.startswith("__") and name.endswith("__")


def begins_with_verb(docstring: str) -> bool:
    """Return whether a docstring's first word is one of the verbs."""
    return (re.match(r"\w+", docstring) or [""])[0] in VERBS


def is_attribute(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is read as an attribute, whose docstring says what it is."""
    return any("property" in ast.unparse(each) or "setter" in ast.unparse(each) for each in function.decorator_list)


def measure() -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return the figures, and what stands behind each of them."""
    modules = [Module(path) for path in sorted(PACKAGE.rglob("*.py"))]
    known = {module.name for module in modules}
    imports = {module.name: module.find_imports(known) for module in modules}
    folders = Counter(str(module.path.parent.relative_to(ROOT)) for module in modules)
    functions = [(module, each) for module in modules for each in module.find_functions()]
    named = [(module, each) for module, each in functions if not is_method_name(each.name)]
    one_word = [f"{module.name}.{each.name}" for module, each in named if "_" not in each.name.strip("_")]
    documented = [(module, each) for module, each in named if ast.get_docstring(each) and not is_attribute(each)]
    no_verb = [
        f"{module.name}.{each.name}: {(ast.get_docstring(each) or '').splitlines()[0]}"
        for module, each in documented
        if not begins_with_verb(ast.get_docstring(each) or "")
    ]
    complex_ = [
        f"{module.name}.{each.name}: {count_branches(each)}" for module, each in functions if count_branches(each) > 10
    ]
    protocols = Counter(
        {
            f"{module.name}.{node.name}": sum(isinstance(each, ast.FunctionDef) for each in node.body)
            for module in modules
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
        }
    )
    circles = [" - ".join(circle) for circle in find_circles(imports)]
    upward = find_upward(imports)
    busiest = Counter({name: len(others) for name, others in imports.items()})
    over = AIMS["imports of the busiest module"]
    figures = {
        "modules in the fullest folder": max(folders.values()),
        "imports of the busiest module": max(busiest.values()),
        "methods of the largest Protocol": max(protocols.values()),
        "function names of one word, %": round(100 * len(one_word) / len(named), 1),
        "docstrings that do not begin with a verb, %": round(100 * len(no_verb) / len(documented), 1),
        "functions of complexity over 10, %": round(100 * len(complex_) / len(functions), 1),
        "circles of imports": len(circles),
        "imports that point upwards": len(upward),
    }
    behind = {
        "modules in the fullest folder": [f"{name}: {count}" for name, count in folders.most_common(5)],
        "imports of the busiest module": [f"{name}: {count}" for name, count in busiest.most_common() if count > over],
        "methods of the largest Protocol": [f"{name}: {count}" for name, count in protocols.most_common(5)],
        "function names of one word, %": one_word,
        "docstrings that do not begin with a verb, %": no_verb,
        "functions of complexity over 10, %": complex_,
        "circles of imports": circles,
        "imports that point upwards": upward,
    }
    return figures, behind


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a figure is worse than the one kept")
    parser.add_argument("--write", action="store_true", help="keep the figures that are better")
    parser.add_argument("--show", metavar="WORD", help="list what stands behind the figures with this word")
    options = parser.parse_args()
    figures, behind = measure()
    kept: dict[str, float] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    print(f"{'':46}{'now':>8}{'kept':>8}{'aim':>8}")
    for name, figure in figures.items():
        print(f"{name:46}{figure:>8g}{kept.get(name, figure):>8g}{AIMS[name]:>8g}")
        if options.show and options.show in name:
            print("\n".join(f"    {each}" for each in behind[name]))
    worse = {name: figure for name, figure in figures.items() if figure > max(kept.get(name, figure), AIMS[name])}
    if options.check:
        for name, figure in worse.items():
            print(f"worse: {name} is {figure:g} and was {kept[name]:g}; see: python tools/shape.py --show '{name}'")
        return 1 if worse else 0
    if options.write:
        least = {name: min(figure, kept.get(name, figure)) for name, figure in figures.items()}
        KEPT.write_text(json.dumps(least, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
