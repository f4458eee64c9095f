"""Results as pages: one HTML file that stands by itself."""
