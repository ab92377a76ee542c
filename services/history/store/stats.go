package store

// Stats are the statistics of a database. A number that a database does not have is 0.
type Stats struct {
	// Backend is "sqlite" or "postgres".
	Backend string
	// Busy, Open and MaxConnections count connections to the database (with SQLite, those for reading): in use, open, and
	// the maximum.
	Busy, Open, MaxConnections int
	// Waiting is the number of calls that wait for a connection to PostgreSQL, or for SQLite's writer.
	Waiting int
	// GivenUp is the number of calls that got no connection to PostgreSQL in time.
	GivenUp uint64
	// File is set for SQLite only.
	File FileStats
}

// FileStats are the statistics of a SQLite file.
type FileStats struct {
	// DatabaseBytes and LogBytes are the sizes of the file and of its write-ahead log.
	DatabaseBytes, LogBytes int64
	// Commits is the number of committed transactions; writes that arrive together share one.
	Commits uint64
	// Copies and FailedCopies are how often the write-ahead log was copied into the file, and how often that failed.
	Copies, FailedCopies uint64
}
