// Package mutate measures what the tests of a package notice: it makes small mistakes in the code, one at a time, and runs the
// package's tests with each. A mistake that no test notices is a missing test, or changes nothing that anybody can see.
//
//	packages.go   which packages are measured
//	mutant.go     a mistake, and its name, which does not depend on line numbers
//	sites.go      where mistakes can be made: conditions, comparisons, sums, booleans, statements
//	render.go     source text that contains all mistakes of a file, each behind a switch
//	build.go      one test binary per package; the source tree is not changed
//	run.go        the tests, once for each mistake
//	report.go     the tables of README.md: packages, and the mistakes that are left, each with a reason
//
// All mistakes of a package are compiled at once, into a binary that reads from its environment which one to make. So a mistake
// costs one run of the tests and no build.
package mutate
