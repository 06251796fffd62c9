"""What travels: the wire structs, the topic table, the headers. Knows nothing else of the package but `errors`."""
