package sqlite

// DSN is for tests that open the file without the store.
var DSN = dsn
