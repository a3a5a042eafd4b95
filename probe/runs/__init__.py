"""Plan, schedule, pace and resume."""
