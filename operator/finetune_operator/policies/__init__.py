"""One policy a file: each is a pure function that answers with a Step, or with None where it has nothing to say."""
