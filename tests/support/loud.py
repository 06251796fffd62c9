"""`python -m tests.support.loud …` is `python -m kafka_jupyter.cli …` with every logger at DEBUG, whatever anybody sets later."""

import logging

from kafka_jupyter.cli import app

if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s")
    logging.Logger.setLevel = lambda *_: None  # type: ignore[method-assign]
    app.run()
