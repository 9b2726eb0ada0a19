"""What is measured on an exported file, and what it must pass."""
