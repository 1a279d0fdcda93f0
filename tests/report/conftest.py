import json
from pathlib import Path

import pytest


@pytest.fixture
def evaluation():
    """Return an evaluation that has every section (schema 2)."""
    return json.loads(Path(__file__).with_name("evaluation.json").read_text(encoding="utf-8"))
