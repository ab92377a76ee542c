package postgres

// CommitLanes is commitLanes.
const CommitLanes = commitLanes
