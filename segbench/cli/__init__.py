"""The command line: one module a command group, no logic; heavy imports stay inside the commands."""
