"""One attempt at a run: the data, the method's environment and process, the evaluation and the record."""
