// Package mutate measures how many mistakes the tests of a package notice: it makes small mistakes in the code, one at a time, and runs the
// package's tests with each. If no test notices a mistake, a test is missing, or the mistake has no visible effect.
//
//	packages.go   which packages are measured
//	mutant.go     a mistake, and its name, which does not depend on line numbers
//	sites.go      where mistakes can be made: conditions, comparisons, sums, booleans, statements
//	render.go     source text that contains all mistakes of a file, each behind a switch
//	build.go      one test binary per package; the source tree is not changed
//	run.go        runs the tests, once for each mistake
//	report.go     the tables of README.md: packages, and the unnoticed mistakes, each with a reason
//
// All mistakes of a package are compiled into one binary. Its environment tells it which mistake to make. Therefore a mistake
// costs one run of the tests, but no build.
package mutate
