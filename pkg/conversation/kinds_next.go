package conversation

// nextKinds returns kinds that only a build of the next version knows. Builds for tests of mixed versions return some; a
// release returns none.
func nextKinds() []row { return nil }
