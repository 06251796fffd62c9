"""No system at all: `fit` in this process; and for many small ones, children that are forked with Keras loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.peers.system import Clock, System, Times


class Kernel(System):
    name, keeps = "`fit` in the kernel", "nothing"

    def train(self, model: Any, data: tuple[Any, Any], epochs: int, batch_size: int) -> Times:
        import keras

        clock = Clock(epochs)
        note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: clock.seen(time.time()))
        model.fit(*data, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[note])
        clock.returned()
        return clock.done()

    def many(self, count: int) -> float:
        """In a process of its own: TensorFlow is not to be forked once it has computed."""
        command = [sys.executable, "-m", "benchmarks.peers.kernel", str(count)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def forked(count: int, at_once: int = 2) -> float:
    import keras  # noqa: F401  # what the children share
    import sklearn.datasets  # noqa: F401
    import tensorflow as tf  # noqa: F401

    from benchmarks import work
    from benchmarks.peers import remote

    work.digits()
    began_s = time.perf_counter()
    running = 0
    for number in range(count):
        if running == at_once:
            _reap()
            running -= 1
        if os.fork() == 0:
            remote.tiny(number)
            os._exit(0)
        running += 1
    for _ in range(running):
        _reap()
    return time.perf_counter() - began_s


def _reap() -> None:
    _, status = os.wait()
    if status:
        raise RuntimeError(f"a child ended with {status}")


if __name__ == "__main__":
    print(forked(int(sys.argv[1])))
