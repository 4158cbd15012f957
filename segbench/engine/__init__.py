"""Where runs are planned, placed, executed, evaluated and recorded."""
