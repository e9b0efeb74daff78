"""Reading a spreadsheet's CSV of contacts, chunk by chunk, column by column. Knows nothing of the database."""
