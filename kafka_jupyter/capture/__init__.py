"""A `fit` becomes a Task: `train()` for scripts and helper modules, `%%kafka_train` (in notebook/) for cells.

Nothing is imported here: `%load_ext` registers itself in `host`, and must not load a Kafka client for that.
"""
