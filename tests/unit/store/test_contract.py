"""The contract of stores leaves out no method of a store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, get_type_hints

from claude_batch_tasks.store import Store
from tests.unit.store import contract
from tests.unit.store.contract import outages

MODULES = sorted(Path(contract.__file__).parent.glob("*.py"))
PARTS = get_type_hints(Store)


def methods_of(protocol: type) -> set[str]:
    own = [each for each in protocol.__mro__ if getattr(each, "_is_protocol", False) and each is not Protocol]
    return {name for each in own for name in vars(each) if not name.startswith("_")}


#: ``part.method`` of all parts.
METHODS = {f"{part}.{name}" for part, protocol in PARTS.items() for name in methods_of(protocol)}


def calls_in(module: Path) -> Iterator[str]:
    """Yield ``part.method`` for each one that a module calls."""
    for node in ast.walk(ast.parse(module.read_text())):
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Attribute):
            yield f"{function.value.attr}.{function.attr}"


def test_every_method_is_called_by_a_test_of_what_it_does() -> None:
    """``outages`` calls all of them, and looks at nothing that they do."""
    called = {call for module in MODULES if module.stem != "outages" for call in calls_in(module)}
    assert METHODS - called == set()


def test_every_method_is_called_while_the_store_is_down() -> None:
    # The clock goes on without it, names and rights are not asked of anybody, a store that wakes nobody says it in any
    # state, and that the server is down is what an inspection finds.
    own = {"records.name_batch", "wakeups.listen", "inspection.inspect_server"}
    own |= {"transactions.current", "transactions.join", "schema.describe_rights"}
    assert METHODS - own | {"check_schema", "read_identity"} == set(outages.CALLS)


def test_every_part_has_a_module_and_its_tests() -> None:
    names = {module.stem for module in MODULES} - {"__init__", "samples", "outages"}
    assert names == set(PARTS)
    for part in PARTS:
        tests = vars(contract.StoreContract)["Test" + part.title().replace("_", "")]
        assert [name for name in vars(tests) if name.startswith("Test")], part


def test_it_knows_nothing_of_a_certain_store() -> None:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not [name for name in names if "redis" in name.lower()], module.name
