"""How the vectors of docs/spec/log.md are made, one kind of case after another."""
