"""From verdicts to effects: pairs, measures, bounds, sentences."""
