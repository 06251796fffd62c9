"""Who wrote a record, and whether they may: keys, the trust file, signing, judging. Knows no Kafka; the bytes are in protocol/signing."""
