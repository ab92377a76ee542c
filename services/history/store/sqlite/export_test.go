package sqlite

// DSN is for tests that look at the file behind the store's back.
var DSN = dsn
