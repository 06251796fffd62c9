"""Kafka: the only room that imports its client, the topics, the local broker, and following the log."""
