package store

// Stats are the statistics of a database. A value that the database does not have is 0.
type Stats struct {
	// Backend is "sqlite" or "postgres".
	Backend string
	// Busy, Open and MaxConnections count connections to the database: in use, open, and the maximum. With SQLite they
	// count only the connections for reading.
	Busy, Open, MaxConnections int
	// Waiting is the number of calls that wait for a connection to PostgreSQL, or for a transaction shared with other
	// calls.
	Waiting int
	// Commits is the number of committed transactions: of appends, or with SQLite of all writes. Writes that arrive
	// together share a transaction. Committing is the number of transactions under way.
	Commits    uint64
	Committing int
	// GivenUp is the number of calls that failed because they got no connection to PostgreSQL in time.
	GivenUp uint64
	// File is set for SQLite only.
	File FileStats
}

// FileStats are the statistics of a SQLite file.
type FileStats struct {
	// DatabaseBytes and LogBytes are the sizes of the file and of its write-ahead log.
	DatabaseBytes, LogBytes int64
	// Copies is how often the write-ahead log was copied into the file. FailedCopies is how often copying failed.
	Copies, FailedCopies uint64
}
