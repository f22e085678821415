// Package pgtest gives tests real PostgreSQL servers.
//
//	s := pgtest.Start(t)                  // a server of its own, stopped and removed after the test
//	conn := s.Connect(t, "postgres")
//	s.Replica(t)                          // a streaming replica of s
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//	s := pgtest.Shared(t)                 // one server for all tests of the package
//	db := s.CreateDatabase(t)             // so that they do not meet
//
// A server is a copy of a template data folder that is made once per machine, so it is there in well
// under a second. Servers do not sync to disk and end with the test process, even if that is killed.
package pgtest
