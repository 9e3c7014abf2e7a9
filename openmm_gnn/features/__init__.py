"""Features of the conformation: which atoms an encoder sees, how they become tokens, and the tokens of frames."""
