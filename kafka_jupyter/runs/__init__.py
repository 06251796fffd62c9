"""What a run is, computed from its records. Pure: no clock, no I/O, no Kafka; the same answer for every reader."""
