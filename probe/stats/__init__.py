"""Pure statistics: intervals, tests, powers; functions of numbers that know nothing of routes or stores."""
