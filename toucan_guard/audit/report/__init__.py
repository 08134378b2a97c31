"""What the record says, counted line by line in bounded memory, and the page that shows it."""
