"""The results folder: records, the store, where a launch stands, and mirrors of URLs."""
