"""Charts: first the numbers behind a picture, as plain data, then its drawing."""
