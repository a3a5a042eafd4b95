"""Tests of the recording proxy; a package, so that its modules may be called like those of other folders."""
