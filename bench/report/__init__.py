"""Results for readers: tables, text, Markdown, a page, pictures. Reads the form of bench/result.py only."""
