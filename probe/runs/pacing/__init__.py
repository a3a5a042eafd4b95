"""When a route may be asked next. Pure: the clock and the chance are handed in, nothing here sends or stores."""
