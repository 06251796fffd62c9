"""Other ways to the same training: each a `System` with persistent, warm workers, and progress reported as its own documents say."""
