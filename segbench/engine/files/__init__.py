"""Other people's files, opened with suspicion: pictures, label maps, annotations and tables become checked arrays."""
