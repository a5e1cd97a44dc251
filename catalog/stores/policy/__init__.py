"""Policy around any driver: each rule is a guard; `remote` puts them together."""
