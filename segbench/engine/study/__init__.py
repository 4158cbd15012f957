"""The published study as facts: its methods, tissues, usability and scores."""
