"""Measure how the package's modules stand on each other: modules, rooms, floors and import circles.

Run ``python benchmarks/structure.py`` for this checkout, and ``--at CHECKOUT`` (repeatable) for others, a column each.
Nothing of segbench is run.

The imports are those that grimp finds, the library under import-linter: at the top of a module, in a class and inside a
function, but not those for type checkers alone (``if TYPE_CHECKING``). Figures are given for all of them, and for those
that run when the module is imported; whether an import stands inside a function is read from the syntax tree, by line.
What is imported by a name in a string (``importlib``), as the face of the package does, is not seen.

A circle is a set of modules each of which imports every other one, directly or over others of the set: a strongly
connected component of more than one module. Floors are counted after the modules of each circle are joined: the
modules of the ground floor import nothing of the package, every other one stands one floor above the highest that it
imports, and the figure is the number of floors. A room is a package directly under ``segbench.engine``, or one of
``analysis``, ``cli`` and ``methods``; a module that lies in none of them is a room of its own. The modules of a room
are joined to find the floors of rooms and the circles between them. An ``__init__`` is a module as any other, and
importing a module is not counted as an import of the packages around it.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp
import networkx as nx

PACKAGE = "segbench"
ENGINE = f"{PACKAGE}.engine"
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Structure:
    """What one checkout is made of."""

    files: dict[str, Path]
    """Module -> its file."""
    imports: nx.DiGraph
    """An edge from each module to each that it imports anywhere."""
    at_import: nx.DiGraph
    """Only the imports outside functions."""

    @property
    def packages(self) -> list[str]:
        """The modules that are packages."""
        return [module for module, file in self.files.items() if file.name == "__init__.py"]

    def figures(self) -> dict[str, int]:
        """Return the table's rows."""
        in_engine = [module for module in self.files if module.rpartition(".")[0] == ENGINE]
        rooms = [module for module in in_engine if module in self.packages]
        lines = [len(file.read_text().splitlines()) for file in self.files.values()]
        found = {
            "modules": len(self.files),
            "packages": len(self.packages),
            "rooms of the engine": len(rooms),
            "flat modules in the engine": len(in_engine) - len(rooms),
            "lines": sum(lines),
            "lines of the longest module": max(lines),
        }
        for told, graph in self.graphs():
            found |= {
                f"imports, {told}": graph.number_of_edges(),
                f"floors of modules, {told}": floors(graph),
                f"floors of rooms, {told}": floors(between_rooms(graph)),
                f"circles of modules, {told}": len(circles(graph)),
                f"modules in them, {told}": sum(map(len, circles(graph))),
                f"circles of rooms, {told}": len(circles(between_rooms(graph))),
            }
        return found

    def graphs(self) -> Iterator[tuple[str, nx.DiGraph]]:
        """Yield both graphs with what to call them."""
        yield "all", self.imports
        yield "outside functions", self.at_import


def read_structure(checkout: Path) -> Structure:
    """Read the imports of a checkout's package.

    Raises
    ------
    SystemExit
        There is no package in that folder.
    """
    root = checkout.resolve() / PACKAGE
    if not (root / "__init__.py").is_file():
        raise SystemExit(f"there is no package {PACKAGE} in {checkout}: name the folder of a checkout with --at")
    sys.path.insert(0, str(root.parent))
    importlib.invalidate_caches()
    try:
        graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    finally:
        sys.path.remove(str(root.parent))
    files = {module: _file(root.parent, module) for module in sorted(graph.modules)}
    inside = {module: _lines_in_functions(file) for module, file in files.items()}
    everything, outside = nx.DiGraph(), nx.DiGraph()
    everything.add_nodes_from(files)
    outside.add_nodes_from(files)
    for importer in files:
        for imported in graph.find_modules_directly_imported_by(importer):
            everything.add_edge(importer, imported)
            details = graph.get_import_details(importer=importer, imported=imported)
            if any(one["line_number"] not in inside[importer] for one in details):
                outside.add_edge(importer, imported)
    return Structure(files, everything, outside)


def circles(graph: nx.DiGraph) -> list[list[str]]:
    """Return the import circles, the largest first, each in the order of its names.

    Examples
    --------
    >>> circles(nx.DiGraph([("a", "b"), ("b", "a"), ("b", "c")]))
    [['a', 'b']]
    """
    joined = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    return sorted(joined, key=lambda circle: (-len(circle), circle))


def floors(graph: nx.DiGraph) -> int:
    """Return the number of floors, the modules of a circle joined.

    Examples
    --------
    >>> floors(nx.DiGraph([("a", "b"), ("b", "a"), ("b", "c"), ("a", "d")]))
    2
    """
    return nx.dag_longest_path_length(nx.condensation(graph)) + 1


def between_rooms(graph: nx.DiGraph) -> nx.DiGraph:
    """Return the imports between rooms, the modules of each joined."""
    joined = nx.DiGraph()
    joined.add_nodes_from(room_of(module) for module in graph)
    joined.add_edges_from(
        (room_of(importer), room_of(imported))
        for importer, imported in graph.edges
        if room_of(importer) != room_of(imported)
    )
    return joined


def room_of(module: str) -> str:
    """Return the room that a module belongs to.

    Examples
    --------
    >>> room_of("segbench.engine.data.cache"), room_of("segbench.cli.grid"), room_of("segbench.errors")
    ('segbench.engine.data', 'segbench.cli', 'segbench.errors')
    """
    return ".".join(module.split(".")[: 3 if module.startswith(f"{ENGINE}.") else 2])


def _file(above: Path, module: str) -> Path:
    path = above.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _lines_in_functions(file: Path) -> set[int]:
    functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, _FUNCTIONS)]
    return {line for node in functions for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def main() -> None:
    """Print the table, a column a checkout, and below it each circle's modules."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--at", type=Path, action="append", metavar="CHECKOUT", help="A checkout's folder; default this one."
    )
    checkouts = parser.parse_args().at or [Path(__file__).resolve().parent.parent]
    measured = [read_structure(checkout) for checkout in checkouts]
    columns = [structure.figures() for structure in measured]
    names = [checkout.resolve().name for checkout in checkouts]
    print(f"| {' | '.join(['', *names])} |")
    print(f"| --- |{' ---: |' * len(names)}")
    for row in columns[0]:
        print(f"| {' | '.join([row, *(f'{column[row]:,}' for column in columns)])} |")
    for name, structure in zip(names, measured, strict=True):
        for told, graph in structure.graphs():
            for what, found in (("modules", circles(graph)), ("rooms", circles(between_rooms(graph)))):
                for circle in found:
                    print(f"\n{name}, circle of {len(circle)} {what}, {told}: {', '.join(circle)}")


if __name__ == "__main__":
    main()
