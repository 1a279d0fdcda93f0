"""Where the time of a contestant goes: ``python -m benchmarks.profile CASE [CONTESTANT]``, on this process' backend.

Prints the operations that take longest, by the framework's own profiler: calls and milliseconds of one run, on the host
and, where there is one, on the GPU. On torch times are those of an operation itself; on JAX and TensorFlow an operation
that calls others holds their time, too.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.table import Table

from benchmarks.cases import CASES, prepare
from benchmarks.measure import WARM_UP

Event = tuple[str, str, int, float]  # where, what, how often, milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("contestant", nargs="?", default="kbl")
    parser.add_argument("--rows", type=int, default=25)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    only = arguments.contestant if arguments.contestant in ("kbl", "by hand") else None
    contestants = prepare(CASES[arguments.case], arguments.batch, only).contestants
    if arguments.contestant not in contestants:
        parser.error(f"{arguments.case} has {', '.join(contestants)}. Received: {arguments.contestant}")
    run = contestants[arguments.contestant]
    for _ in range(WARM_UP + 1):
        started = time.perf_counter()
        run()
        taken = time.perf_counter() - started
    profiled = {"torch": _torch, "jax": _jax, "tensorflow": _tensorflow}[keras.config.backend()]
    calls: dict[tuple[str, str], int] = defaultdict(int)
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for where, what, count, milliseconds in profiled(run):
        calls[where, what] += count
        spent[where, what] += milliseconds
    title = f"{arguments.case}, {arguments.contestant}, {keras.config.backend()}: {1000 * taken:.1f} ms unprofiled"
    table = Table("where", "operation", "calls", "ms", title=title)
    for key in sorted(spent, key=spent.__getitem__, reverse=True)[: arguments.rows]:
        table.add_row(key[0], key[1][:80], str(calls[key]), f"{spent[key]:.2f}")
    Console(width=130).print(table)


def _torch(run: Callable[[], Any]) -> Iterator[Event]:
    from torch.autograd import DeviceType
    from torch.profiler import profile

    with profile() as found:  # of the host, and of a GPU where there is one
        run()
    for event in found.key_averages():
        if event.device_type == DeviceType.CPU:
            yield "host", event.key, event.count, event.self_cpu_time_total / 1e3
        else:
            yield "device", event.key, event.count, event.self_device_time_total / 1e3


def _jax(run: Callable[[], Any]) -> Iterator[Event]:
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    yield plane.name, event.name, 1, event.duration_ns / 1e6


def _tensorflow(run: Callable[[], Any]) -> Iterator[Event]:
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        space = XSpace.FromString(path.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                yield plane.name, plane.event_metadata[event.metadata_id].name, 1, event.duration_ps / 1e9


if __name__ == "__main__":
    main()
