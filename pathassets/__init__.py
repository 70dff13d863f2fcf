"""pathassets."""
