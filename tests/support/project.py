"""Where the project lies, and the syntax of its files."""

import ast
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "examples" / "demo" / "BACKBONE.md"]
)


@cache
def nodes(file: str) -> tuple[ast.AST, ...]:
    """The syntax tree of a file, by its path from the top, node by node."""
    return tuple(ast.walk(ast.parse((ROOT / file).read_text())))
