"""What is shown of measurements: HTML pages, figures, CSV files."""
