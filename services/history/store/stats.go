package store

// Stats is how a database is doing. A number that a database does not have is 0.
type Stats struct {
	// Backend is "sqlite" or "postgres".
	Backend string
	// Busy, Open and MaxConnections count connections to the database (of SQLite, those that read): in use, made, and the
	// most that may be made.
	Busy, Open, MaxConnections int
	// Waiting is how many calls wait for a connection to PostgreSQL, or for SQLite's writer.
	Waiting int
	// GivenUp is how many calls got no connection to PostgreSQL in time.
	GivenUp uint64
	// File is of SQLite only.
	File FileStats
}

// FileStats is how a SQLite file is doing.
type FileStats struct {
	// DatabaseBytes and LogBytes are the sizes of the file and of its write-ahead log.
	DatabaseBytes, LogBytes int64
	// Commits is how many transactions were committed; writes that arrive together share one.
	Commits uint64
	// Copies and FailedCopies are how often the write-ahead log was copied into the file, or not.
	Copies, FailedCopies uint64
}
