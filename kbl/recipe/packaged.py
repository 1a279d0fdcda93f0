"""The recipes that come with kbl, and how a recipe is found."""

from pathlib import Path

from kbl.errors import UserError
from kbl.recipe.faults import nearest


def packaged() -> list[Path]:
    """Return the files of the recipes and suites that come with kbl, in the order of their names."""
    package = Path(__file__).parents[1]
    # A wheel carries the recipes inside the package; a checkout has them beside it.
    is_checkout = (package.parent / "pyproject.toml").is_file()
    folder = package.parent / "recipes" if is_checkout else package / "recipes"
    return sorted(folder.rglob("*.toml"), key=lambda path: path.stem)


def find(source: str | Path) -> Path:
    """Return the recipe file that a path, or the name of a packaged recipe, stands for.

    Raises:
        UserError: there is none; the text lists the packaged ones.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    names = {recipe.stem: recipe for recipe in packaged()}
    if str(source) in names:
        return names[str(source)]
    listed = ", ".join(names) or "none"
    raise UserError(
        f"no recipe {str(source)!r}: expected a file, or a recipe that comes with kbl ({listed})"
        + nearest(path.stem, names)
    )
