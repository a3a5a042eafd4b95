"""mitmproxy addons that route and record."""
