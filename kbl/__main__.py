"""Run kbl as a module: `python -m kbl …` is `kbl …`."""

from kbl.cli import app

if __name__ == "__main__":
    app(prog_name="kbl")
