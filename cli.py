"""Run kbl from a checkout: `python cli.py …` is `kbl …`."""

from kbl.cli import app

if __name__ == "__main__":
    app(prog_name="kbl")
