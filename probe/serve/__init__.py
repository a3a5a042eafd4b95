"""Start and describe local servers."""
