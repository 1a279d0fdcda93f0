"""An attack's memory does not grow with the number of batches."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from kbl.attacks import PGD, Progress

STATUS = Path("/proc/self/statm")


@pytest.mark.skipif(not STATUS.exists(), reason="reads resident memory as Linux tells it")
def test_resident_memory_is_flat_over_the_batches() -> None:
    """Of each batch 100 kB are attacked: were they kept, resident memory would rise by 30 MB from the 100th on."""
    network = keras.Sequential(
        [keras.Input((40, 40, 1)), keras.layers.Flatten(), keras.layers.Dense(2)],
    )
    batches, size = 400, 16
    x = np.broadcast_to(np.full((40, 40, 1), 0.5, "float32"), (batches * size, 40, 40, 1))
    seen: list[tuple[float, int]] = []

    def look(state: Progress) -> None:
        pages = int(STATUS.read_text(encoding="ascii").split()[1])
        seen.append((state.done / size, pages * os.sysconf("SC_PAGE_SIZE")))

    attack = PGD(0.1, 0.05, 2, early_stop=False)
    attack.search(network, x, np.zeros(len(x), "int32"), batch_size=size, progress=look, spare_mistakes=False)
    resident = {round(batch): size for batch, size in seen}
    assert max(resident) == batches
    assert resident[batches] - resident[100] < 5e6
