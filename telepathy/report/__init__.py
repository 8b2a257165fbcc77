"""Tables, figures and documents, made from files of results only."""
